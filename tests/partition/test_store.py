"""The store: what survives, what is undone, and what is refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv.partition.checkpoint import FORMAT_VERSION, Checkpoint, UnknownFormat
from kv.partition.store import ReplicaCorrupt, Store, StoreFull, read_checkpoint, snapshot_path
from kv.raft.api import BOOTSTRAP_INDEX

MAP_BYTES = 1 << 18

Opener = Callable[..., Store]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Opener]:
    """Give a function that opens a store of group 7 in one directory; it closes the one before."""
    opened: list[Store] = []

    def opener(group_id: int = 7, **options: Any) -> Store:  # noqa: ANN401 - passed on
        while opened:
            opened.pop().close()
        store = Store.open(tmp_path / "p", group_id, **({"map_bytes_initial": MAP_BYTES} | options))
        opened.append(store)
        return store

    yield opener
    while opened:
        opened.pop().close()


def checkpoint(store: Store, index: int, sessions: list[tuple[int, bytes | None]] | None = None) -> None:
    """Make a checkpoint at `index`."""
    store.checkpoint(Checkpoint(7, index, 2, 1, 99, store.keys), sessions or [])


def test_mark_golden() -> None:
    """The stored form of a checkpoint never changes: it is on disks."""
    encoded = Checkpoint(7, 300, 5, 4, 1000, 2).encode()
    assert encoded.hex() == (
        "0100070000002c0100000000000005000000000000000400000000000000e8030000000000000200000000000000"
    )
    assert Checkpoint.decode(encoded) == Checkpoint(7, 300, 5, 4, 1000, 2)


@pytest.mark.parametrize(
    "encoded", [b"", b"\x01\x00", (FORMAT_VERSION + 1).to_bytes(2, "little") + bytes(44)]
)
def test_unknown_mark(encoded: bytes) -> None:
    """A mark of another size or a newer version is refused."""
    with pytest.raises(UnknownFormat):
        Checkpoint.decode(encoded)


def test_new_store(open_store: Opener) -> None:
    """A new store stands at the bootstrap index, empty, and says so again after a crash."""
    for _ in range(2):
        store = open_store()
        assert store.last == Checkpoint(7, BOOTSTRAP_INDEX)
        assert (store.keys, list(store.range(b"", b"")), store.sessions()) == (0, [], [])


def test_memtable_sees_its_writes(open_store: Opener) -> None:
    """Reads see uncommitted writes of the same store, in key order."""
    store = open_store()
    for key in (b"b", b"a", b"c"):
        store.put(key, key * 2, is_new=True)
    store.put(b"a", b"again", is_new=False)
    store.delete(b"b")
    assert store.get(b"a") == b"again"
    assert store.get(b"b") is None
    assert list(store.range(b"", b"")) == [(b"a", b"again"), (b"c", b"cc")]
    assert list(store.range(b"a", b"c")) == [(b"a", b"again")]
    assert list(store.range(b"aa", b"")) == [(b"c", b"cc")]
    assert list(store.range(b"d", b"")) == []
    assert store.keys == 2


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from([b"a", b"b", b"c", b"d"]), st.binary(max_size=3000)),
    st.tuples(st.just("delete"), st.sampled_from([b"a", b"b", b"c", b"d"])),
    st.tuples(st.just("session"), st.integers(1, 3), st.none() | st.binary(min_size=1, max_size=50)),
    st.tuples(st.sampled_from(["checkpoint", "rollback", "crash"])),
)


@settings(max_examples=20)
@given(st.lists(STEPS, max_size=25))
def test_against_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]) -> None:
    """Through any checkpoints, rollbacks and crashes the store holds what a dict with a saved copy holds."""
    directory = tmp_path_factory.mktemp("store") / "p"
    store = Store.open(directory, 7, map_bytes_initial=MAP_BYTES)
    live: dict[bytes, bytes] = {}
    saved: tuple[dict[bytes, bytes], dict[int, bytes]] = ({}, {})
    sessions: dict[int, bytes | None] = {}
    index = BOOTSTRAP_INDEX
    for kind, *rest in steps:
        index += 1
        if kind == "put":
            store.put(rest[0], rest[1], rest[0] not in live)
            live[rest[0]] = rest[1]
        elif kind == "delete" and rest[0] in live:
            store.delete(rest[0])
            del live[rest[0]]
        elif kind == "session":
            sessions[rest[0]] = rest[1]
        elif kind == "checkpoint":
            checkpoint(store, index, list(sessions.items()))
            kept = {**saved[1], **sessions}
            saved = (dict(live), {key: value for key, value in kept.items() if value is not None})
            sessions = {}
        elif kind in ("rollback", "crash"):
            if kind == "crash":
                store.close()
                store = Store.open(directory, 7, map_bytes_initial=MAP_BYTES)
            else:
                store.rollback()
            live, sessions = dict(saved[0]), {}
            assert dict(store.sessions()) == saved[1]
        assert list(store.range(b"", b"")) == sorted(live.items())
        assert store.keys == len(live)
    store.close()


def test_map_grows_at_a_checkpoint(open_store: Opener) -> None:
    """The map is doubled at a checkpoint once half of it is used, so that many small steps never fill it."""
    store = open_store()
    for n in range(200):
        store.put(b"%d" % n, bytes(8000), is_new=True)
        checkpoint(store, n + 3)
    assert store._env.info()["map_size"] >= 200 * 8000 * 2 > MAP_BYTES
    reopened = open_store()
    assert reopened.keys == 200
    reopened.put(b"more", bytes(8000), is_new=True)


def test_map_full(open_store: Opener) -> None:
    """A full map raises StoreFull, keeps the checkpoint whole, and rollback can bring a larger map."""
    store = open_store()
    store.put(b"kept", b"v", is_new=True)
    checkpoint(store, 3)
    with pytest.raises(StoreFull) as caught:
        _fill(store)
    assert caught.value.map_full
    assert store.rollback(grow=True)
    assert list(store.range(b"", b"")) == [(b"kept", b"v")]
    assert store.keys == 1
    for n in range(30):  # more than the old map held
        store.put(b"%d" % n, bytes(8000), is_new=True)
    checkpoint(store, 4)


def _fill(store: Store) -> None:
    for n in range(10_000):
        store.put(b"%d" % n, bytes(8000), is_new=True)


def test_map_bytes_max(open_store: Opener) -> None:
    """The map never grows above its limit."""
    store = open_store(map_bytes_max=MAP_BYTES)
    for _ in range(2):
        with pytest.raises(StoreFull):
            _fill(store)
        assert not store.rollback(grow=True)
    assert store._env.info()["map_size"] == MAP_BYTES


def test_checkpoint_full(open_store: Opener) -> None:
    """A checkpoint that does not fit raises StoreFull and leaves the one before."""
    store = open_store(map_bytes_max=MAP_BYTES)
    store.put(b"kept", b"v", is_new=True)
    checkpoint(store, 3, [(1, b"session")])
    with pytest.raises(StoreFull):
        checkpoint(store, 4, [(1, bytes(2 * MAP_BYTES))])
    store.rollback()
    assert store.last.applied_index == 3
    assert store.sessions() == [(1, b"session")]
    assert open_store().last.applied_index == 3


def test_checkpoint_never_goes_back(open_store: Opener) -> None:
    """A checkpoint below the last one is a defect of the caller."""
    store = open_store()
    checkpoint(store, 5)
    with pytest.raises(AssertionError):
        checkpoint(store, 4)


def test_other_thread(open_store: Opener) -> None:
    """The write transaction is bound to its thread: a checkpoint elsewhere is refused."""
    store = open_store()
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            checkpoint(store, 3)
        except AssertionError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_other_group(open_store: Opener) -> None:
    """A store of another group is refused."""
    open_store()
    with pytest.raises(ReplicaCorrupt, match="group 7, not 8"):
        open_store(8)


def test_newer_format(open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of a newer format is refused with the advice to upgrade."""
    with monkeypatch.context() as patch:
        patch.setattr("kv.partition.checkpoint.FORMAT_VERSION", FORMAT_VERSION + 1)
        open_store()
    with pytest.raises(ReplicaCorrupt, match="upgrade"):
        open_store()


def test_damaged_file(open_store: Opener, tmp_path: Path) -> None:
    """A data file that is no environment is refused, with the way out."""
    open_store().close()
    (tmp_path / "p" / "data.mdb").write_bytes(b"garbage" * 5000)
    with pytest.raises(ReplicaCorrupt, match="rejoin"):
        open_store()


def test_content_hash(open_store: Opener) -> None:
    """The hash covers keys, records and sessions of the checkpoint, not what came after, and no boundary moves."""
    store = open_store()
    hashes = [store.content_hash().hash]
    contents: list[tuple[bytes, bytes]] = [(b"a", b"bc"), (b"ab", b"c"), (b"a", b"bd")]
    for key, record in contents:
        store.put(key, record, is_new=True)
        assert store.content_hash().hash == hashes[0], "nothing is committed"
        checkpoint(store, store.last.applied_index + 1)
        hashes.append(store.content_hash().hash)
        store.delete(key)
        checkpoint(store, store.last.applied_index + 1)
        assert store.content_hash().hash == hashes[0]
    checkpoint(store, store.last.applied_index + 1, [(1, b"session")])
    found = store.content_hash()
    hashes.append(found.hash)
    assert len(set(hashes)) == 5
    assert (found.index, found.keys) == (store.last.applied_index, 0)


def _in_thread(work: Callable[[], object]) -> list[object]:
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(work()))
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    return done


def test_worker_threads_read_beside_the_writer(open_store: Opener, tmp_path: Path) -> None:
    """Hash and copy run in another thread while the write transaction is open, and see the checkpoint."""
    store = open_store()
    store.put(b"a", b"1", is_new=True)
    checkpoint(store, 3)
    store.put(b"b", b"2", is_new=True)
    assert _in_thread(store.content_hash) == [store.content_hash()]
    with (tmp_path / "copy").open("w+b") as file:
        _in_thread(lambda: store.copy_to(file.fileno()))
    assert read_checkpoint(tmp_path / "copy") == Checkpoint(7, 3, 2, 1, 99, 1)


def test_growth_waits_for_readers(open_store: Opener) -> None:
    """While a worker thread reads, the map is not moved; the next checkpoint grows it."""
    store = open_store()
    with store._readers.reading():
        for n in range(20):
            store.put(b"%d" % n, bytes(8000), is_new=True)
        checkpoint(store, 3)
        assert store._env.info()["map_size"] == MAP_BYTES
    checkpoint(store, 4)
    assert store._env.info()["map_size"] > MAP_BYTES


def test_release_memory(open_store: Opener) -> None:
    """The state of the checkpoint stays, and the store is written on as before."""
    store = open_store()
    store.put(b"a", b"1", is_new=True)
    checkpoint(store, 3, [(1, b"session")])
    store.release_memory()
    assert (store.get(b"a"), store.keys, store.last.applied_index) == (b"1", 1, 3)
    assert store.sessions() == [(1, b"session")]
    store.put(b"b", b"2", is_new=True)
    checkpoint(store, 4)
    again = open_store()
    assert (again.get(b"a"), again.get(b"b"), again.last.applied_index) == (b"1", b"2", 4)


def test_release_memory_waits_for_readers(open_store: Opener) -> None:
    """While a worker thread reads, the environment stays open under it; a later call closes it."""
    store = open_store()
    store.put(b"a", b"1", is_new=True)
    checkpoint(store, 3)
    environment = store._env
    with store._readers.reading():
        store.release_memory()
        assert store._env is environment
        assert _in_thread(store.content_hash) == [store.content_hash()]
    store.release_memory()
    assert store._env is not environment
    assert store.get(b"a") == b"1"


def _received(open_store: Opener, tmp_path: Path, index: int) -> Path:
    """Leave a store at index 3 and a received snapshot at `index` with the key "new"; nothing is open."""
    source = Store.open(tmp_path / "source", 7, map_bytes_initial=MAP_BYTES)
    source.put(b"new", b"v", is_new=True)
    source.checkpoint(Checkpoint(7, index, 2, 2, 5, 1), [])
    store = open_store()
    store.put(b"old", b"v", is_new=True)
    checkpoint(store, 3)
    store.close()
    received = snapshot_path(tmp_path / "p", index)
    with received.open("w+b") as file:
        source.copy_to(file.fileno())
    source.close()
    return received


def test_install(open_store: Opener, tmp_path: Path) -> None:
    """An installed snapshot replaces all of the state, though the old lock file is there and was in use."""
    received = _received(open_store, tmp_path, 50)
    data = received.read_bytes()
    store = open_store()
    received.write_bytes(data)
    store.put(b"pending", b"v", is_new=True)
    store.install(50)
    assert list(store.range(b"", b"")) == [(b"new", b"v")]
    assert store.last == Checkpoint(7, 50, 2, 2, 5, 1)
    assert not received.exists()
    store.put(b"more", b"v", is_new=True)
    checkpoint(store, 51)
    assert _in_thread(store.content_hash) == [store.content_hash()]
    again = open_store()
    assert (again.last.applied_index, again.keys) == (51, 2)


def test_install_is_finished_after_a_crash(open_store: Opener, tmp_path: Path) -> None:
    """A crash between the log's snapshot mark and the rename is repaired at the next open."""
    received = _received(open_store, tmp_path, 50)
    store = open_store(required_index=50)
    assert (store.last.applied_index, store.get(b"new"), store.get(b"old")) == (50, b"v", None)
    assert not received.exists()


def test_install_that_the_log_does_not_know(open_store: Opener, tmp_path: Path) -> None:
    """A crash before the log's snapshot mark leaves the old state, and the received file is removed."""
    received = _received(open_store, tmp_path, 50)
    partial = tmp_path / "p" / "snapshot-60.tmp"
    partial.write_bytes(b"half")
    store = open_store(required_index=3)
    assert (store.last.applied_index, store.get(b"old")) == (3, b"v")
    assert not received.exists()
    assert not partial.exists()


def test_state_below_the_log(open_store: Opener, tmp_path: Path) -> None:
    """A store below the beginning of its log, without the snapshot, is refused and stays as it is."""
    _received(open_store, tmp_path, 50)
    with pytest.raises(ReplicaCorrupt, match="begins at 60"):
        open_store(required_index=60)
    assert snapshot_path(tmp_path / "p", 50).exists()
    with pytest.raises(ReplicaCorrupt, match="begins at 60"):
        Store.open(tmp_path / "fresh", 7, map_bytes_initial=MAP_BYTES, required_index=60)


def test_snapshot_of_another_index(open_store: Opener, tmp_path: Path) -> None:
    """A snapshot file whose content stands elsewhere than its name says is not installed."""
    received = _received(open_store, tmp_path, 50)
    received.rename(snapshot_path(tmp_path / "p", 60))
    with pytest.raises(ReplicaCorrupt, match="snapshot-60"):
        open_store(required_index=60)


def test_half_made_store(open_store: Opener, tmp_path: Path) -> None:
    """A crash before the first checkpoint of a new store leaves one that opens as new."""
    (tmp_path / "p").mkdir()
    descriptor = os.open(tmp_path / "p" / "data.mdb", os.O_CREAT | os.O_WRONLY)
    os.close(descriptor)
    assert open_store().last == Checkpoint(7)
