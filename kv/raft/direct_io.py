"""Large writes that pass by the kernel's page cache (O_DIRECT, see open(2)).

What lives here: `DirectIO`, which writes the whole blocks of a large write by itself and leaves the rest to
its caller's descriptor. What must not: when to sync, and what the bytes are.

The log is written once and hardly ever read, yet each page of it that goes through the cache has to be found,
taken from whatever else was cached, and filled by a copy. A store of large values spends more on that than
on anything else: past the cache three nodes put 1.4 to 1.8 times as many values of 1 MiB on a machine of two
processors, with half of the CPU for each. Small writes share their pages and are better off in the cache.

A write that returned is no more durable here than anywhere: the sync comes after it.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

log = structlog.get_logger(__name__)

DIRECT_BYTES_MIN: Final = 256 << 10
"""Shorter writes go through the cache. (From 48 KiB on, batches of small values were no faster and no slower.)"""

BLOCK_BYTES: Final = 4096
"""What offset, length and address are multiples of: no less suits all devices."""

STAGE_BYTES: Final = 1 << 20
"""Bytes are gathered here, where they are aligned, and written from here. Mapped at the first large write, and kept."""


class DirectIO:
    """Writes into files of one directory. All methods are safe in any thread and block; writes wait for one another."""

    def __init__(self, directory_fd: int) -> None:
        """`directory_fd` stays the caller's."""
        self.supported = True
        """False once the file system refused: then all bytes go through the caller's descriptor."""
        self._directory_fd = directory_fd
        self._fds: dict[str, int] = {}
        self._stage: memoryview | None = None
        self._lock = threading.Lock()

    def write(self, name: str, fd: int, offset: int, buffers: Sequence[bytes]) -> None:
        """Write all buffers one after the other from `offset`, whole blocks directly and the rest by `fd`, the same file's.

        Raises `OSError`; any part may be written then.
        """
        pieces = deque([memoryview(buffer) for buffer in buffers])
        with self._lock:
            if self._stage is None:
                self._stage = memoryview(mmap.mmap(-1, STAGE_BYTES))
            stage = self._stage[: -offset % BLOCK_BYTES]
            while pieces:
                length = _gather(pieces, stage)
                direct = self._write_blocks(name, offset, stage[: length - length % BLOCK_BYTES])
                write_all(fd, offset + direct, stage[direct:length])
                offset += length
                stage = self._stage

    def forget(self, name: str) -> None:
        """Close the descriptor of a file that has another name now, or none."""
        with self._lock:
            fd = self._fds.pop(name, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close all; no call may follow."""
        for name in list(self._fds):
            self.forget(name)

    def _write_blocks(self, name: str, offset: int, blocks: memoryview) -> int:
        """How many bytes were written: fewer than all leave it to the other way to go on, or to say what is wrong."""
        if not blocks or not self.supported:
            return 0
        try:
            return os.pwrite(self._fd(name), blocks, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.supported = False
            log.warning(
                "no O_DIRECT here: large batches of the log go through the page cache", error=str(error)
            )
            return 0

    def _fd(self, name: str) -> int:
        fd = self._fds.get(name)
        if fd is None:
            flags = os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC
            fd = self._fds[name] = os.open(name, flags, dir_fd=self._directory_fd)
        return fd


def write_all(fd: int, offset: int, data: memoryview) -> None:
    """Write all of `data` at `offset`, however often the kernel stops short."""
    while data:
        written = os.pwrite(fd, data, offset)
        data = data[written:]
        offset += written


def _gather(pieces: deque[memoryview], stage: memoryview) -> int:
    """Move bytes from the front of `pieces` to `stage` until it is full or there are no more; returns how many."""
    filled = 0
    while pieces and filled < len(stage):
        piece, rest = pieces[0][: len(stage) - filled], pieces[0][len(stage) - filled :]
        stage[filled : filled + len(piece)] = piece
        filled += len(piece)
        if rest:
            pieces[0] = rest
        else:
            pieces.popleft()
    return filled
