"""Reads at each level: who serves, what is proved first, what the evidence says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kv.errors import (
    BehindSession,
    KVError,
    LeaseRefused,
    NotLeader,
    Overloaded,
    ReplicaStopped,
    SnapshotGone,
    TooStale,
    Unavailable,
    WrongPartition,
)
from kv.partition.reads import PROOF_REFRESH_S
from kv.partition.scan_snapshots import ID_COUNTER_BITS
from kv.raft.api import ReadProof
from kv.v1 import kv_pb2
from tests.partition.tools import Bench, batch, delete, evidence, get, page, put, results, scan

LINEARIZABLE = kv_pb2.READ_LEVEL_LINEARIZABLE
LEASE = kv_pb2.READ_LEVEL_LEASE
SESSION = kv_pb2.READ_LEVEL_SESSION
BOUNDED = kv_pb2.READ_LEVEL_BOUNDED
STALE = kv_pb2.READ_LEVEL_STALE
QUORUM = kv_pb2.READ_LEVEL_QUORUM
ALL = kv_pb2.READ_LEVEL_ALL
LOCAL = kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LOCAL)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a leader with one key, k = v at index 3."""
    made = Bench(tmp_path / "p")
    made.ask(batch(put(b"k", b"v")))
    yield made
    made.crash()


@pytest.fixture
def follower(bench: Bench) -> Bench:
    """Give a follower with one key, k = v at index 3."""
    bench.group.depose()
    return bench


def read(level: int, **options: object) -> bytes:
    """Return a get of k at a level."""
    return batch(get(b"k"), level=level, read=kv_pb2.ReadOptions(**options))  # type: ignore[arg-type]


def after(index: int, partition: int = 7) -> bytes:
    """Return a get of k that must not be older than an index."""
    return read(SESSION, after=[kv_pb2.PartitionIndex(partition=partition, index=index)])


def value(outcome: bytes | KVError) -> bytes:
    """Return what a get found."""
    return results(outcome)[0].get.item.value


def only(answers: list[bytes | KVError]) -> bytes | KVError:
    """Return the one answer."""
    (answer,) = answers
    return answer


# --- LINEARIZABLE ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [LOCAL, kv_pb2.ReadOptions(node="n1")])
def test_follower_read(follower: Bench, options: kv_pb2.ReadOptions) -> None:
    """A follower that is asked for by place or name answers once the leader's read index is applied."""
    answers = follower.submit(batch(get(b"k"), read=options))
    assert answers == []
    follower.replica.pump()
    assert answers == []
    follower.group.confirm_reads(index=3)
    assert value(only(answers)) == b"v"
    assert evidence(only(answers)) == kv_pb2.Evidence(
        partition=7, map_epoch=9, term=2, index=3, node="n1", level=LINEARIZABLE, revision=3
    )


@pytest.mark.parametrize(
    "options",
    [None, kv_pb2.ReadOptions(node="n2"), kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LEADER)],
)
def test_follower_that_was_not_meant(follower: Bench, options: kv_pb2.ReadOptions | None) -> None:
    """A follower that was not asked for by place or name sends a linearizable read to the leader."""
    refused = only(follower.submit(batch(get(b"k"), read=options)))
    assert isinstance(refused, NotLeader)
    assert refused.metadata["leader"] == "n2"


def test_follower_read_without_proof(follower: Bench) -> None:
    """A follower whose leader does not answer refuses with NOT_LEADER, which is definite."""
    answers = follower.submit(batch(get(b"k"), read=LOCAL))
    follower.replica.pump()
    follower.group.confirm_reads()
    assert isinstance(only(answers), NotLeader)


def test_deposed_local_read_goes_on(bench: Bench) -> None:
    """A read for which it does not matter who leads is not refused when leadership is lost."""
    local, led = bench.submit(batch(get(b"k"), read=LOCAL)), bench.submit(batch(get(b"k")))
    bench.group.depose()
    assert isinstance(only(led), NotLeader)
    bench.replica.pump()
    bench.group.confirm_reads(index=3)
    assert value(only(local)) == b"v"


# --- LEASE -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("holds", "honoured"), [(True, LEASE), (False, LINEARIZABLE)])
def test_lease(bench: Bench, holds: bool, honoured: int) -> None:
    """A lease read asks for the lease; the evidence says whether it held or a round took its place."""
    bench.group.lease_holds = holds
    answers = bench.submit(read(LEASE))
    bench.replica.pump()
    assert [lease for _, _, lease in bench.group.reads] == [True]
    bench.group.confirm_reads()
    assert evidence(only(answers)).level == honoured


def test_lease_and_linearizable_do_not_mix(bench: Bench) -> None:
    """A linearizable read is never answered by the lease that a neighbour asked for."""
    bench.group.lease_holds = True
    leased, linear = bench.submit(read(LEASE)), bench.submit(read(LINEARIZABLE))
    bench.group.turn()
    assert [evidence(only(answers)).level for answers in (leased, linear)] == [LEASE, LINEARIZABLE]


def test_lease_refused(bench: Bench) -> None:
    """Where the configured clocks allow no lease the leader says so, and a follower names the leader."""
    bench.group.lease_allowed = False
    refused = only(bench.submit(read(LEASE)))
    assert isinstance(refused, LeaseRefused)
    assert refused.definite
    bench.group.depose()
    assert isinstance(only(bench.submit(read(LEASE))), NotLeader)
    bench.group.lease_allowed = True
    assert isinstance(only(bench.submit(batch(get(b"k"), level=LEASE, read=LOCAL))), NotLeader)


def test_lease_lost(bench: Bench) -> None:
    """A lease read whose leader is deposed reads nothing."""
    answers = bench.submit(read(LEASE))
    bench.replica.pump()
    bench.group.depose()
    bench.group.confirm_reads()
    assert isinstance(only(answers), NotLeader)


# --- SESSION -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [read(SESSION), after(3), after(99, partition=8)])
def test_session_reached(follower: Bench, raw: bytes) -> None:
    """A replica that has what the session saw answers at once, whoever leads."""
    answer = only(follower.submit(raw))
    assert (value(answer), evidence(answer).level, evidence(answer).index) == (b"v", SESSION, 3)


def test_session_waits(follower: Bench) -> None:
    """A read above what is applied waits until it is, and no longer."""
    answers = [follower.submit(after(index)) for index in (5, 4)]
    follower.replica.pump()
    for index in (4, 5):
        follower.group.log.append((b"\x01", index, 2))
        follower.group.commit()
        assert [len(answer) for answer in answers] == [int(index == 5), 1]
    assert [evidence(only(answer)).index for answer in answers] == [5, 4]


def test_session_behind(follower: Bench) -> None:
    """A replica that does not catch up in session_wait_ms says how far it is, and not before."""
    answers = follower.submit(after(4))
    follower.replica.pump()
    follower.replica.maybe_checkpoint(0.499)
    assert answers == []
    assert not follower.replica.overdue(0.499)
    assert follower.replica.overdue(0.5)
    follower.replica.maybe_checkpoint(0.5)
    assert not follower.replica.overdue(0.6)
    refused = only(answers)
    assert isinstance(refused, BehindSession)
    assert refused.definite
    assert refused.metadata == {"index": "4", "applied_index": "3"}


def test_session_waits_are_counted(tmp_path: Path) -> None:
    """Reads that wait take room among the pending requests, and give it back."""
    bench = Bench(tmp_path / "p", pending_requests_max=2)
    waiting = [bench.submit(after(9)) for _ in range(2)]
    bench.replica.pump()
    assert isinstance(only(bench.submit(after(9))), Overloaded)
    bench.replica.maybe_checkpoint(1.0)
    assert all(isinstance(only(answers), BehindSession) for answers in waiting)
    assert bench.submit(after(9)) == []
    bench.crash()


def test_session_wait_ends_with_the_replica(follower: Bench) -> None:
    """A read that waits is answered when everything that waits has to be, once."""
    answers = follower.submit(after(9))
    follower.replica.pump()
    follower.replica.reset_pending(Unavailable("stopping"))
    follower.replica.maybe_checkpoint(9.0)
    assert isinstance(only(answers), Unavailable)


def test_session_of_a_suspended_replica(follower: Bench) -> None:
    """A replica that is not pumped, since its log is full, still ends the reads that wait."""
    answers = follower.submit(after(9))
    follower.replica.maybe_checkpoint(0.0)
    follower.replica.maybe_checkpoint(1.0)
    assert isinstance(only(answers), BehindSession)


# --- BOUNDED -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age_s", "at_once"), [(0.1, True), (0.1001, False)])
def test_bounded_by_a_known_proof(follower: Bench, age_s: float, at_once: bool) -> None:
    """A proof of the allowed age serves at once; one a moment older does not."""
    follower.group.proof, follower.group.now = ReadProof(3, 10.0), 10.0 + age_s
    answers = follower.submit(read(BOUNDED, max_age_ms=100))
    if at_once:
        assert evidence(only(answers)).age_ms == 100
        assert evidence(only(answers)).level == BOUNDED
    else:
        assert answers == []


def test_bounded_by_a_round(follower: Bench) -> None:
    """Without a proof a round is made; its age counts from when it began, and is told."""
    follower.group.now = 5.0
    answers = follower.submit(read(BOUNDED, max_age_ms=50))
    follower.replica.pump()
    follower.group.now = 5.0301
    follower.group.confirm_reads(index=3)
    assert (value(only(answers)), evidence(only(answers)).age_ms) == (b"v", 31)


def test_bounded_too_stale(follower: Bench) -> None:
    """A round that takes longer than the bound, or that fails, ends in TOO_STALE."""
    slow = follower.submit(read(BOUNDED, max_age_ms=50))
    follower.replica.pump()
    follower.group.now = 0.051
    follower.group.confirm_reads(index=3)
    failed = follower.submit(read(BOUNDED, max_age_ms=20))
    follower.replica.pump()
    follower.group.confirm_reads()
    for answers in (slow, failed):
        refused = only(answers)
        assert isinstance(refused, TooStale)
        assert refused.definite
    assert only(slow).metadata == {"max_age_ms": "50"}  # type: ignore[union-attr]


def test_bounded_needs_the_index(follower: Bench) -> None:
    """A young proof of an index that is not applied here proves nothing of this replica; an older one still does."""
    follower.group.proof, follower.group.now = ReadProof(3, 1.0), 1.0
    assert evidence(only(follower.submit(read(BOUNDED, max_age_ms=1)))).age_ms == 0
    follower.group.proof, follower.group.now = ReadProof(4, 2.0), 2.0
    assert follower.submit(read(BOUNDED, max_age_ms=500)) == []
    assert evidence(only(follower.submit(read(BOUNDED, max_age_ms=1000)))).age_ms == 1000


def test_bounded_never_rests_on_a_lease(bench: Bench) -> None:
    """What a lease proved is not taken for the age of anything else."""
    bench.group.lease_holds = True
    bench.group.now = 1.0
    bench.ask(read(LEASE))
    bench.group.proof = None
    assert bench.submit(read(BOUNDED, max_age_ms=1000)) == []


# --- STALE, QUORUM, ALL, ages ------------------------------------------------------------------------


@pytest.mark.parametrize("level", [STALE, QUORUM, ALL])
def test_stale(follower: Bench, level: int) -> None:
    """Any replica answers at once with what it has; without a proof it claims no age."""
    answer = only(follower.submit(read(level)))
    assert (value(answer), evidence(answer).level) == (b"v", level)
    assert not evidence(answer).HasField("age_ms")


def test_ages_become_known(follower: Bench) -> None:
    """A stale read has a proof made, one at a time; the next one tells its age, rounded up."""
    for _ in range(3):
        follower.submit(read(STALE))
    assert len(follower.group.reads) == 1
    follower.group.confirm_reads(index=3)
    follower.group.now = 0.0501
    assert evidence(only(follower.submit(read(STALE)))).age_ms == 51
    assert follower.group.reads == [], "it is young enough"
    follower.group.now = PROOF_REFRESH_S * 1.01
    assert evidence(only(follower.submit(read(STALE)))).age_ms == 101
    assert len(follower.group.reads) == 1
    follower.group.confirm_reads()
    follower.submit(read(STALE))
    assert len(follower.group.reads) == 1, "a proof that failed is asked for again"


def test_age_of_what_is_not_applied(follower: Bench) -> None:
    """A proof of an index that is not applied here says nothing about the age of what is."""
    follower.group.proof, follower.group.now = ReadProof(4, 1.0), 1.5
    assert not evidence(only(follower.submit(read(STALE)))).HasField("age_ms")


def test_age_after_a_rollback(tmp_path: Path) -> None:
    """A state that fell back behind its proof is not called young."""
    bench = Bench(tmp_path / "p", map_bytes_initial=1 << 18, map_bytes_max=1 << 18)
    bench.ask(batch(put(b"k", b"v")))
    bench.replica.content_hasher()
    bench.ask(batch(put(b"k", b"w")))
    bench.group.proof = ReadProof(4, 0.0)
    assert evidence(only(bench.submit(read(STALE)))).HasField("age_ms")
    for n in range(60):
        bench.submit(batch(put(b"key%d" % n, bytes(8000))))
    bench.group.turn()
    assert bench.replica.store_full
    bench.group.proof = ReadProof(4, 0.0)
    answer = only(bench.submit(read(STALE)))
    assert (value(answer), evidence(answer).HasField("age_ms")) == (b"v", False)
    assert bench.submit(read(BOUNDED, max_age_ms=1000)) == []
    bench.crash()


def test_revision_of_reads(bench: Bench) -> None:
    """The evidence tells the highest revision among what was found, 0 for nothing."""
    bench.ask(batch(put(b"a", b""), put(b"b", b"")))
    bench.ask(batch(delete(b"b")))
    found = [
        evidence(bench.ask(batch(*operations))).revision
        for operations in ([get(b"k")], [get(b"a"), get(b"k")], [get(b"b")], [scan()], [scan(b"x")], [])
    ]
    assert found == [3, 4, 0, 4, 0, 0]


def test_levels_mind_the_door(tmp_path: Path) -> None:
    """Whatever the level, a key of another partition and a replica that stopped are refused."""
    bench = Bench(tmp_path / "p", owns=lambda key: key != b"k")
    for level in (LEASE, SESSION, STALE, QUORUM, ALL):
        assert isinstance(only(bench.submit(read(level))), WrongPartition)
    bench.replica.apply([(b"\x01", 9, 1)])
    for level in (LEASE, SESSION, STALE, QUORUM, ALL):
        assert isinstance(only(bench.submit(read(level))), ReplicaStopped)
    bench.crash()


def test_group_that_stopped(follower: Bench) -> None:
    """After the group was stopped nothing waits for a turn of it: what needs one is refused, the rest is served."""
    follower.replica.reset_pending(ReplicaStopped("the log contradicts itself"))
    for raw in (read(BOUNDED, max_age_ms=10), after(9), batch(get(b"k"), read=LOCAL)):
        assert isinstance(only(follower.submit(raw)), ReplicaStopped)
    assert value(only(follower.submit(read(STALE)))) == b"v"


# --- scans at one index ------------------------------------------------------------------------------


def fill(bench: Bench) -> None:
    """Write three pages of keys."""
    bench.ask(batch(*[put(b"key%02d" % n, b"old") for n in range(25)]))


def first_page(bench: Bench) -> kv_pb2.RangeResult:
    """Read the first page of a scan at one index."""
    return results(bench.ask(batch(page(b"key"))))[0].range


def following(snapshot: int, start: bytes) -> bytes:
    """Return the request for the page behind a key."""
    return batch(page(start + b"\0", snapshot=snapshot))


def test_scan_at_one_index(bench: Bench) -> None:
    """The pages of a scan are of one index, whatever is written between them, and their evidence says so."""
    fill(bench)
    result = first_page(bench)
    found, index, pages = list(result.items), 4, 1
    while result.more:
        pages += 1
        bench.ask(batch(put(b"key30", b"new"), put(b"key%02d" % (len(found) + 1), b"new"), delete(b"key24")))
        answer = only(bench.submit(following(result.snapshot, found[-1].key)))
        result = results(answer)[0].range
        found += result.items
        told = evidence(answer)
        assert (told.index, told.level, told.revision) == (index, LINEARIZABLE, index)
    assert [(item.key, item.value) for item in found] == [(b"key%02d" % n, b"old") for n in range(25)]
    assert (pages, result.snapshot, len(bench.replica._snapshots)) == (3, 0, 0)


def test_scan_of_one_page_keeps_nothing(bench: Bench) -> None:
    """A range that ends with its first page leaves no snapshot behind."""
    result = first_page(bench)
    assert (result.more, result.snapshot, len(bench.replica._snapshots)) == (False, 0, 0)


def test_scan_goes_on_at_a_deposed_leader(bench: Bench) -> None:
    """The index of a scan was proved when it began: its pages are served whoever leads now."""
    fill(bench)
    result = first_page(bench)
    bench.group.depose()
    answer = only(bench.submit(following(result.snapshot, result.items[-1].key)))
    assert [item.key for item in results(answer)[0].range.items] == [b"key%02d" % n for n in range(10, 20)]
    assert evidence(answer).term == 1


def test_scan_ages(follower: Bench) -> None:
    """The pages of a scan at a level that may be old grow older with time."""
    fill_log = batch(*[put(b"key%02d" % n, b"old") for n in range(25)])
    follower.group.elect()
    follower.ask(fill_log)
    follower.group.depose()
    follower.group.proof, follower.group.now = ReadProof(4, 1.0), 1.0
    first = only(follower.submit(batch(page(b"key"), level=STALE)))
    follower.group.now = 3.0
    follower.group.proof = ReadProof(4, 3.0)
    second = only(follower.submit(following(results(first)[0].range.snapshot, b"key09")))
    assert [evidence(answer).age_ms for answer in (first, second)] == [0, 2000]
    assert evidence(second).level == STALE


def test_scan_gone(bench: Bench) -> None:
    """A scan that stood still too long, or that is unknown here, is told so, with the cause."""
    fill(bench)
    result = first_page(bench)
    bench.group.now = 10.0
    bench.replica.maybe_checkpoint(10.0)
    for snapshot, cause in ((result.snapshot, "no page"), (7 << ID_COUNTER_BITS | 1, "does not know")):
        gone = only(bench.submit(following(snapshot, b"key09")))
        assert isinstance(gone, SnapshotGone)
        assert gone.definite
        assert cause in gone.metadata["cause"]


def test_scan_gone_with_the_state(tmp_path: Path) -> None:
    """A rollback of a full store drops the snapshots: the state does not follow from theirs any more."""
    bench = Bench(tmp_path / "p", map_bytes_initial=1 << 18)
    fill(bench)
    result = first_page(bench)
    for n in range(60):
        bench.submit(batch(put(b"k%d" % n, bytes(8000))))
    bench.group.turn()
    assert bench.replica.checkpoints_made > 0, "it was full, or this tests nothing"
    gone = only(bench.submit(following(result.snapshot, b"key09")))
    assert isinstance(gone, SnapshotGone)
    assert "full" in gone.metadata["cause"]
    bench.crash()


def test_scan_gone_after_an_install(tmp_path: Path) -> None:
    """A replica that takes over another's state has no scans of its own any more."""
    leader, other = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    fill(other)
    result = first_page(other)
    for _ in range(3):
        leader.ask(batch(put(b"k", b"v")))
    leader.replica.content_hasher()
    source = leader.replica.snapshot_source()
    source.prepare()
    sink = other.replica.snapshot_sink(source.index, source.total_bytes)
    sink.write(0, source.read(0, source.total_bytes))
    sink.finish()
    other.replica.install(sink, source.index)
    assert other.replica.failure is None
    gone = only(other.submit(following(result.snapshot, b"key09")))
    assert isinstance(gone, SnapshotGone)
    assert "took over" in gone.metadata["cause"]
    source.close()
    leader.crash()
    other.crash()


def test_scan_survives_a_checkpoint(bench: Bench) -> None:
    """A checkpoint in the middle of a scan changes nothing for it."""
    fill(bench)
    result = first_page(bench)
    bench.ask(batch(delete(b"key10"), put(b"key11", b"new")))
    bench.replica.content_hasher()
    answer = only(bench.submit(following(result.snapshot, b"key09")))
    items = results(answer)[0].range.items
    assert [(item.key, item.value) for item in items] == [(b"key%02d" % n, b"old") for n in range(10, 20)]
