"""The thread of the stores, and checkpoints that wait for the disk in it while the loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lmdb
import pytest

from kv.errors import DiskFull
from kv.partition.checkpoint import Checkpoint
from kv.partition.partition import Replica
from kv.partition.store import Store, StoreError, StoreFull
from kv.partition.writer import WriterThread, call, nothing
from kv.v1 import kv_pb2
from tests.partition.tools import Bench, HeldWriter, batch, get, put, results, scan

MAP_BYTES = 1 << 20


@contextmanager
def opened(directory: Path, writer: HeldWriter | None = None) -> Iterator[Store]:
    """Give an open store of group 7."""
    store = Store.open(directory, 7, map_bytes_initial=MAP_BYTES, writer=writer)
    try:
        yield store
    finally:
        store.close()


def begin(store: Store, index: int) -> None:
    """Begin a checkpoint."""
    store.begin_checkpoint(Checkpoint(7, index, 2, 1, 99, store.keys), [], nothing)


# --- the thread ------------------------------------------------------------------------------------


async def test_works_are_done_in_order_in_one_thread_and_told_on_the_loop() -> None:
    """Each work, then its `then`: the work elsewhere, always in the same thread, the `then` here."""
    writer = WriterThread(asyncio.get_running_loop())
    threads: list[int] = []
    told: list[tuple[int, int]] = []
    all_told = asyncio.Event()

    def then(number: int) -> None:
        told.append((number, threading.get_ident()))
        if number == 2:
            all_told.set()

    for number in range(3):
        writer.start(lambda: threads.append(threading.get_ident()), partial(then, number))
    writer.wait()
    assert len(threads) == 3, "whoever waits, waits for all that was started"
    async with asyncio.timeout(10):
        await all_told.wait()
    here = threading.get_ident()
    assert told == [(0, here), (1, here), (2, here)]
    assert set(threads) != {here}
    assert len(set(threads)) == 1
    writer.close()


async def test_what_a_call_raises_is_raised_here() -> None:
    """`call` gives back what the work gave, or raised."""
    writer = WriterThread(asyncio.get_running_loop())
    assert call(writer, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call(writer, lambda: 1 // 0)
    writer.close()


async def test_checkpoints_one_after_the_other_by_a_thread(tmp_path: Path) -> None:
    """LMDB's lock belongs to the thread that took it: one that was given back elsewhere would never be free again."""
    writer = WriterThread(asyncio.get_running_loop())
    stores = [Store.open(tmp_path / str(n), 7, map_bytes_initial=MAP_BYTES, writer=writer) for n in range(3)]
    for index in range(3, 23):
        for store in stores:
            store.put(b"key%d" % index, bytes(3000), True)
            done = asyncio.Event()
            store.begin_checkpoint(Checkpoint(7, index, keys=store.keys), [], done.set)
            async with asyncio.timeout(10):
                await done.wait()
            assert store.checkpointed
            store.end_checkpoint()
    for store in stores:
        store.put(b"undone", b"", True)
        assert not store.rollback()
        store.release_memory()
        assert store.get(b"undone") is None
        assert store.keys == store.content_hash().keys == 20
        store.close()
    writer.close()


async def test_the_loop_goes_on_while_a_checkpoint_waits_for_the_disk(tmp_path: Path) -> None:
    """A disk that takes for ever to sync holds up the partition whose checkpoint it is, and not the loop."""
    writer = WriterThread(asyncio.get_running_loop())
    one = Bench(tmp_path / "one", writer=writer, checkpoint_interval_s=0.0)
    other = Bench(tmp_path / "other")
    one.ask(batch(put(b"k", b"v")))
    synced = threading.Event()
    writer.start(lambda: _wait(synced), nothing)  # in front of the sync, in the same thread
    one.replica.maybe_checkpoint(1.0)
    for _ in range(20):
        await asyncio.sleep(0)
        other.ask(batch(put(b"k", b"v")))
    assert _under_way(one.replica)
    assert other.replica.applied_index == 22
    synced.set()
    await asyncio.to_thread(writer.wait)
    await asyncio.sleep(0)
    assert one.replica.checkpoint_index == one.replica.applied_index == 3
    for bench in (one, other):
        bench.crash()
    writer.close()


def _wait(event: threading.Event) -> None:
    assert event.wait(10)


# --- the store ---------------------------------------------------------------------------------------


def test_there_is_no_state_while_a_checkpoint_is_under_way(tmp_path: Path) -> None:
    """Nothing is read or written between its begin and its end."""
    with opened(tmp_path / "p", HeldWriter()) as store:
        store.put(b"k", b"v", True)
        begin(store, 5)
        assert _under_way(store)
        assert not store.checkpointed
        for use in (
            lambda: store.get(b"k"),
            lambda: store.put(b"k", b"w", False),
            lambda: store.delete(b"k"),
            lambda: list(store.range(b"", b"")),
            store.sessions,
            lambda: begin(store, 6),
        ):
            with pytest.raises(AssertionError):
                use()
        assert store.last.applied_index == 2, "not durable yet"
        store.end_checkpoint()
        assert not _under_way(store)
        assert store.last.applied_index == 5
        assert store.get(b"k") == b"v"


def test_a_crash_before_the_commit_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """What was begun and not committed is not there afterwards; closing waits for it, and leaves it whole."""
    with opened(tmp_path / "p", HeldWriter()) as store:
        store.put(b"k", b"v", True)
        begin(store, 5)
    writer = HeldWriter()
    with opened(tmp_path / "p", writer) as store:
        assert store.last.applied_index == 5
        assert store.get(b"k") == b"v"
        store.put(b"k", b"w", False)
        begin(store, 6)
        writer.lose()
    with opened(tmp_path / "p") as store:
        assert store.last.applied_index == 5
        assert store.get(b"k") == b"v"


def test_a_commit_that_fails_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """What LMDB says in the thread is raised by the end of the checkpoint, as the store's own error."""
    writer = HeldWriter()
    with opened(tmp_path / "p", writer) as store:
        for error, kind in ((lmdb.DiskError("no space"), StoreFull), (lmdb.PanicError("?"), StoreError)):
            store.put(b"k", b"v", True)
            begin(store, 5)
            fail(store, error)
            writer.wait()
            with pytest.raises(kind):
                store.end_checkpoint()
            assert store.last.applied_index == 2
            store.rollback()
            assert store.get(b"k") is None


def fail(store: Store, error: lmdb.Error) -> None:
    """Have the commit fail that was begun."""
    commit = store._commit
    assert commit is not None
    commit.txn = _FailingTransaction(commit.txn, error)  # type: ignore[assignment]


class _FailingTransaction:
    def __init__(self, txn: lmdb.Transaction[bytes], error: lmdb.Error) -> None:
        self._error = error
        self.abort = txn.abort

    def commit(self) -> None:
        raise self._error


def _under_way(thing: Store | Replica) -> bool:
    return thing.checkpointing


def _is_full(replica: Replica) -> bool:
    return replica.store_full


# --- the replica -------------------------------------------------------------------------------------


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Bench, HeldWriter]]:
    """Give a replica that has applied one put, and whose checkpoint has begun."""
    writer = HeldWriter()
    bench = Bench(tmp_path / "p", writer=writer, checkpoint_interval_s=0.0, map_bytes_initial=1 << 18)
    bench.ask(batch(put(b"k", b"v")))
    bench.replica.maybe_checkpoint(1.0)
    assert _under_way(bench.replica)
    yield bench, writer
    bench.crash()


def test_a_checkpoint_counts_when_it_has_ended(held: tuple[Bench, HeldWriter]) -> None:
    """Not before it is durable; then the log may be compacted, and the group gets a turn for what waited."""
    bench, writer = held
    replica = bench.replica
    assert (replica.checkpoint_index, replica.checkpoints_made) == (2, 0)
    replica.maybe_checkpoint(100.0)  # due again, were none under way
    woken = bench.group.woken
    writer.tell()
    assert not _under_way(replica)
    assert (replica.checkpoint_index, replica.checkpoints_made) == (3, 1)
    assert bench.group.woken == woken + 1
    assert isinstance(bench.ask(batch(put(b"k", b"w"))), bytes)


def test_a_read_at_once_ends_the_checkpoint_itself(held: tuple[Bench, HeldWriter]) -> None:
    """It cannot wait for a turn; what the thread tells afterwards changes nothing, also if the next one has begun."""
    bench, writer = held
    (stale,) = bench.submit(batch(get(b"k"), stale=True))
    assert results(stale)[0].get.item.value == b"v"
    assert bench.replica.checkpoint_index == 3
    bench.ask(batch(put(b"k", b"w")))
    bench.replica.maybe_checkpoint(2.0)
    assert _under_way(bench.replica)
    writer.thens.pop(0)()
    assert _under_way(bench.replica), "that was told of the one before"
    writer.tell()
    assert bench.replica.checkpoint_index == 4


def test_a_session_read_waits_over_a_checkpoint(tmp_path: Path) -> None:
    """It is looked at when entries were applied, and none are meanwhile."""
    writer = HeldWriter()
    bench = Bench(tmp_path / "p", writer=writer, checkpoint_interval_s=0.0, session_wait_s=10.0)
    bench.ask(batch(put(b"k", b"v")))
    seen = kv_pb2.ReadOptions(after=[kv_pb2.PartitionIndex(partition=7, index=4)])
    answers = bench.submit(batch(get(b"k"), level=kv_pb2.READ_LEVEL_SESSION, read=seen))
    bench.replica.maybe_checkpoint(1.0)
    assert _under_way(bench.replica)
    bench.replica.pump()
    assert answers == []
    writer.tell()
    bench.ask(batch(put(b"k", b"w")))
    assert results(answers[0])[0].get.item.value == b"w"
    bench.crash()


def test_a_full_disk_found_by_the_thread(held: tuple[Bench, HeldWriter]) -> None:
    """A commit that finds no room undoes what the checkpoint would have held; it is applied again when there is room."""
    bench, writer = held
    fail(bench.store, lmdb.DiskError("no space"))
    writer.tell()
    replica = bench.replica
    assert _is_full(replica)
    assert replica.failure is None
    assert replica.applied_index == replica.checkpoint_index == 2
    assert isinstance(bench.submit(batch(put(b"k", b"")))[0], DiskFull)
    replica.maybe_checkpoint(2.0)
    assert not _is_full(replica)
    assert replica.applied_index == replica.checkpoint_index == 3
    assert results(bench.ask(batch(scan())))[0].range.items[0].value == b"v"


def test_hashing_installing_and_closing_wait_for_a_checkpoint(held: tuple[Bench, HeldWriter]) -> None:
    """Whoever needs the state as a whole ends the checkpoint first."""
    bench, _ = held
    hasher = bench.replica.content_hasher()
    assert hasher().index == 3
    bench.ask(batch(put(b"k", b"w")))
    bench.replica.maybe_checkpoint(2.0)
    assert _under_way(bench.replica)
    bench.replica.close()
    with opened(bench.store.directory) as store:
        assert store.last.applied_index == 4
