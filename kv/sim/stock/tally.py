"""The state machine of a guarded replica: counts commands and sums them up, as the stock one's does.

What lives here: `Tally` (a `StateMachine`), its snapshots, and what of it survives a crash: the last
checkpoint, which is as atomic and durable as a synced LMDB commit. What must not: the log, the group.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kv.errors import KVError
from kv.raft.api import BOOTSTRAP_INDEX, ENTRY_PREFIX, Entry, GroupHandle, SnapshotSink
from kv.sim.stock.checks import step
from kv.sim.stock.fault_sets import COMPACT_ENTRIES
from kv.sim.stock.replica import Acknowledge, State

RETAIN_ENTRIES: Final = 10
"""Entries that the log keeps below a checkpoint."""
_FORMAT: Final = struct.Struct("<QQQQI")


@dataclass(frozen=True, slots=True)
class Image:
    """The whole state at an index, with the terms that a log needs to go on from it."""

    index: int = BOOTSTRAP_INDEX
    term: int = 0
    previous_term: int = 0
    state: State = (0, 0)

    def after(self, entry: Entry) -> Image:
        """The image one entry later."""
        data, index, term = entry
        assert index == self.index + 1, (index, self.index)
        return Image(index, term, self.term, step(self.state, command(data)))

    def pack(self) -> bytes:
        """The bytes of a snapshot."""
        return _FORMAT.pack(self.index, self.term, self.previous_term, *self.state)

    @staticmethod
    def unpack(raw: bytes) -> Image:
        """Read a snapshot; `ValueError` if it is none."""
        try:
            index, term, previous_term, count, digest = _FORMAT.unpack(raw)
        except struct.error as error:
            raise ValueError(f"not a snapshot: {error}") from error
        return Image(index, term, previous_term, (count, digest))


@dataclass
class TallyDisk:
    """What survives a crash."""

    checkpoint: Image = field(default_factory=Image)
    finished: dict[int, Image] = field(default_factory=dict)
    """Received snapshots that were made durable, by index."""


class Source:
    """A snapshot of the last checkpoint."""

    def __init__(self, disk: TallyDisk) -> None:
        self._disk = disk
        self._image, self._raw = Image(), b""

    def prepare(self) -> None:
        """See `SnapshotSource`."""
        self._image = self._disk.checkpoint
        self._raw = self._image.pack()

    @property
    def index(self) -> int:
        """See `SnapshotSource`."""
        return self._image.index

    @property
    def index_term(self) -> int:
        """See `SnapshotSource`."""
        return self._image.term

    @property
    def previous_term(self) -> int:
        """See `SnapshotSource`."""
        return self._image.previous_term

    @property
    def total_bytes(self) -> int:
        """See `SnapshotSource`."""
        return len(self._raw)

    def read(self, offset: int, length: int) -> bytes:
        """See `SnapshotSource`."""
        return self._raw[offset : offset + length]

    def close(self) -> None:
        """Nothing to remove."""


class Sink:
    """A snapshot on its way in."""

    def __init__(self, disk: TallyDisk, index: int) -> None:
        self._disk, self._index, self._raw = disk, index, b""

    @property
    def index(self) -> int:
        """See `SnapshotSink`."""
        return self._index

    def write(self, offset: int, data: bytes) -> None:
        """See `SnapshotSink`."""
        assert offset == len(self._raw), "pieces come in order without gaps"
        self._raw += data

    def finish(self) -> None:
        """See `SnapshotSink`."""
        image = Image.unpack(self._raw)
        if image.index != self._index:
            raise ValueError(f"a snapshot at {image.index} instead of {self._index}")
        self._disk.finished[self._index] = image

    def abort(self) -> None:
        """See `SnapshotSink`."""
        self._disk.finished.pop(self._index, None)


class Tally:
    """See the file's docstring; implements `StateMachine`."""

    def __init__(self, disk: TallyDisk, base: int) -> None:
        """Stand on what a crash has left; `base` is that of the log."""
        if (
            base > disk.checkpoint.index
        ):  # the crash came between a snapshot's mark in the log and its installation
            disk.checkpoint = disk.finished[base]
        self.image = disk.checkpoint
        self.failure: str | None = None
        self.store_full = self.checkpointing = False
        self.fresh: list[Entry] = []
        """What was applied since somebody looked."""
        self._disk = disk
        self._waiting: list[tuple[bytes, Acknowledge]] = []
        self._proposed: dict[int, tuple[bytes, Acknowledge]] = {}
        self._group: GroupHandle | None = None

    def write(self, data: bytes, acknowledge: Acknowledge) -> None:
        """Have a command proposed at the next `pump`."""
        self._waiting.append((data, acknowledge))

    # ------------------------------------------------------------ StateMachine

    @property
    def applied_index(self) -> int:
        """See `StateMachine`."""
        return self.image.index

    @property
    def checkpoint_index(self) -> int:
        """See `StateMachine`."""
        return self._disk.checkpoint.index

    def attach(self, group: GroupHandle) -> None:
        """See `StateMachine`."""
        self._group = group

    def apply(self, entries: Sequence[Entry]) -> None:
        """See `StateMachine`."""
        for entry in entries:
            self.image = self.image.after(entry)
            self.fresh.append(entry)
            data, acknowledge = self._proposed.pop(entry[1], (b"", _nobody))
            if data is entry[0]:  # the very object: an equal one would be another's
                acknowledge(entry[1])

    def overdue(self, now: float) -> bool:  # noqa: ARG002 - nobody waits here
        """See `StateMachine`."""
        return False

    def maybe_checkpoint(self, now: float) -> None:  # noqa: ARG002 - here it is a matter of entries, not of time
        """See `StateMachine`."""
        assert self._group is not None
        if self.applied_index - self.checkpoint_index >= COMPACT_ENTRIES:
            self._disk.checkpoint = self.image
            self._group.compact(self.checkpoint_index - RETAIN_ENTRIES)

    def pump(self) -> None:
        """See `StateMachine`. A refused command is forgotten: its client was told so."""
        assert self._group is not None
        waiting, self._waiting = self._waiting, []
        for data, acknowledge in waiting:
            try:
                index = self._group.propose(data)
            except KVError:
                continue
            self._proposed[index] = (data, acknowledge)

    def leadership(self, is_leader: bool, term: int) -> None:
        """See `StateMachine`."""

    def snapshot_source(self) -> Source:
        """See `StateMachine`."""
        return Source(self._disk)

    def snapshot_sink(self, index: int, total_bytes: int) -> Sink:  # noqa: ARG002 - the face's parameters
        """See `StateMachine`."""
        return Sink(self._disk, index)

    def install(self, sink: SnapshotSink, index: int) -> None:  # noqa: ARG002 - the face's parameters
        """See `StateMachine`."""
        image = self._disk.finished[index]
        assert image.index > self.applied_index, "the state would go back"
        self.image = self._disk.checkpoint = image

    def reset_pending(self, why: KVError) -> None:  # noqa: ARG002 - clients do not care why
        """See `StateMachine`."""
        self._waiting.clear()
        self._proposed.clear()


def command(data: bytes) -> str | None:
    """The command in an entry's data; None for a no-op."""
    assert data[:1] == ENTRY_PREFIX, data[:1]
    return data[1:].decode() or None


def _nobody(_: int) -> None:
    """Nobody waits for this entry here."""
