"""A file layer for the log of a real node that can be told to fail as disks do, and to forget as they do when power fails.

Here lives `FaultyFiles`. It is told by files in a folder that outlives the process, the *panel*:

| file | meaning |
|---|---|
| `slow_sync` | seconds that each sync takes longer |
| `fail_sync` | the next sync of a new file fails; what it should have written never reaches the disk |
| `clock_rate` | see `tests.faulty_node.clock` |
| `full` | no file can be created, no checkpoint be written, as long as it is there |
| `power_failed` | a seed: the next start finds the log as after a power cut |
| `flip` | a seed: the next start finds one bit of the log flipped (`tests.faulty_node.damage`) |

Power: before bytes are changed, what was there is noted sector by sector in `undo/`, until a sync has returned. A process that
is merely killed loses nothing, since the kernel has its writes. After a power cut each unsynced sector has its old or its new
bytes, each unsynced creation or removal happened or not, as in `kv.sim.disk`. No knowledge of segments or records here.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from struct import Struct
from typing import Final

from kv.raft.files import OsFiles

SECTOR_BYTES: Final = 512
_NUMBER: Final = Struct("<I")
_NOTE_BYTES: Final = _NUMBER.size + SECTOR_BYTES
_LOST: Final = 0xFFFFFFFF
"""In the place of a sector's number: a sync failed here, and what was noted before will not be written by a later one."""
CREATED: Final = "created-"
REMOVED: Final = "removed-"


@dataclass(slots=True)
class Unsynced:
    """What one file's sectors held on the disk, by number, where the kernel holds something newer."""

    dirty: dict[int, bytes] = field(default_factory=dict)
    """The next sync writes them."""
    lost: dict[int, bytes] = field(default_factory=dict)
    """A sync failed: the kernel takes them for written, and the disk does not have them."""

    @classmethod
    def read(cls, notes: bytes) -> Unsynced:
        """Read the notes of a file; one that the process did not finish was not followed by its write."""
        found = cls()
        for start in range(0, len(notes) - _NOTE_BYTES + 1, _NOTE_BYTES):
            (number,) = _NUMBER.unpack_from(notes, start)
            if number == _LOST:
                found.failed()
            else:
                found.lost.pop(number, None)
                found.dirty.setdefault(number, notes[start + _NUMBER.size : start + _NOTE_BYTES])
        return found

    def failed(self) -> None:
        """A sync failed, as Linux does it: the pages are clean, and were not written."""
        self.lost = {**self.dirty, **self.lost}
        self.dirty.clear()


def note(number: int, held: bytes) -> bytes:
    """Return the note of a sector (shorter at the end of a file, which is padded)."""
    return _NUMBER.pack(number) + held.ljust(SECTOR_BYTES, b"\0")


class FaultyFiles(OsFiles):
    """See the file's docstring. Thread-safe as `OsFiles` is."""

    def __init__(self, directory: str, panel: Path) -> None:
        """Open the folder of the log; a power cut that the panel tells of happens before anyone reads."""
        super().__init__(directory)
        self._folder, self._panel, self._undo = Path(directory), panel, panel / "undo"
        self._undo.mkdir(parents=True, exist_ok=True)
        self._guard = threading.RLock()
        self._unsynced: dict[str, Unsynced] = {}
        self._created: dict[str, None] = {}
        told = self._taken("power_failed")
        if told is not None:
            self._power_fails(Random(told))
        for file in self._notes():
            self._unsynced[file.name] = Unsynced.read(file.read_bytes())

    @property
    def full(self) -> bool:
        """Whether the disk has no room."""
        return (self._panel / "full").exists()

    # ------------------------------------------------------------ files

    def create(self, name: str, size: int) -> None:
        """See `OsFiles.create`."""
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        with self._guard:
            (self._undo / f"{CREATED}{name}").touch()
            super().create(name, size)
            self._created[name] = None

    def write(self, name: str, offset: int, buffers: Sequence[bytes]) -> None:
        """See `OsFiles.write`."""
        with self._guard:
            self._note(name, offset, sum(map(len, buffers)))
            super().write(name, offset, buffers)

    def sync(self, name: str) -> None:
        """See `OsFiles.sync`."""
        if (slow_s := self._slow_s()) > 0:
            threading.Event().wait(slow_s)  # not time.sleep, which fails under libfaketime 0.9.10 (EINVAL)
        with self._guard:
            unsynced = self._unsynced.setdefault(name, Unsynced())
            # Not while a log is recovered, in files that were there before: then a node does not start, and that is all.
            if name in self._created and self._taken("fail_sync") is not None:
                unsynced.failed()
                with (self._undo / name).open("ab") as notes:
                    notes.write(note(_LOST, b""))
                raise OSError(errno.EIO, os.strerror(errno.EIO), name)
            super().sync(name)
            unsynced.dirty.clear()
            self._rewrite(name, unsynced)

    def sync_directory(self) -> None:
        """See `OsFiles.sync_directory`."""
        with self._guard:
            super().sync_directory()
            for file in self._undo.iterdir():
                if file.name.startswith((CREATED, REMOVED)):
                    file.unlink()

    def remove(self, name: str) -> None:
        """See `OsFiles.remove`: kept until the removal is durable."""
        with self._guard:
            kept = self._undo / f"{REMOVED}{name}"
            kept.unlink(missing_ok=True)
            os.link(self._folder / name, kept)
            super().remove(name)
            self._unsynced.pop(name, None)
            (self._undo / name).unlink(missing_ok=True)

    def rename(self, old: str, new: str) -> None:
        """See `OsFiles.rename`. The log renames nothing, so what a power cut does to a rename is not modelled."""
        raise AssertionError(f"the log renames {old} to {new}: teach this file what a power cut does to that")

    # ------------------------------------------------------------ what is not on the disk

    def _note(self, name: str, offset: int, length: int) -> None:
        """Note what the sectors of a write hold, if that is not noted already."""
        unsynced = self._unsynced.setdefault(name, Unsynced())
        notes = []
        for number in range(offset // SECTOR_BYTES, -(-(offset + length) // SECTOR_BYTES)):
            if number in unsynced.lost:
                unsynced.dirty[number] = unsynced.lost.pop(number)
                notes.append(note(number, unsynced.dirty[number]))
            elif number not in unsynced.dirty:
                unsynced.dirty[number] = self.read(name, number * SECTOR_BYTES, SECTOR_BYTES)
                notes.append(note(number, unsynced.dirty[number]))
        with (self._undo / name).open("ab") as file:
            file.write(b"".join(notes))

    def _rewrite(self, name: str, unsynced: Unsynced) -> None:
        """Note what is still not on the disk after a sync: what an earlier one lost."""
        lost = [note(number, held) for number, held in unsynced.lost.items()]
        (self._undo / name).write_bytes(b"".join([*lost, note(_LOST, b"")] if lost else []))

    def _notes(self) -> list[Path]:
        return [one for one in sorted(self._undo.iterdir()) if not one.name.startswith((CREATED, REMOVED))]

    def _power_fails(self, rng: Random) -> None:
        """Take back a random part of what was not synced, and all that a failed sync lost."""
        for file in self._notes():
            path = self._folder / file.name
            if path.exists():
                _take_back(path, Unsynced.read(file.read_bytes()), rng)
            file.unlink()
        for file in sorted(self._undo.iterdir()):  # "created" is before "removed"
            kind, _, name = file.name.partition("-")
            if f"{kind}-" == CREATED and rng.random() < 0.5:
                (self._folder / name).unlink(missing_ok=True)
            elif f"{kind}-" == REMOVED and rng.random() < 0.5:
                file.replace(self._folder / name)
            file.unlink(missing_ok=True)

    # ------------------------------------------------------------ the panel

    def _slow_s(self) -> float:
        try:
            return float((self._panel / "slow_sync").read_text())
        except FileNotFoundError:
            return 0.0

    def _taken(self, name: str) -> str | None:
        """What a file of the panel says, once."""
        path = self._panel / name
        try:
            told = path.read_text()
            path.unlink()
        except FileNotFoundError:
            return None
        return told


def _take_back(path: Path, unsynced: Unsynced, rng: Random) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for number, held in sorted(unsynced.dirty.items()):
            if rng.random() < 0.5:
                file.seek(number * SECTOR_BYTES)
                file.write(held[: size - number * SECTOR_BYTES])
        for number, held in sorted(unsynced.lost.items()):
            file.seek(number * SECTOR_BYTES)
            file.write(held[: size - number * SECTOR_BYTES])
