"""The replica: the fate of requests, their repetitions, and failures."""

from __future__ import annotations

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
    put,
    results,
    scan,
    txn,
)


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


def test_range_page(bench: Bench) -> None:
    """A range is answered page by page, and refused beside a write."""
    bench.ask(batch(*[put(b"k%02d" % n, b"v") for n in range(15)]))
    page = results(bench.ask(batch(scan())))[0].range
    assert [item.key for item in page.items] == [b"k%02d" % n for n in range(10)]
    assert page.more
    mixed = results(bench.ask(batch(scan(), put(b"k", b"v"))))
    assert mixed[0].error.reason == "INVALID_ARGUMENT"
    assert mixed[1].put.version == 1


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
