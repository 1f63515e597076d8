"""Snapshots as files: a copy out, a copy in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kv.partition.checkpoint import Checkpoint
from kv.partition.snapshot import FileSink, FileSource
from kv.partition.store import Store, snapshot_path

AT = Checkpoint(7, 40, 6, 5, 1000, 100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give a store of 100 keys at checkpoint `AT`, with one key more that is not committed."""
    made = Store.open(tmp_path / "p", 7, map_bytes_initial=1 << 20)
    for n in range(100):
        made.put(b"%d" % n, bytes(300), is_new=True)
    made.checkpoint(AT, [(1, b"session")])
    made.put(b"later", b"v", is_new=True)
    yield made
    made.close()


def prepared(store: Store, name: str = "1") -> FileSource:
    """Return a source that is ready."""
    source = FileSource(store, name)
    source.prepare()
    return source


def content(source: FileSource) -> bytes:
    """Return all of it, read in pieces that do not divide its size."""
    pieces = range(0, source.total_bytes, 1001)
    return b"".join(source.read(offset, 1001) for offset in pieces)


def test_source_is_the_checkpoint(store: Store) -> None:
    """A source stands at the last checkpoint, does not change while the store goes on, and leaves no file."""
    source = prepared(store)
    assert (source.index, source.index_term, source.previous_term) == (40, 6, 5)
    before = content(source)
    store.checkpoint(Checkpoint(7, 41, 6, 6, 1000, 101), [])
    assert content(source) == before
    assert len(before) == source.total_bytes
    assert {file.name for file in store.directory.iterdir()} == {"data.mdb", "lock.mdb"}
    source.close()
    source.close()


def test_several_sources(store: Store) -> None:
    """Sources of different checkpoints live side by side."""
    first = prepared(store, "1")
    store.checkpoint(Checkpoint(7, 41, 6, 6, 1000, 101), [])
    second = prepared(store, "2")
    assert (first.index, second.index) == (40, 41)
    first.close()
    assert content(second)
    second.close()


def test_close_before_prepare(store: Store) -> None:
    """A source that was never prepared closes quietly."""
    FileSource(store, "1").close()


def sink_of(tmp_path: Path, data: bytes, *, index: int = 40, group_id: int = 7, total: int = 0) -> FileSink:
    """Return a sink that got `data` in two pieces."""
    directory = tmp_path / "in"
    directory.mkdir(exist_ok=True)
    sink = FileSink(directory, group_id, index, total or len(data))
    sink.write(0, data[:5000])
    sink.write(5000, data[5000:])
    return sink


def test_sink_to_store(store: Store, tmp_path: Path) -> None:
    """What a source gives makes a store of the same content at the other end."""
    source = prepared(store)
    sink = sink_of(tmp_path, content(source))
    sink.finish()
    other = Store.open(tmp_path / "in", 7, map_bytes_initial=1 << 20, required_index=40)
    assert other.last == AT
    assert other.content_hash() == store.content_hash()
    assert other.sessions() == [(1, b"session")]
    other.close()
    source.close()


def test_sink_refuses_what_it_is_not(store: Store, tmp_path: Path) -> None:
    """A snapshot of another index or group, a short one, or garbage never gets the name of a snapshot."""
    source = prepared(store)
    data = content(source)
    cases: list[Callable[[], FileSink]] = [
        lambda: sink_of(tmp_path, data, index=41),
        lambda: sink_of(tmp_path, data, group_id=8),
        lambda: sink_of(tmp_path, data[:-1], total=len(data)),
        lambda: sink_of(tmp_path, b"garbage" * 2000),
    ]
    for case in cases:
        sink = case()
        with pytest.raises(ValueError, match="snapshot"):
            sink.finish()
        sink.abort()
        assert list((tmp_path / "in").iterdir()) == []
    source.close()


def test_abort(store: Store, tmp_path: Path) -> None:
    """An aborted sink leaves no file, before and after it was finished."""
    source = prepared(store)
    for finish in (False, True):
        sink = sink_of(tmp_path, content(source))
        if finish:
            sink.finish()
            assert snapshot_path(tmp_path / "in", 40).exists()
        sink.abort()
        sink.abort()
        assert list((tmp_path / "in").iterdir()) == []
    source.close()


def test_pieces_in_order(tmp_path: Path) -> None:
    """A gap, a repetition or more than was announced is a defect of the caller."""
    sink = FileSink(tmp_path, 7, 40, 100)
    sink.write(0, bytes(60))
    for offset, length in ((0, 10), (70, 10), (60, 41)):
        with pytest.raises(AssertionError):
            sink.write(offset, bytes(length))
    sink.write(60, bytes(40))
    sink.abort()


def test_damage_is_refused(store: Store, tmp_path: Path) -> None:
    """One changed byte anywhere in a snapshot, page numbers included, is refused; LMDB alone would crash or obey."""
    source = prepared(store)
    data = content(source)
    for offset in range(0, len(data), 997):
        damaged = data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :]
        sink = sink_of(tmp_path, damaged)
        with pytest.raises(ValueError, match=r"sealed|seal of"):
            sink.finish()
        sink.abort()
    source.close()
