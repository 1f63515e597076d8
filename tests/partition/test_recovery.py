"""Checkpoints and what is built again from them and the log: after a restart, a crash, a full store."""

from __future__ import annotations

from pathlib import Path

from kv.errors import DiskFull
from kv.partition.checkpoint import Checkpoint
from kv.partition.partition import CATCH_UP_ENTRIES, RELEASE_OPERATIONS_MIN
from kv.partition.policy import QUIET_S
from kv.raft.api import BOOTSTRAP_INDEX, ENTRY_PREFIX
from kv.v1 import kv_pb2
from tests.partition.tools import Bench, batch, command, delete, get, put, results


def test_restart_replays_the_log(tmp_path: Path) -> None:
    """After a crash the state is that of the checkpoint, and the log brings back the rest, sessions included."""
    bench = Bench(tmp_path / "p")
    session = bench.open_session()
    raws = [batch(put(b"k%d" % n, b"v"), request=(session, n, n - 1)) for n in range(1, 6)]
    answers = [results(bench.ask(raws[0]))]
    bench.replica.maybe_checkpoint(0.0)
    bench.replica.maybe_checkpoint(30.0)
    assert bench.replica.checkpoint_index == 4
    answers += [results(bench.ask(raw)) for raw in raws[1:]]
    bench.crash()
    again = Bench(tmp_path / "p", log=bench.group.log)
    assert again.replica.applied_index == 4
    again.group.commit()
    assert again.replica.applied_index == 8
    assert results(again.ask(raws[4])) == answers[4]
    again.crash()


def test_memory_goes_when_the_load_has_gone(tmp_path: Path) -> None:
    """A checkpoint by size keeps the store's memory for the next writes, one by time gives it back; the state stays."""
    bench = Bench(tmp_path / "p", checkpoint_ops_max=2 * RELEASE_OPERATIONS_MIN)
    environment = bench.store._env
    many = batch(*[put(b"k%d" % n, b"v") for n in range(RELEASE_OPERATIONS_MIN)])
    for _ in range(2):
        bench.ask(many)
    bench.replica.maybe_checkpoint(0.0)
    assert bench.replica.checkpoint_index == bench.replica.applied_index
    assert bench.store._env is environment
    bench.ask(many)
    bench.replica.maybe_checkpoint(1.0)
    assert bench.replica.checkpoint_index < bench.replica.applied_index
    bench.replica.maybe_checkpoint(1.0 + QUIET_S)
    assert bench.replica.checkpoint_index == bench.replica.applied_index
    assert bench.store._env is not environment
    assert bench.store.keys == RELEASE_OPERATIONS_MIN
    bench.ask(many)
    bench.crash()


def test_checkpoint_waits_for_the_log(bench: Bench) -> None:
    """No checkpoint is made above the durable end of the local log, though others have committed it."""
    bench.ask(batch(put(b"k", b"v")))
    bench.group.durable_lag = 1
    bench.replica.maybe_checkpoint(0.0)
    bench.replica.maybe_checkpoint(1000.0)
    assert bench.replica.checkpoint_index == BOOTSTRAP_INDEX
    bench.group.durable_lag = 0
    bench.replica.maybe_checkpoint(1000.0)
    assert bench.replica.checkpoint_index == 3


def test_checkpoint_by_operations(tmp_path: Path) -> None:
    """checkpoint_ops_max applied operations make a checkpoint due at once, one fewer does not."""
    bench = Bench(tmp_path / "p", checkpoint_ops_max=4)
    bench.ask(batch(put(b"k", b"v"), put(b"k", b"v"), put(b"k", b"v")))
    bench.replica.maybe_checkpoint(0.0)
    assert bench.replica.checkpoint_index == BOOTSTRAP_INDEX
    bench.ask(batch(delete(b"k")))
    bench.replica.maybe_checkpoint(0.0)
    assert bench.replica.checkpoint_index == 4
    bench.crash()


def test_compaction_keeps_a_tail(tmp_path: Path) -> None:
    """After a checkpoint the log may be compacted, but keeps log_retain_entries below it."""
    bench = Bench(tmp_path / "p", checkpoint_ops_max=20, log_retain_entries=5)
    for _ in range(20):
        bench.ask(batch(put(b"k", b"v")))
    bench.replica.maybe_checkpoint(0.0)
    assert bench.group.compacted == [22 - 5]
    bench.crash()


def test_map_grows_by_itself(tmp_path: Path) -> None:
    """A map that fills up between two checkpoints is doubled and the state rebuilt, sessions too: no write is lost."""
    bench = Bench(tmp_path / "p", map_bytes_initial=1 << 18)
    session = bench.open_session()
    for n in range(1, 61):
        answer = bench.ask(batch(put(b"key%d" % n, bytes(8000)), request=(session, n, n - 1)))
        assert results(answer)[0].put == kv_pb2.PutResult(revision=n + 3, version=1)
    assert bench.replica.failure is None
    assert not _is_full(bench)
    assert bench.replica.checkpoints_made > 0, "it was full, or this tests nothing"
    assert bench.store.keys == len(list(bench.store.range(b"", b""))) == 60
    bench.crash()


def test_store_full(tmp_path: Path) -> None:
    """A full store refuses writes with DISK_FULL and serves what its checkpoint has; room lets all of it catch up."""
    bench = Bench(tmp_path / "p", map_bytes_initial=1 << 18, map_bytes_max=1 << 18)
    bench.ask(batch(put(b"first", b"v")))
    bench.replica.content_hasher()
    held = [bench.submit(batch(put(b"key%d" % n, bytes(8000)))) for n in range(60)]
    bench.group.turn()
    assert _is_full(bench)
    assert bench.replica.failure is None
    assert bench.replica.applied_index == bench.replica.checkpoint_index == 3
    assert isinstance(bench.submit(batch(put(b"k", b"")))[0], DiskFull)
    (stale,) = bench.submit(batch(get(b"first"), stale=True))
    assert results(stale)[0].get.item.value == b"v"
    bench.replica.maybe_checkpoint(1.0)
    assert _is_full(bench), "there is still no room"
    bench.store._map_bytes_max = 1 << 24  # the disk got room
    bench.replica.maybe_checkpoint(1.5)
    assert _is_full(bench), "the pause between two attempts"
    bench.replica.maybe_checkpoint(2.0)
    assert not _is_full(bench)
    assert [len(answer) for answer in held] == [1] * 60
    assert all(isinstance(answer, bytes) for (answer,) in held)
    assert isinstance(bench.ask(batch(put(b"k", b""))), bytes)
    bench.crash()


def test_long_catch_up(tmp_path: Path) -> None:
    """A map far too small for the log's tail is grown as often as needed in one recovery, in slices."""
    raws = [batch(put(b"key%d" % n, bytes(3000))) for n in range(2 * CATCH_UP_ENTRIES + 5)]
    log = [(command(raw), BOOTSTRAP_INDEX + 1 + n, 1) for n, raw in enumerate(raws)]
    bench = Bench(tmp_path / "p", log=log, map_bytes_initial=1 << 18)
    bench.group.commit()
    assert bench.replica.failure is None
    assert not _is_full(bench)
    assert bench.replica.checkpoint_index == bench.replica.applied_index == BOOTSTRAP_INDEX + len(log)
    assert bench.store.keys == len(log)
    bench.crash()


def test_catch_up_waits_for_the_log(tmp_path: Path) -> None:
    """After a full store was rebuilt, it counts as full until a checkpoint, which waits for the local log."""
    bench = Bench(tmp_path / "p", map_bytes_initial=1 << 18)
    bench.group.durable_lag = 1
    for n in range(60):
        bench.ask(batch(put(b"key%d" % n, bytes(8000))))
        if bench.replica.store_full:
            break
    assert _is_full(bench)
    assert bench.replica.applied_index == bench.group.commit_index
    bench.group.durable_lag = 0
    bench.replica.maybe_checkpoint(1.0)
    assert not _is_full(bench)
    bench.crash()


def test_time_of_a_leader_behind(tmp_path: Path) -> None:
    """A command of a leader whose clock is behind does not turn the time of the state back."""
    log = [(command(time_ms=5000), 3, 1), (command(time_ms=4000), 4, 2), (ENTRY_PREFIX, 5, 3)]
    bench = Bench(tmp_path / "p", log=log)
    bench.group.commit()
    bench.replica.content_hasher()
    assert bench.store.last == Checkpoint(7, 5, 3, 2, 5000, 0)
    bench.crash()


def test_close_makes_a_checkpoint(tmp_path: Path) -> None:
    """An orderly stop leaves nothing to replay."""
    bench = Bench(tmp_path / "p")
    bench.ask(batch(put(b"k", b"v")))
    bench.replica.close()
    again = Bench(tmp_path / "p")
    assert again.replica.applied_index == 3
    again.crash()


def _is_full(bench: Bench) -> bool:
    return bench.replica.store_full
