"""The file layer port: every byte that the write-ahead log reads or writes passes through `Files`.

What lives here: the protocol and its implementation on a real directory. What must not: any knowledge
of segments, records or Raft. Calls block; the caller decides in which thread. A simulator implements
the same protocol to lose unsynced sectors, run out of space, fail a sync or flip bits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Protocol

from kv.raft.direct_io import DIRECT_BYTES_MIN, DirectIO, write_all

IOV_BUFFERS_MAX = 1024
"""Buffers that one `pwritev` call accepts (IOV_MAX on Linux)."""

FILE_MODE = 0o600
"""New files are for the owner only: they hold users' data."""


class Files(Protocol):
    """Blocking file operations inside one directory; names are plain file names.

    Every call may raise `OSError`, which callers classify. Different names may be used from different
    threads at the same time; one name may be read while it is written, but not while it is removed.
    """

    def names(self) -> list[str]:
        """Names of the files in the directory, sorted."""
        ...

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end of the file."""
        ...

    def create(self, name: str, size: int) -> None:
        """Create a file of `size` zero bytes, preallocated; `FileExistsError` if the name is taken."""
        ...

    def write(self, name: str, offset: int, buffers: Sequence[bytes]) -> None:
        """Write all buffers one after the other from `offset`; after an error any part may be written."""
        ...

    def sync(self, name: str) -> None:
        """Make everything written to the file before this call durable."""
        ...

    def sync_directory(self) -> None:
        """Make creations, removals and renames before this call durable."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; `FileNotFoundError` if there is none."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename a file, atomically replacing `new` if it exists."""
        ...

    def close(self) -> None:
        """Release everything; no call may follow."""
        ...


class OsFiles:
    """`Files` on a directory of the operating system (Linux), with its descriptors kept open."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Open `directory`, which must exist."""
        self._directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._fds: dict[str, int] = {}
        self._lock = threading.Lock()  # guards `_fds`: flush, compaction and reads run in different threads
        self._direct = DirectIO(self._directory_fd)

    def names(self) -> list[str]:
        """See `Files.names`."""
        return sorted(os.listdir(self._directory_fd))

    def size(self, name: str) -> int:
        """See `Files.size`."""
        return os.fstat(self._fd(name)).st_size

    def read(self, name: str, offset: int, length: int) -> bytes:
        """See `Files.read`."""
        fd = self._fd(name)
        data = os.pread(fd, length, offset)
        if len(data) == length:
            return data
        parts = [data]  # a short read: a signal, the kernel's limit of one call, or the end of the file
        missing = length - len(data)
        while data and missing:
            data = os.pread(fd, missing, offset + length - missing)
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def create(self, name: str, size: int) -> None:
        """See `Files.create`; on an error nothing is left behind, so that a full disk is not kept full."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, FILE_MODE, dir_fd=self._directory_fd)
        try:
            if size:
                os.posix_fallocate(fd, 0, size)
        except OSError:
            os.close(fd)
            os.unlink(name, dir_fd=self._directory_fd)
            raise
        with self._lock:
            self._fds[name] = fd

    def write(self, name: str, offset: int, buffers: Sequence[bytes]) -> None:
        """See `Files.write`; short writes are continued, and large ones pass by the page cache."""
        fd = self._fd(name)
        if sum(map(len, buffers)) >= DIRECT_BYTES_MIN:
            self._direct.write(name, fd, offset, buffers)
            return
        for start in range(0, len(buffers), IOV_BUFFERS_MAX):
            offset += _write_vector(fd, offset, buffers[start : start + IOV_BUFFERS_MAX])

    def sync(self, name: str) -> None:
        """See `Files.sync`."""
        os.fdatasync(self._fd(name))

    def sync_directory(self) -> None:
        """See `Files.sync_directory`."""
        os.fsync(self._directory_fd)

    def remove(self, name: str) -> None:
        """See `Files.remove`."""
        os.unlink(name, dir_fd=self._directory_fd)
        self._forget(name)

    def rename(self, old: str, new: str) -> None:
        """See `Files.rename`."""
        os.rename(old, new, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
        self._forget(old)
        self._forget(new)

    def close(self) -> None:
        """See `Files.close`."""
        with self._lock:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()
        self._direct.close()
        os.close(self._directory_fd)

    def _fd(self, name: str) -> int:
        with self._lock:
            fd = self._fds.get(name)
            if fd is None:
                fd = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._directory_fd)
                self._fds[name] = fd
            return fd

    def _forget(self, name: str) -> None:
        with self._lock:
            fd = self._fds.pop(name, None)
        self._direct.forget(name)
        if fd is not None:
            os.close(fd)


def _write_vector(fd: int, offset: int, buffers: Sequence[bytes]) -> int:
    """Write the buffers at `offset`, however often the kernel stops short; returns their total length."""
    total = sum(map(len, buffers))
    written = os.pwritev(fd, buffers, offset)
    if written == total:
        return total
    write_all(fd, offset + written, memoryview(b"".join(buffers))[written:])
    return total
