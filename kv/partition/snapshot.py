"""Snapshots of a replica: a copy going out, a copy coming in.

Here live the two ends of a snapshot's way between replicas (`SnapshotSource` and `SnapshotSink` of
`kv.raft.api`) as files. Chunks, checksums and flow control are the Raft floor's; LMDB is the store's.
"""

from __future__ import annotations

import os
from pathlib import Path

from kv.partition.store import ReplicaCorrupt, Store, read_checkpoint, snapshot_path, sync_directory
from kv.raft.api import BOOTSTRAP_INDEX

_FILE_MODE = 0o644


class FileSource:
    """A compact copy of a store's last checkpoint. Its file has no name after `prepare`: a crash leaves nothing."""

    def __init__(self, store: Store, name: str) -> None:
        """`name` is unique among the sources of this store."""
        self._store = store
        self._path = store.directory / f"copy-{name}.tmp"
        self._descriptor: int | None = None
        self.index = 0
        self.index_term = 0
        self.previous_term = 0
        self.total_bytes = 0

    def prepare(self) -> None:
        """Make the copy (blocking). Raises `OSError` if there is no room for it."""
        assert self._descriptor is None, "a source is prepared once"
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE)
        try:
            self._store.copy_to(descriptor)
            at = read_checkpoint(self._path)
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            self._path.unlink()
        self.index, self.index_term, self.previous_term = at.applied_index, at.term, at.previous_term
        self.total_bytes = os.fstat(descriptor).st_size
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        assert self._descriptor is not None, "prepare comes first, close last"
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        """Remove the copy. May be called at any time, also twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class FileSink:
    """A snapshot on its way in: `snapshot-<index>.tmp`, then, durable and verified, `snapshot-<index>.mdb`."""

    def __init__(self, directory: Path, group_id: int, index: int, total_bytes: int) -> None:
        assert index > BOOTSTRAP_INDEX
        assert total_bytes > 0
        self.index = index
        self._directory = directory
        self._group_id = group_id
        self._total_bytes = total_bytes
        self._written_bytes = 0
        self._path = directory / f"snapshot-{index}.tmp"
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
        self._descriptor: int | None = os.open(self._path, flags, _FILE_MODE)

    def write(self, offset: int, data: bytes) -> None:
        """Write one piece; pieces come in order without gaps. Raises `OSError`."""
        assert self._descriptor is not None, "the sink is closed"
        assert offset == self._written_bytes, "pieces come in order"
        assert offset + len(data) <= self._total_bytes
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, self._written_bytes)
            self._written_bytes += written
            rest = rest[written:]

    def finish(self) -> None:
        """Make it durable and verify it (blocking). Raises `OSError`, or `ValueError` if it is not what it should be."""
        assert self._descriptor is not None, "the sink is closed"
        if self._written_bytes != self._total_bytes:
            raise ValueError(f"the snapshot has {self._written_bytes} bytes instead of {self._total_bytes}")
        os.fsync(self._descriptor)
        self._close()
        try:
            found = read_checkpoint(self._path)
        except ReplicaCorrupt as error:
            raise ValueError(str(error)) from error
        if (found.group_id, found.applied_index) != (self._group_id, self.index):
            raise ValueError(f"the snapshot is {found}, expected group {self._group_id} at {self.index}")
        self._path.rename(snapshot_path(self._directory, self.index))
        sync_directory(self._directory)

    def abort(self) -> None:
        """Remove what was written. May be called at any time before `install`, also twice."""
        self._close()
        self._path.unlink(missing_ok=True)
        snapshot_path(self._directory, self.index).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
