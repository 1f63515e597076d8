"""Snapshots from one replica to another, and the hash of a replica's content."""

from __future__ import annotations

from pathlib import Path

import pytest

from kv.errors import Unavailable, UnknownOutcome
from tests.partition.tools import Bench, batch, put, results


def test_snapshot_to_another_replica(tmp_path: Path) -> None:
    """A replica that installs a snapshot has the same content, answers old repetitions and stands at its index."""
    leader, follower = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    session = leader.open_session()
    raw = batch(put(b"k", b"v"), request=(session, 1, 0))
    first = results(leader.ask(raw))
    expected = leader.replica.content_hasher()()
    stuck = follower.submit(batch(put(b"x", b"y")))
    follower.replica.pump()
    _transfer(leader, follower)
    assert isinstance(stuck[0], UnknownOutcome)
    assert follower.replica.content_hasher()() == expected
    follower.group.log[:] = leader.group.log
    follower.group.commit_index = 4
    assert results(follower.ask(raw)) == first
    leader.crash()
    follower.crash()


def _transfer(source_bench: Bench, sink_bench: Bench, piece: int = 1000) -> None:
    source = source_bench.replica.snapshot_source()
    source.prepare()
    sink = sink_bench.replica.snapshot_sink(source.index, source.total_bytes)
    for offset in range(0, source.total_bytes, piece):
        sink.write(offset, source.read(offset, piece))
    sink.finish()
    source.close()
    sink_bench.replica.install(sink, source.index)
    assert sink_bench.replica.failure is None
    assert sink_bench.replica.applied_index == source.index


def test_install_never_goes_back(bench: Bench, tmp_path: Path) -> None:
    """A snapshot at or below the applied index stops the replica rather than undo what it answered."""
    other = Bench(tmp_path / "other")
    other.ask(batch(put(b"k", b"v")))
    other.replica.content_hasher()
    bench.ask(batch(put(b"k", b"v")))
    source = other.replica.snapshot_source()
    source.prepare()
    sink = bench.replica.snapshot_sink(source.index, source.total_bytes)
    sink.write(0, source.read(0, source.total_bytes))
    sink.finish()
    bench.replica.install(sink, source.index)
    assert bench.replica.failure is not None
    source.close()
    other.crash()


def test_content_hasher_without_checkpoint(bench: Bench) -> None:
    """The content hash is refused while no checkpoint of the present state can be made."""
    bench.ask(batch(put(b"k", b"v")))
    bench.group.durable_lag = 1
    with pytest.raises(Unavailable):
        bench.replica.content_hasher()
