"""A disk in memory: `Files` that knows which 512-byte sectors were synced.

What lives here: the model of a disk and its faults. What must not: expectations about the log.

- `power_loss`: each sector written since the last sync keeps its old or its new bytes, chosen at random;
  so does each change of the directory since its last sync. A process that merely dies loses nothing.
- A sync that fails marks the sectors clean, as Linux does: later syncs succeed and do not write them.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

SECTOR_BYTES = 512


class Killed(Exception):
    """The process was killed at this call (`MemoryFiles.calls_left`)."""


@dataclass
class MemoryFile:
    """One file: what a read returns, what is on the platter, and which sectors a sync would write."""

    data: bytearray
    durable: bytearray
    dirty: set[int] = field(default_factory=set)


class MemoryFiles:
    """See the file's docstring. Faults are set as attributes and happen once."""

    def __init__(self) -> None:
        self.files: dict[str, MemoryFile] = {}
        self.durable_files: dict[str, MemoryFile] = {}
        self.create_error: int | None = None
        self.write_error: tuple[int, int] | None = None
        """(errno, bytes that are written before it)."""
        self.sync_error: int | None = None
        self.sync_directory_error: int | None = None
        self.full = False
        """Whether creating a file fails with ENOSPC, until there is room again."""
        self.calls_left: int | None = None
        """Changing calls until the process is killed."""
        self.syncs = 0

    # ------------------------------------------------------------ Files

    def names(self) -> list[str]:
        """See `Files.names`."""
        return sorted(self.files)

    def size(self, name: str) -> int:
        """See `Files.size`."""
        return len(self._file(name).data)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """See `Files.read`."""
        return bytes(self._file(name).data[offset : offset + length])

    def create(self, name: str, size: int) -> None:
        """See `Files.create`."""
        self._count()
        if name in self.files:
            raise FileExistsError(errno.EEXIST, name)
        if self.full:
            raise OSError(errno.ENOSPC, name)
        # A create that runs out of space may leave a short file behind.
        length = size // 2 if self.create_error else size
        self.files[name] = MemoryFile(bytearray(length), bytearray(length))
        if self.create_error:
            code, self.create_error = self.create_error, None
            raise OSError(code, name)

    def write(self, name: str, offset: int, buffers: Sequence[bytes]) -> None:
        """See `Files.write`."""
        self._count()
        data = b"".join(buffers)
        code = None
        if self.write_error:
            (code, length), self.write_error = self.write_error, None
            data = data[:length]
        file = self._file(name)
        assert offset + len(data) <= len(file.data), "a segment does not grow"
        file.data[offset : offset + len(data)] = data
        if data:
            file.dirty.update(range(offset // SECTOR_BYTES, -(-(offset + len(data)) // SECTOR_BYTES)))
        if code:
            raise OSError(code, name)

    def sync(self, name: str) -> None:
        """See `Files.sync`."""
        self._count()
        self.syncs += 1
        file = self._file(name)
        if self.sync_error:
            code, self.sync_error = self.sync_error, None
            file.dirty.clear()
            raise OSError(code, name)
        for sector in file.dirty:
            _copy_sector(file.data, file.durable, sector)
        file.dirty.clear()

    def sync_directory(self) -> None:
        """See `Files.sync_directory`."""
        self._count()
        if self.sync_directory_error:
            code, self.sync_directory_error = self.sync_directory_error, None
            raise OSError(code, "directory")
        self.durable_files = dict(self.files)

    def remove(self, name: str) -> None:
        """See `Files.remove`."""
        self._count()
        self._file(name)
        del self.files[name]

    def rename(self, old: str, new: str) -> None:
        """See `Files.rename`."""
        self._count()
        self.files[new] = self.files.pop(old)

    def close(self) -> None:
        """Nothing to release."""

    # ------------------------------------------------------------ faults

    def power_loss(self, random: Random) -> None:
        """Lose a random part of what was not synced."""
        survivors = {}
        for name in sorted({*self.files, *self.durable_files}):
            choices = [self.files.get(name), self.durable_files.get(name)]
            file = random.choice(choices)
            if file is not None:
                survivors[name] = file
        for file in survivors.values():
            for sector in sorted(file.dirty):
                if random.random() < 0.5:
                    _copy_sector(file.data, file.durable, sector)
            file.data = bytearray(file.durable)
            file.dirty.clear()
        self.files = survivors
        self.durable_files = dict(survivors)

    def flip(self, name: str, offset: int, mask: int) -> None:
        """Flip bits of one byte, on the platter and in memory; the same again undoes it."""
        file = self._file(name)
        file.data[offset] ^= mask
        file.durable[offset] ^= mask

    def copy(self) -> MemoryFiles:
        """An independent disk with the same contents."""
        twin = MemoryFiles()
        copies = {
            id(file): MemoryFile(bytearray(file.data), bytearray(file.durable), set(file.dirty))
            for file in [*self.files.values(), *self.durable_files.values()]
        }
        twin.files = {name: copies[id(file)] for name, file in self.files.items()}
        twin.durable_files = {name: copies[id(file)] for name, file in self.durable_files.items()}
        return twin

    # ------------------------------------------------------------ details

    def _file(self, name: str) -> MemoryFile:
        file = self.files.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, name)
        return file

    def _count(self) -> None:
        if self.calls_left is not None:
            if self.calls_left == 0:
                raise Killed
            self.calls_left -= 1


def _copy_sector(source: bytearray, target: bytearray, sector: int) -> None:
    start = sector * SECTOR_BYTES
    target[start : start + SECTOR_BYTES] = source[start : start + SECTOR_BYTES]
