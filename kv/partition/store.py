"""One replica's applied state in LMDB: the only file that imports lmdb.

Here live the environment of a replica, its one open write transaction, and the order of steps that
keeps it whole through crashes. What the bytes mean is decided elsewhere.

The open write transaction is the memtable: it sees its own writes, and nobody else does. A
checkpoint is its synced commit; a crash or `rollback` leaves the state of the last checkpoint. The
transaction begins and ends in the writer's thread (`kv.partition.writer`), and is used by the thread that
opened the store: never both at once. Worker threads read committed state only.

Files in a replica's directory: `data.mdb` and `lock.mdb` (LMDB), `snapshot-<index>.mdb` (received,
durable, about to become `data.mdb`), and `*.tmp` (in the making, removed at the next open).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final

import lmdb
import xxhash

from kv.partition import heap
from kv.partition.checkpoint import Checkpoint, UnknownFormat
from kv.partition.seal import check_seal, seal
from kv.partition.writer import Inline, Writer, call, nothing
from kv.raft.api import BOOTSTRAP_INDEX

MAP_BYTES_MAX: Final = 1 << 40
"""Where the map stops growing. It is address space, not memory or disk."""

_MAP_GRAIN_BYTES: Final = 64 * 1024  # a multiple of every page size
_META_KEY: Final = b"checkpoint"
_SESSION_KEY: Final = Struct(">Q")
_LENGTHS: Final = Struct("<II")
_DATABASES: Final = 3
STORE_FILE: Final = "data.mdb"
"""Of each replica's folder."""
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class StoreError(Exception):
    """The store cannot go on. The write transaction is in doubt: `rollback` or `close` comes next."""


class StoreFull(StoreError):
    """No room on the disk, or in the map (`map_full`). After `rollback` the same may be tried again."""

    def __init__(self, message: str, *, map_full: bool) -> None:
        super().__init__(message)
        self.map_full = map_full


class ReplicaCorrupt(StoreError):
    """What is on disk is not what the log says must be there."""

    def __init__(self, directory: Path, detail: str) -> None:
        super().__init__(
            f"the replica in {directory} cannot be used: {detail}. Move the data directory of this node away "
            "and rejoin the node as the README says under 'A lost disk'"
        )


@dataclass(frozen=True, slots=True)
class ContentHash:
    """xxh3_128 over keys, records and sessions in order, at the checkpoint `index`."""

    index: int
    hash: bytes
    keys: int


@dataclass(frozen=True, slots=True)
class _Databases:
    data: lmdb._Database
    sessions: lmdb._Database
    meta: lmdb._Database


@dataclass(slots=True)
class _Commit:
    """A checkpoint under way. The writer's thread sets what has a default, `ended` last."""

    at: Checkpoint
    txn: lmdb.Transaction[bytes]
    """The one that is committed; after that the next one."""
    durable: bool = False
    error: Exception | None = None
    ended: bool = False


def snapshot_path(directory: Path, index: int) -> Path:
    """Return the name of a received snapshot that is durable and verified."""
    return directory / f"snapshot-{index}.mdb"


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable (blocking)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(file: Path) -> Checkpoint:
    """Return the mark inside the sealed copy in the single file `file` (blocking: reads all of it).

    Raises `ReplicaCorrupt` if it is not a store of a format that this version knows. The seal comes
    first: LMDB trusts every page number, and one that is wrong kills the process.
    """
    try:
        check_seal(file)
        with lmdb.open(
            str(file), subdir=False, readonly=True, lock=False, create=False, max_dbs=_DATABASES
        ) as env:
            meta = env.open_db(b"meta", create=False)
            with env.begin(db=meta) as txn:
                return Checkpoint.decode(txn.get(_META_KEY, b""))
    except (lmdb.Error, ValueError) as error:
        raise ReplicaCorrupt(file.parent, f"{file.name} is no snapshot: {error}") from error


class Store:
    """The applied state of one replica. Make it with `Store.open`."""

    @classmethod
    def open(
        cls,
        directory: Path,
        group_id: int,
        *,
        map_bytes_initial: int,
        map_bytes_max: int = MAP_BYTES_MAX,
        required_index: int = BOOTSTRAP_INDEX,
        writer: Writer | None = None,
    ) -> Store:
        """Open the store, or make an empty one (blocking).

        `required_index`: where the log begins. A store that stands below it needs the snapshot that
        the log speaks of: its install is finished here if a crash came between. Without a `writer` this thread
        is it. Raises `ReplicaCorrupt` if there is none, if the store is another group's, or of a newer format.
        """
        if not directory.exists():
            directory.mkdir(parents=True)
            sync_directory(directory.parent)
        store = cls(directory, group_id, map_bytes_initial, map_bytes_max, writer or Inline())
        try:
            store._stand_at_least_at(required_index)
        except BaseException:
            store._env.close()
            raise
        store._remove_leftovers()
        store._begin()
        return store

    def __init__(
        self, directory: Path, group_id: int, map_bytes_initial: int, map_bytes_max: int, writer: Writer
    ) -> None:
        self.directory = directory
        self.group_id = group_id
        self._map_bytes_max = map_bytes_max
        self._map_bytes = min(-(-map_bytes_initial // _MAP_GRAIN_BYTES) * _MAP_GRAIN_BYTES, map_bytes_max)
        self._writer = writer
        self._readers = _Readers()
        self.last = Checkpoint(group_id, applied_index=0)
        """The last durable checkpoint; index 0 for a store that was never written."""
        self.get: Callable[[bytes], bytes | None]
        """Returns the record of a key, or None. The transaction's own: a call less for each key."""
        self._put: Callable[..., bool]
        self._delete: Callable[..., bool]
        self._txn: lmdb.Transaction[bytes] | None = None
        self._commit: _Commit | None = None
        self._open_environment()

    # --- the memtable ----------------------------------------------------------------------------

    def put(self, key: bytes, record: bytes, is_new: bool) -> None:
        """Store the record of `key`. Raises `StoreFull`: then only `rollback` helps."""
        try:
            self._put(key, record)
        except lmdb.Error as error:
            raise _store_error(error) from error
        if is_new:
            self.keys += 1

    def delete(self, key: bytes) -> None:
        """Remove `key`, which exists. Raises `StoreFull` (LMDB copies pages to remove from them)."""
        try:
            removed = self._delete(key)
        except lmdb.Error as error:
            raise _store_error(error) from error
        assert removed, "the machine deletes only what it found"
        self.keys -= 1

    def range(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, record) for start <= key < end in order; an empty `end` is no end.

        No write may come between two items.
        """
        assert self._txn is not None
        with self._txn.cursor() as cursor:
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            for key, record in cursor:
                if end and key >= end:
                    return
                yield key, record

    def sessions(self) -> list[tuple[int, bytes]]:
        """Return (session id, stored form) of all sessions at the last checkpoint."""
        assert self._txn is not None
        with self._txn.cursor(self._databases.sessions) as cursor:
            return [(_SESSION_KEY.unpack(key)[0], encoded) for key, encoded in cursor]

    # --- checkpoint and rollback -------------------------------------------------------------------

    def checkpoint(self, at: Checkpoint, sessions: Iterable[tuple[int, bytes | None]]) -> None:
        """Make the state durable as that of `at`, with the changed sessions (blocking: one sync).

        Raises `StoreFull` or `StoreError`; the state is then that of the last checkpoint plus doubt,
        and `rollback` comes next.
        """
        self.begin_checkpoint(at, sessions, nothing)
        self.end_checkpoint()

    def begin_checkpoint(
        self, at: Checkpoint, sessions: Iterable[tuple[int, bytes | None]], then: Callable[[], None]
    ) -> None:
        """Begin what `checkpoint` does. `then` is called on the loop when `end_checkpoint` need not wait any more.

        Until `end_checkpoint` there is no state: nothing may be read or written here. Raises as `checkpoint` does.
        """
        txn = self._txn
        assert txn is not None
        assert at.group_id == self.group_id
        assert at.applied_index >= self.last.applied_index, "a checkpoint never goes back"
        try:
            self._write_sessions(txn, sessions)
            txn.put(_META_KEY, at.encode(), db=self._databases.meta)
        except lmdb.Error as error:
            raise _store_error(error) from error
        self._commit = commit = _Commit(at, txn)
        self._txn = None
        self.get = self._put = self._delete = _no_state
        self._writer.start(lambda: self._run_commit(commit), then)

    def end_checkpoint(self) -> None:
        """Take up the state again (blocking: until the sync is done). Raises as `checkpoint` does."""
        commit = self._commit
        assert commit is not None, "a checkpoint was begun"
        if not commit.ended:
            self._writer.wait()
            assert commit.ended
        self._commit = None
        if commit.durable:
            self.last = commit.at
        if commit.error is None:
            self._use(commit.txn)
        elif isinstance(commit.error, lmdb.Error):
            raise _store_error(commit.error) from commit.error
        else:
            raise commit.error

    @property
    def checkpointing(self) -> bool:
        """Whether a checkpoint was begun and not ended."""
        return self._commit is not None

    @property
    def checkpointed(self) -> bool:
        """Whether `end_checkpoint` is to be called, and need not wait."""
        return self._commit is not None and self._commit.ended

    def _run_commit(self, commit: _Commit) -> None:
        """In the writer's thread: commit, and begin the next transaction."""
        try:
            commit.txn.commit()
            commit.durable = True
            self._grow(at_least=0)
            commit.txn = self._new_transaction()
        except Exception as error:  # noqa: BLE001 - raised by `end_checkpoint`
            _abort(commit.txn)
            commit.error = error
        commit.ended = True

    def rollback(self, *, grow: bool = False) -> bool:
        """Return to the state of the last checkpoint; `grow` doubles the map. Return whether it grew."""
        self._end_transaction()
        map_bytes = self._map_bytes
        self._grow(at_least=2 * map_bytes if grow else 0)
        self._begin()
        return self._map_bytes > map_bytes

    def release_memory(self) -> None:
        """Give back the pages that LMDB keeps from its largest transaction, by opening the environment anew.

        It keeps each page that a transaction changed, for the next one, as long as it is open: after a load that is as
        much as the data itself. Call it just after a checkpoint: nothing else may be in the write transaction.
        """
        with self._readers.excluded_if_none() as alone:
            if not alone:
                return
            self._end_transaction()
            self._env.close()
            last = self.last
            self._open_environment()
        assert self.last == last, "nobody else writes this store"
        self._begin()
        heap.trim()

    def close(self) -> None:
        """Close without a checkpoint; waits for one that was begun, and for worker threads that read. May be called twice."""
        self._end_transaction()
        with self._readers.excluded():
            self._env.close()

    # --- committed state, in worker threads ----------------------------------------------------------

    def content_hash(self) -> ContentHash:
        """Hash the last checkpoint (blocking, any thread)."""
        digest = xxhash.xxh3_128()
        with self._readers.reading():
            databases = self._databases
            with self._env.begin(db=databases.data, buffers=True) as txn:
                at = Checkpoint.decode(bytes(txn.get(_META_KEY, b"", db=databases.meta)))
                keys = 0
                for database in (databases.data, databases.sessions):
                    with txn.cursor(database) as cursor:
                        for key, value in cursor:
                            digest.update(_LENGTHS.pack(len(key), len(value)))
                            digest.update(key)
                            digest.update(value)
                            keys += database is databases.data
        assert keys == at.keys, f"{keys} keys are stored, {at.keys} were counted"
        return ContentHash(at.applied_index, digest.digest(), keys)

    def copy_to(self, descriptor: int) -> None:
        """Write a compact, sealed copy of the last checkpoint (blocking, any thread). Raises `OSError`.

        Compact copies only read: the plain kind waits for the end of the write transaction.
        """
        with self._readers.reading():
            try:
                self._env.copyfd(descriptor, compact=True)
            except lmdb.Error as error:
                number = errno.ENOSPC if isinstance(_store_error(error), StoreFull) else errno.EIO
                raise OSError(number, f"copy of the store failed: {error}") from error
        seal(descriptor)

    # --- install ---------------------------------------------------------------------------------

    def install(self, index: int) -> None:
        """Replace the state by `snapshot-<index>.mdb` (blocking: waits for readers, syncs the directory)."""
        self._end_transaction()
        with self._readers.excluded():
            self._env.close()
            _move_into_place(self.directory, index)
            self._open_environment()
        if self.last.applied_index != index:
            raise ReplicaCorrupt(
                self.directory, f"it stands at {self.last.applied_index} after a snapshot at {index}"
            )
        self._begin()

    def _stand_at_least_at(self, required_index: int) -> None:
        if self.last.applied_index >= required_index:
            return
        if required_index == BOOTSTRAP_INDEX:
            self._write_first_checkpoint()
            return
        if not snapshot_path(self.directory, required_index).exists():
            raise ReplicaCorrupt(
                self.directory,
                f"its state stands at {self.last.applied_index}, the log begins at {required_index}, "
                "and there is no snapshot of that index",
            )
        received = read_checkpoint(snapshot_path(self.directory, required_index))
        if received.applied_index != required_index or received.group_id != self.group_id:
            raise ReplicaCorrupt(self.directory, f"snapshot-{required_index}.mdb holds {received}")
        self._env.close()
        _move_into_place(self.directory, required_index)
        self._open_environment()

    def _write_first_checkpoint(self) -> None:
        first = Checkpoint(self.group_id)
        with self._env.begin(write=True) as txn:
            txn.put(_META_KEY, first.encode(), db=self._databases.meta)
        sync_directory(self.directory)
        self.last = first

    def _remove_leftovers(self) -> None:
        for name in os.listdir(self.directory):
            if name.endswith(".tmp") or (name.startswith("snapshot-") and name.endswith(".mdb")):
                (self.directory / name).unlink()

    # --- the environment ---------------------------------------------------------------------------

    def _open_environment(self) -> None:
        try:
            with heap.untouched_blocks():
                self._env = lmdb.open(
                    str(self.directory),
                    map_size=self._map_bytes,
                    max_dbs=_DATABASES,
                    max_spare_txns=2,
                    # A key that is not in the page cache costs one page from the disk, not the 128 KiB around it: with those,
                    # the event loop of a node with a cold cache stood for seconds, and its leaderships went round.
                    readahead=False,
                )
            self._databases = _Databases(
                *(self._env.open_db(name) for name in (b"data", b"sessions", b"meta"))
            )
            with self._env.begin(db=self._databases.meta) as txn:
                mark = txn.get(_META_KEY)
            if mark is not None:
                self.last = Checkpoint.decode(mark)
        except (lmdb.Error, UnknownFormat) as error:
            raise ReplicaCorrupt(self.directory, str(error)) from error
        if self.last.group_id != self.group_id:
            raise ReplicaCorrupt(self.directory, f"it is of group {self.last.group_id}, not {self.group_id}")
        self._page_bytes: int = self._env.stat()["psize"]
        self._map_bytes = max(self._map_bytes, self._env.info()["map_size"])  # LMDB maps a larger file whole
        self._grow(at_least=0)

    def _begin(self) -> None:
        assert self._txn is None
        self._use(call(self._writer, self._new_transaction))

    def _new_transaction(self) -> lmdb.Transaction[bytes]:
        """In the writer's thread."""
        return self._env.begin(write=True, db=self._databases.data)

    def _use(self, txn: lmdb.Transaction[bytes]) -> None:
        self._txn = txn
        self.get, self._put, self._delete = txn.get, txn.put, txn.delete
        self.keys = self.last.keys

    def _end_transaction(self) -> None:
        """Abort the write transaction, if there is one; a checkpoint that was begun is waited for first."""
        txn, self._txn = self._txn, None
        commit, self._commit = self._commit, None
        if commit is not None:
            self._writer.wait()
            txn = commit.txn
        if txn is not None:
            call(self._writer, lambda: _abort(txn))

    def _grow(self, at_least: int) -> None:
        """Double the map while more than half of it is used. The write transaction must not be open."""
        assert self._txn is None
        used = (self._env.info()["last_pgno"] + 1) * self._page_bytes
        wanted = max(self._map_bytes, at_least)
        while used * 2 > wanted:
            wanted *= 2
        wanted = min(wanted, self._map_bytes_max)
        if wanted <= self._map_bytes:
            return
        with self._readers.excluded_if_none() as alone:
            if alone:  # else at the next checkpoint: LMDB may not remap under a reader
                self._env.set_mapsize(wanted)
                self._map_bytes = wanted

    def _write_sessions(
        self, txn: lmdb.Transaction[bytes], sessions: Iterable[tuple[int, bytes | None]]
    ) -> None:
        for session_id, encoded in sessions:
            key = _SESSION_KEY.pack(session_id)
            if encoded is None:
                txn.delete(key, db=self._databases.sessions)
            else:
                txn.put(key, encoded, db=self._databases.sessions)


class _Readers:
    """Counts worker threads that read, so that the map is never moved or closed under them."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._condition:
            self._count += 1
        try:
            yield
        finally:
            with self._condition:
                self._count -= 1
                self._condition.notify_all()

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Wait until nobody reads, and keep new readers out."""
        with self._condition:
            self._condition.wait_for(lambda: self._count == 0)
            yield

    @contextmanager
    def excluded_if_none(self) -> Iterator[bool]:
        """Keep new readers out; the value says whether there were none."""
        with self._condition:
            yield self._count == 0


def _move_into_place(directory: Path, index: int) -> None:
    """Make the snapshot the environment. The old lock file speaks of the old one: it must go."""
    (directory / "lock.mdb").unlink(missing_ok=True)
    snapshot_path(directory, index).rename(directory / STORE_FILE)
    sync_directory(directory)


def _no_state(*_: object) -> Any:  # noqa: ANN401 - nothing
    raise AssertionError("a checkpoint was begun and not ended: there is no state meanwhile")


def _abort(txn: lmdb.Transaction[bytes]) -> None:
    with suppress(lmdb.Error):  # a failed commit has ended it already
        txn.abort()


def _store_error(error: lmdb.Error) -> StoreError:
    # a transaction of too many pages is cured by what cures a small map: start again, with checkpoints between
    if isinstance(error, lmdb.MapFullError | lmdb.TxnFullError):
        return StoreFull(str(error), map_full=True)
    if isinstance(error, lmdb.DiskError) or getattr(error, "code", 0) in _FULL:
        return StoreFull(str(error), map_full=False)
    return StoreError(str(error))
