"""The replica: the fate of requests, checkpoints, rebuilds and failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kv.errors import (
    DiskFull,
    InvalidArgument,
    KVError,
    NotLeader,
    Overloaded,
    ReplicaStopped,
    RequestTooLarge,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
    WrongPartition,
)
from kv.partition.checkpoint import Checkpoint
from kv.partition.partition import CATCH_UP_ENTRIES, RELEASE_OPERATIONS_MIN
from kv.partition.policy import QUIET_S
from kv.partition.queue import BATCH_FRAME_BYTES, COMMAND_FRAME_BYTES
from kv.raft.api import BOOTSTRAP_INDEX, ENTRY_PREFIX, Entry, SnapshotSink, SnapshotSource, StateMachine
from kv.v1 import cluster_pb2, kv_pb2
from tests.partition.tools import (
    Bench,
    append,
    ask_outcome,
    batch,
    command,
    delete,
    evidence,
    get,
    increment,
    open_session,
    partition_config,
    put,
    results,
    scan,
    txn,
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a replica on a real store, closed after the test."""
    made = Bench(tmp_path / "p")
    yield made
    made.crash()


def test_replica_is_a_state_machine(bench: Bench) -> None:
    """A Replica and its snapshot ends satisfy the protocols of the Raft floor."""
    machine: StateMachine = bench.replica
    source: SnapshotSource = bench.replica.snapshot_source()
    sink: SnapshotSink = bench.replica.snapshot_sink(9, 1)
    sink.abort()
    source.close()
    assert machine.applied_index == machine.checkpoint_index == BOOTSTRAP_INDEX


def test_write_then_read(bench: Bench) -> None:
    """A write is answered with its revision and evidence, and a later linearizable read sees it."""
    written = bench.ask(batch(put(b"k", b"v")))
    assert results(written)[0].put == kv_pb2.PutResult(revision=3, version=1)
    assert evidence(written) == kv_pb2.Evidence(
        partition=7, map_epoch=9, term=1, index=3, node="n1", revision=3
    )
    read = bench.ask(batch(get(b"k"), get(b"none")))
    assert [result.get.item.value for result in results(read)] == [b"v", b""]
    assert not results(read)[1].get.HasField("item")
    assert evidence(read).level == kv_pb2.READ_LEVEL_LINEARIZABLE


def test_batching_is_natural(tmp_path: Path) -> None:
    """What waits while the allowed commands are in flight becomes one command, in order."""
    bench = Bench(tmp_path / "p", commands_in_flight_max=1)
    answers = [bench.submit(batch(put(b"k%d" % n, b"v"))) for n in range(5)]
    bench.replica.pump()
    assert len(bench.group.log) == 1
    answers += [bench.submit(batch(put(b"k%d" % n, b"v"))) for n in range(3)]
    bench.replica.pump()
    assert len(bench.group.log) == 1, "one command is in flight"
    woken = bench.group.woken
    bench.group.commit()
    assert bench.group.woken == woken + 1, "the replica asks for a turn for the rest"
    bench.group.turn()
    versions = [results(answer)[0].put for (answer,) in answers]
    assert [(result.revision, result.version) for result in versions] == [
        *[(3, 1)] * 5,
        *[(4, 2)] * 3,
    ]
    bench.crash()


def test_commands_of_one_turn_are_announced(tmp_path: Path) -> None:
    """All but the last command of a turn say that another follows: the last of what waits, or of what may be in flight."""
    bench = Bench(tmp_path / "p", commands_in_flight_max=3)
    answers = [bench.submit(batch(put(b"k", b"%d" % n))) for n in range(5)]  # the same key: a command each
    bench.replica.pump()
    assert bench.group.more == [True, True, False]
    bench.group.commit()
    bench.group.turn()
    assert bench.group.more == [True, True, False, True, False]
    assert [results(answer)[0].put.version for (answer,) in answers] == [1, 2, 3, 4, 5]
    bench.crash()


def test_command_bytes_max(tmp_path: Path) -> None:
    """A command grows to its byte limit and no further, but holds one batch at least."""
    raws = [batch(put(b"%d" % n, bytes(100))) for n in range(4)]
    room = COMMAND_FRAME_BYTES + 2 * (len(raws[0]) + BATCH_FRAME_BYTES)
    bench = Bench(tmp_path / "p", command_bytes_max=room, commands_in_flight_max=100)
    for raw in raws:
        bench.submit(raw)
    bench.submit(batch(put(b"k", bytes(5000))))
    bench.replica.pump()
    assert len(bench.group.log) == 3
    assert all(len(data) <= room for data, _, _ in bench.group.log[:2])
    bench.crash()


def test_follower_refuses(bench: Bench) -> None:
    """A follower answers NOT_LEADER with the leader's name at once, except for stale reads."""
    bench.ask(batch(put(b"k", b"v")))
    bench.group.depose()
    for raw in (batch(put(b"k", b"w")), batch(get(b"k"))):
        (refused,) = bench.submit(raw)
        assert isinstance(refused, NotLeader)
        assert refused.definite
        assert refused.metadata["leader"] == "n2"
    (stale,) = bench.submit(batch(get(b"k"), stale=True))
    assert results(stale)[0].get.item.value == b"v"
    assert evidence(stale).level == kv_pb2.READ_LEVEL_STALE


def test_deposed_before_propose(bench: Bench) -> None:
    """What waits when leadership is lost did not happen: NOT_LEADER at once, and nothing is proposed."""
    write, read = bench.submit(batch(put(b"k", b"v"))), bench.submit(batch(get(b"k")))
    bench.group.depose()
    assert [type(answer) for answer in (*write, *read)] == [NotLeader, NotLeader]
    assert bench.group.log == []


def test_deposed_after_propose(bench: Bench) -> None:
    """A proposed write keeps waiting for its index: its own entry answers it, also after the leader changed."""
    answers = bench.submit(batch(put(b"k", b"v")))
    bench.replica.pump()
    bench.group.depose()
    assert answers == []
    bench.group.commit()
    assert results(answers[0])[0].put.revision == 3


def test_overwritten_proposal(bench: Bench) -> None:
    """An entry of another term at a proposal's index proves that the proposal never happens: NOT_LEADER."""
    answers = bench.submit(batch(put(b"k", b"v")))
    bench.replica.pump()
    bench.group.depose()
    bench.group.log[0] = (command(batch(put(b"other", b"x"))), 3, 2)
    bench.group.commit()
    assert isinstance(answers[0], NotLeader)
    assert bench.store.get(b"k") is None
    assert bench.store.get(b"other") is not None


def overwrite_own_proposal(bench: Bench) -> tuple[Entry, list[bytes | KVError], list[bytes | KVError]]:
    """Propose, lose leadership and the entry, lead again, and propose at the same index."""
    lost = bench.submit(batch(put(b"k", b"lost")))
    bench.replica.pump()
    (entry,) = bench.group.log
    bench.group.depose()
    bench.group.log.clear()
    bench.group.elect()
    won = bench.submit(batch(put(b"k", b"won")))
    bench.replica.pump()
    assert (lost, won) == ([], []), "neither is decided: the first may live on in other logs"
    return entry, lost, won


def test_overwritten_by_own_proposal(bench: Bench) -> None:
    """Of two proposals at one index the one that is committed is answered, the other never happened."""
    _, lost, won = overwrite_own_proposal(bench)
    bench.group.commit()
    assert isinstance(lost[0], NotLeader)
    assert results(won[0])[0].put.version == 1
    assert len(lost) == len(won) == 1


def test_overwritten_proposal_that_wins_after_all(bench: Bench) -> None:
    """A proposal that we overwrote may be committed by a leader that still has it: it happened."""
    entry, lost, won = overwrite_own_proposal(bench)
    bench.group.depose()
    bench.group.log[:] = [entry]
    bench.group.commit()
    assert results(lost[0])[0].put.version == 1
    assert isinstance(won[0], NotLeader)


def test_undecided_proposals_of_an_old_term_do_not_block(bench: Bench) -> None:
    """A replica that leads again proposes, however many proposals of its earlier term are undecided."""
    for number in range(partition_config().commands_in_flight_max):
        bench.submit(batch(put(b"k%d" % number, b"v")))
        bench.replica.pump()
    bench.group.depose()
    bench.group.log.clear()
    bench.group.elect()
    won = bench.submit(batch(put(b"k", b"v")))
    bench.group.turn()
    assert results(won[0])[0].put.version == 1


def test_a_group_that_stopped_shows_in_the_status(bench: Bench) -> None:
    """A replica whose group gave up works no more, and says so with the group's reason."""
    bench.replica.reset_pending(Unavailable("stopping"))
    assert bench.replica.status().role == cluster_pb2.REPLICA_ROLE_LEADER, "only its requests were ended"
    bench.replica.reset_pending(ReplicaStopped("the leader contradicts a committed entry"))
    status = bench.replica.status()
    assert status.role == cluster_pb2.REPLICA_ROLE_STOPPED
    assert status.failure == "the leader contradicts a committed entry"


def test_reset_pending(bench: Bench) -> None:
    """Proposed requests end in UNKNOWN_OUTCOME, waiting ones with the given error, each once."""
    proposed = bench.submit(batch(put(b"k", b"v")))
    read = bench.submit(batch(get(b"k")))
    bench.replica.pump()
    waiting = bench.submit(batch(put(b"k", b"w")))
    bench.replica.reset_pending(Unavailable("stopping"))
    bench.group.confirm_reads()
    assert [type(answer) for answer in (*proposed, *read, *waiting)] == [
        UnknownOutcome,
        Unavailable,
        Unavailable,
    ]
    assert not proposed[0].definite  # type: ignore[union-attr]
    assert bench.replica.failure is None, "the late end of the read round is ignored"
    assert len(bench.submit(batch(put(b"k", b"v")))) == 0


def test_read_round_lost(bench: Bench) -> None:
    """A read whose leadership check fails is answered NOT_LEADER and read nothing."""
    answers = bench.submit(batch(get(b"k")))
    bench.replica.pump()
    bench.group.depose()
    bench.group.confirm_reads()
    assert isinstance(answers[0], NotLeader)


def test_one_round_for_all_reads(bench: Bench) -> None:
    """All reads that wait share one read index round."""
    answers = [bench.submit(batch(get(b"k"))) for _ in range(10)]
    bench.replica.pump()
    assert len(bench.group.reads) == 1
    bench.group.confirm_reads()
    assert all(len(answer) == 1 for answer in answers)


def test_propose_refused(bench: Bench) -> None:
    """An error of the group reaches every request of the command."""
    bench.group.refuse = DiskFull("log")
    answers = [bench.submit(batch(put(b"k", b"v"))) for _ in range(3)]
    bench.replica.pump()
    assert [type(answer) for (answer,) in answers] == [DiskFull] * 3


def test_pending_requests_max(tmp_path: Path) -> None:
    """The request above pending_requests_max is refused as OVERLOADED; an answer makes room."""
    bench = Bench(tmp_path / "p", pending_requests_max=3)
    held = [bench.submit(batch(put(b"k", b"v"))) for _ in range(2)] + [bench.submit(batch(get(b"k")))]
    (refused,) = bench.submit(batch(put(b"k", b"v")))
    assert isinstance(refused, Overloaded)
    assert refused.definite
    bench.group.turn()
    assert all(isinstance(answer, bytes) for (answer,) in held)
    assert isinstance(bench.ask(batch(put(b"k", b"v"))), bytes)
    bench.crash()


def test_pending_bytes_max(tmp_path: Path) -> None:
    """Bytes up to pending_bytes_max are taken, one more is OVERLOADED."""
    raw = batch(put(b"k", bytes(1000)))
    bench = Bench(tmp_path / "p", pending_bytes_max=2 * len(raw))
    assert [bench.submit(raw), bench.submit(raw)] == [[], []]
    assert isinstance(bench.submit(batch(get(b"k")))[0], Overloaded)
    bench.group.turn()
    assert bench.submit(raw) == []
    bench.crash()


def test_door(tmp_path: Path) -> None:
    """Keys of another partition, broken bytes and batches too large for an entry are refused definitely."""
    bench = Bench(tmp_path / "p", owns=lambda key: key.startswith(b"m"))
    cases: list[tuple[bytes, type[KVError]]] = [
        (batch(put(b"mine", b""), put(b"yours", b"")), WrongPartition),
        (batch(get(b"yours"), stale=True), WrongPartition),
        (b"\xff\xff", InvalidArgument),
        (batch(put(b"mine", b""), request=(5, 0, 0)), InvalidArgument),
        (batch(*[put(b"m%d" % n, bytes(1 << 20)) for n in range(5)]), RequestTooLarge),
    ]
    for raw, error in cases:
        (refused,) = bench.submit(raw)
        assert type(refused) is error
        assert refused.definite
    bench.group.entry_bytes_max = 1000
    raw = batch(put(b"m", bytes(1000)))
    assert isinstance(bench.submit(raw)[0], RequestTooLarge)
    assert bench.group.woken == 0
    bench.crash()


def test_entry_bytes_max_is_enough(tmp_path: Path) -> None:
    """The largest batch that the door lets in fits into an entry."""
    bench = Bench(tmp_path / "p")
    raw = batch(put(b"m", bytes(1000)))
    bench.group.entry_bytes_max = len(raw) + BATCH_FRAME_BYTES + COMMAND_FRAME_BYTES
    assert isinstance(bench.ask(raw), bytes)
    bench.crash()


def test_exactly_once(bench: Bench) -> None:
    """A repetition is answered with the first result, also after others wrote, and is not applied again."""
    session = bench.open_session()
    raw = batch(put(b"k", b"v"), request=(session, 1, 0))
    first = results(bench.ask(raw))
    bench.ask(batch(put(b"k", b"w")))
    assert results(bench.ask(raw)) == first
    assert results(bench.ask(batch(get(b"k"))))[0].get.item.value == b"w"


def test_exactly_once_in_one_command(bench: Bench) -> None:
    """Two copies of a request that are joined into one command are applied once."""
    session = bench.open_session()
    raw = batch(put(b"k", b"v"), request=(session, 1, 0))
    answers = [bench.submit(raw), bench.submit(raw)]
    bench.group.turn()
    assert [results(answer)[0].put.version for (answer,) in answers] == [1, 1]


def test_repeated_open(bench: Bench) -> None:
    """Opening a session under another session's request id gives the same session again."""
    outer = bench.open_session()
    raw = batch(open_session(), request=(outer, 1, 0))
    assert results(bench.ask(raw)) == results(bench.ask(raw))


def test_expired_session(bench: Bench) -> None:
    """A session unused for its time to live refuses its retry instead of applying it again."""
    session = bench.open_session()
    raw = batch(put(b"k", b"v"), request=(session, 1, 0))
    bench.ask(raw)
    bench.now_ms += 60_000
    refused = bench.ask(raw)
    assert isinstance(refused, SessionExpired)
    assert results(bench.ask(batch(get(b"k"))))[0].get.item.version == 1


def test_time_never_goes_back(bench: Bench) -> None:
    """Command times never decrease although the wall clock does."""
    bench.ask(batch(put(b"k", b"v")))
    bench.now_ms = 5
    bench.ask(batch(put(b"k", b"v")))
    bench.now_ms = 2000
    bench.ask(batch(put(b"k", b"v")))
    replayed = [bench.group.log[n][0] for n in range(3)]
    assert replayed == [command(batch(put(b"k", b"v")), time_ms=time_ms) for time_ms in (1000, 1000, 2000)]


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


def _is_full(bench: Bench) -> bool:
    return bench.replica.store_full


def test_corrupt_entry_stops_the_replica(bench: Bench) -> None:
    """An entry that cannot be applied stops this replica with its reason, and raises nothing into the core."""
    bench.group.log.append((b"\x01\xff\xff", 3, 1))
    proposed, read = bench.submit(batch(put(b"k", b"v"))), bench.submit(batch(get(b"k")))
    bench.replica.pump()
    waiting = bench.submit(batch(put(b"k", b"v")))
    bench.group.commit(3)
    bench.group.confirm_reads()
    assert bench.replica.failure is not None
    assert [type(answer) for answer in (*proposed, *read, *waiting)] == [
        UnknownOutcome,
        ReplicaStopped,
        ReplicaStopped,
    ]
    assert isinstance(bench.submit(batch(get(b"k"), stale=True))[0], ReplicaStopped)
    status = bench.replica.status()
    assert status.role == cluster_pb2.REPLICA_ROLE_STOPPED
    assert status.failure == bench.replica.failure
    bench.group.commit(4)
    assert bench.replica.applied_index == BOOTSTRAP_INDEX


def test_gap_stops_the_replica(bench: Bench) -> None:
    """Entries that do not follow on the applied index are never applied."""
    bench.replica.apply([(ENTRY_PREFIX, 4, 1)])
    assert bench.replica.failure is not None
    assert bench.replica.applied_index == BOOTSTRAP_INDEX


def test_broken_reply_harms_nobody(bench: Bench) -> None:
    """An exception in one caller's reply neither stops the replica nor keeps the next answer back."""

    def broken(outcome: bytes | KVError) -> None:
        raise RuntimeError("the caller's fault")

    bench.replica.submit(batch(put(b"k", b"v")), broken)
    answer = bench.ask(batch(put(b"k", b"w")))
    assert results(answer)[0].put.version == 2
    assert bench.replica.failure is None


def test_no_op_entries(bench: Bench) -> None:
    """An entry of the prefix alone moves the applied index and nothing else."""
    bench.group.log.append((ENTRY_PREFIX, 3, 1))
    bench.group.commit()
    assert bench.replica.applied_index == 3
    assert bench.store.keys == 0
    assert bench.replica.status().applied_index == 3


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


def test_range_page(bench: Bench) -> None:
    """A range is answered page by page, and refused beside a write."""
    bench.ask(batch(*[put(b"k%02d" % n, b"v") for n in range(15)]))
    page = results(bench.ask(batch(scan())))[0].range
    assert [item.key for item in page.items] == [b"k%02d" % n for n in range(10)]
    assert page.more
    mixed = results(bench.ask(batch(scan(), put(b"k", b"v"))))
    assert mixed[0].error.reason == "INVALID_ARGUMENT"
    assert mixed[1].put.version == 1


def test_close_makes_a_checkpoint(tmp_path: Path) -> None:
    """An orderly stop leaves nothing to replay."""
    bench = Bench(tmp_path / "p")
    bench.ask(batch(put(b"k", b"v")))
    bench.replica.close()
    again = Bench(tmp_path / "p")
    assert again.replica.applied_index == 3
    again.crash()


KEYS = [b"a", b"b", b"c"]
SOME_OPERATION = st.one_of(
    st.builds(put, st.sampled_from(KEYS), st.binary(max_size=3)),
    st.builds(lambda key, value: put(key, value, absent=True), st.sampled_from(KEYS), st.binary(max_size=3)),
    st.builds(delete, st.sampled_from(KEYS)),
    st.builds(get, st.sampled_from(KEYS)),
    st.builds(increment, st.sampled_from(KEYS), st.integers(-3, 3)),
    st.builds(append, st.sampled_from(KEYS), st.binary(max_size=3)),
    st.builds(
        lambda key, other: txn((), [put(key, b"1"), increment(other), txn((), [append(key, b"2")])]),
        st.sampled_from(KEYS),
        st.sampled_from(KEYS),
    ),
)
SOME_BATCH = st.tuples(
    st.lists(SOME_OPERATION, min_size=1, max_size=3),
    st.integers(0, 3),  # which session: 0 none, 3 one that does not exist
    st.integers(1, 4),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    script=st.lists(st.tuples(st.lists(SOME_BATCH, max_size=3), st.integers(0, 20_000)), max_size=15),
    data=st.data(),
)
def test_replicas_agree(
    tmp_path_factory: pytest.TempPathFactory, script: list[Any], data: st.DataObject
) -> None:
    """The same entries give the same content, wherever each replica made checkpoints, crashed and rebuilt."""
    log = _log_of(script)
    hashes = []
    for number in range(2):
        directory = tmp_path_factory.mktemp("replica") / str(number)
        bench = Bench(directory, log=log, session_results_max=2, sessions_max=2, session_ttl_s=30.0)
        for index in range(BOOTSTRAP_INDEX + 1, BOOTSTRAP_INDEX + 1 + len(log)):
            bench.group.commit(index)
            fate = data.draw(st.sampled_from(["go on", "checkpoint", "crash"]))
            if fate == "checkpoint":
                bench.replica.content_hasher()
            elif fate == "crash":
                bench.crash()
                bench = Bench(directory, log=log, session_results_max=2, sessions_max=2, session_ttl_s=30.0)
                bench.group.commit(index)
        assert bench.replica.failure is None
        hashes.append(bench.replica.content_hasher()())
        bench.crash()
    assert hashes[0] == hashes[1]


def _log_of(script: list[Any]) -> list[Entry]:
    """Two sessions are opened by the first entry; then one entry for each step of the script."""
    first = BOOTSTRAP_INDEX + 1
    log: list[Entry] = [(command(batch(open_session()), batch(open_session()), time_ms=1), first, 1)]
    time_ms = 1
    for batches, pause_ms in script:
        time_ms += pause_ms
        raws = []
        for operations, which, sequence in batches:
            session = (0, first << 16, first << 16 | 1, 77)[which]
            if session and not sequence % 3:
                raws.append(batch(ask_outcome(session, sequence + 1)))
            raws.append(batch(*operations, request=(session, sequence, 0) if session else None))
        log.append((command(*raws, time_ms=time_ms), first + len(log), 1))
    return log
