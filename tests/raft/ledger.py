"""A state machine for the tests of the raft floor: the list of all entries that were applied.

What lives here: `Ledger` (a `StateMachine`), its snapshots, and what of it survives a crash. What must not:
expectations about Raft; the harness watches what is applied through `observe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kv.errors import KVError
from kv.internal.v1 import raft_pb2
from kv.raft.api import BOOTSTRAP_INDEX, Entry, GroupHandle, SnapshotSink


@dataclass
class LedgerDisk:
    """What survives a crash: the last checkpoint, and received snapshots that were finished."""

    checkpoint: list[Entry] = field(default_factory=list)
    finished: dict[int, list[Entry]] = field(default_factory=dict)
    installed: int = 0


class LedgerSource:
    """A snapshot of the last checkpoint: all its entries, serialized."""

    def __init__(self, disk: LedgerDisk) -> None:
        self._disk = disk
        self._entries: list[Entry] = []
        self._blob = b""
        self.closed = False

    def prepare(self) -> None:
        self._entries = list(self._disk.checkpoint)
        parts = [raft_pb2.Entry(term=term, data=data) for data, _, term in self._entries]
        self._blob = raft_pb2.Append(entries=parts).SerializeToString()

    @property
    def index(self) -> int:
        return BOOTSTRAP_INDEX + len(self._entries)

    @property
    def index_term(self) -> int:
        return self._entries[-1][2] if self._entries else 0

    @property
    def previous_term(self) -> int:
        return self._entries[-2][2] if len(self._entries) > 1 else 0

    @property
    def total_bytes(self) -> int:
        return len(self._blob)

    def read(self, offset: int, length: int) -> bytes:
        assert not self.closed, "read after close"
        return self._blob[offset : offset + length]

    def close(self) -> None:
        self.closed = True


class LedgerSink:
    """A snapshot on its way in."""

    def __init__(self, disk: LedgerDisk, index: int) -> None:
        self._disk, self._index = disk, index
        self._blob = b""
        self.aborted = False

    @property
    def index(self) -> int:
        return self._index

    def write(self, offset: int, data: bytes) -> None:
        assert offset == len(self._blob), "pieces come in order without gaps"
        self._blob += data

    def finish(self) -> None:
        append = raft_pb2.Append.FromString(self._blob)
        entries = [(e.data, BOOTSTRAP_INDEX + 1 + i, e.term) for i, e in enumerate(append.entries)]
        if BOOTSTRAP_INDEX + len(entries) != self._index:
            raise ValueError(f"not a snapshot at {self._index}")
        self._disk.finished[self._index] = entries

    def abort(self) -> None:
        self.aborted = True
        self._disk.finished.pop(self._index, None)


class Ledger:
    """See the file's docstring. `observe` is told each entry as it is applied."""

    def __init__(self, disk: LedgerDisk, observe: Callable[[Entry], None]) -> None:
        self._disk, self._observe = disk, observe
        self.entries: list[Entry] = list(disk.checkpoint)
        self.failure: str | None = None
        self.store_full = False
        self.checkpointing = False
        self.fail_at: int | None = None
        self.waiting: list[bytes] = []
        self.refused: list[KVError] = []
        self.proposed: dict[int, bytes] = {}
        self.leaderships: list[tuple[bool, int]] = []
        self.resets: list[KVError] = []
        self.sinks: list[LedgerSink] = []
        self.sources: list[LedgerSource] = []
        self.pumps = 0
        self.waits_until = math.inf
        self.looked_at: list[float] = []
        self.group: GroupHandle | None = None
        self._noted_index = self.applied_index

    def recover(self, base: int) -> None:
        """Finish an installation whose mark is in the log but which the crash interrupted."""
        if base > self.applied_index and base in self._disk.finished:
            self._disk.checkpoint = self._disk.finished[base]
            self.entries = list(self._disk.checkpoint)

    def checkpoint(self) -> None:
        """Make the state durable."""
        self._disk.checkpoint = list(self.entries)

    @property
    def applied_index(self) -> int:
        return BOOTSTRAP_INDEX + len(self.entries)

    @property
    def checkpoint_index(self) -> int:
        return BOOTSTRAP_INDEX + len(self._disk.checkpoint)

    def attach(self, group: GroupHandle) -> None:
        self.group = group
        self._noted_index = self.applied_index

    def apply(self, entries: Sequence[Entry]) -> None:
        assert entries[0][1] == self._noted_index + 1, (entries[0][1], self._noted_index)
        self._noted_index = entries[-1][1]
        if self.applied_index < entries[0][1] - 1:
            return  # the store was full: `maybe_checkpoint` fetches these with what came before
        self._apply(entries)

    def _apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if self.store_full or self.failure is not None:
                return
            if entry[1] == self.fail_at:
                self.failure = f"entry {entry[1]} cannot be applied"
                return
            assert entry[1] == self.applied_index + 1, (entry[1], self.applied_index)
            self._observe(entry)
            self.entries.append(entry)

    def overdue(self, now: float) -> bool:
        return self.waits_until <= now

    def maybe_checkpoint(self, now: float) -> None:
        """Checkpoints are made by the test; here the store catches up when it was full and has room again."""
        self.looked_at.append(now)
        if self.applied_index < self._noted_index and not self.store_full:
            assert self.group is not None
            self._apply(self.group.entries(self.applied_index + 1, self._noted_index))

    def pump(self) -> None:
        self.pumps += 1
        assert self.group is not None
        waiting, self.waiting = self.waiting, []
        for left, data in zip(reversed(range(len(waiting))), waiting, strict=True):
            try:
                self.proposed[self.group.propose(data, more=left > 0)] = data
            except KVError as error:
                self.refused.append(error)

    def leadership(self, is_leader: bool, term: int) -> None:
        self.leaderships.append((is_leader, term))

    def snapshot_source(self) -> LedgerSource:
        self.sources.append(LedgerSource(self._disk))
        return self.sources[-1]

    def snapshot_sink(self, index: int, total_bytes: int) -> LedgerSink:
        self.sinks.append(LedgerSink(self._disk, index))
        return self.sinks[-1]

    def install(self, sink: SnapshotSink, index: int) -> None:
        self._disk.checkpoint = self._disk.finished[index]
        self._disk.installed += 1
        self.entries = list(self._disk.checkpoint)
        self._noted_index = index

    def reset_pending(self, why: KVError) -> None:
        self.resets.append(why)
