"""How writes are answered: level ALL, revisions, repetitions, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kv.errors import (
    KVError,
    NotOnAllReplicas,
    OutcomeDecided,
    Overloaded,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
    from_proto,
)
from kv.outcome import OutcomeToken
from kv.partition.acknowledgement import ALL_TIMEOUT_FACTOR_MAX
from kv.v1 import kv_pb2
from tests.partition.tools import (
    Bench,
    Op,
    append,
    ask_outcome,
    batch,
    delete,
    evidence,
    get,
    increment,
    open_session,
    put,
    results,
    txn,
)

ALL = kv_pb2.WRITE_LEVEL_ALL


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a leader whose replica n3 lags."""
    made = Bench(tmp_path / "p")
    made.group.lagging = ("n3",)
    yield made
    made.crash()


def to_all(*operations: Op, timeout_ms: int = 0, request: tuple[int, int, int] | None = None) -> bytes:
    """Return a batch at level ALL."""
    return batch(*operations, write_level=ALL, all_timeout_ms=timeout_ms, request=request)


def only(answers: list[bytes | KVError]) -> bytes | KVError:
    """Return the one answer."""
    (answer,) = answers
    return answer


def stands(answers: list[bytes | KVError], revision: int, missing: str) -> None:
    """Assert that the answer says: applied, and not proved to be everywhere."""
    error = only(answers)
    assert isinstance(error, NotOnAllReplicas)
    assert error.applied
    assert not error.definite
    assert error.metadata == {"revision": str(revision), "missing": missing}


# --- level ALL ---------------------------------------------------------------------------------------


def test_waits_for_every_disk(bench: Bench) -> None:
    """A write at level ALL is answered when every replica has it on disk, and not before."""
    answers, plain = bench.submit(to_all(put(b"k", b"v"))), bench.submit(batch(put(b"j", b"v")))
    bench.group.turn()
    assert (answers, len(plain)) == ([], 1)
    bench.group.all_durable_index = 2
    bench.replica.maybe_checkpoint(0.1)
    assert answers == []
    bench.group.all_durable_index = 3
    bench.replica.maybe_checkpoint(0.1)
    assert results(only(answers))[0].put.revision == 3
    assert evidence(only(answers)).revision == 3
    bench.replica.maybe_checkpoint(9.0)
    assert len(answers) == 1


def test_answered_at_once_if_proved(bench: Bench) -> None:
    """A write that every replica had on disk before it was applied here does not wait."""
    bench.group.all_durable_index = 3
    assert isinstance(bench.ask(to_all(put(b"k", b"v"))), bytes)


def test_all_write_timeout(bench: Bench) -> None:
    """After all_write_timeout_ms the caller is told that the write stands, its revision, and who is missing."""
    answers = bench.submit(to_all(put(b"k", b"v")))
    bench.group.turn()
    bench.replica.maybe_checkpoint(0.999)
    assert answers == []
    bench.replica.maybe_checkpoint(1.0)
    stands(answers, 3, "n3")
    assert results(bench.ask(batch(get(b"k"))))[0].get.item.value == b"v"


@pytest.mark.parametrize(
    ("timeout_ms", "expected_s"), [(250, 0.25), (5000, 5.0), (10_000_000, float(ALL_TIMEOUT_FACTOR_MAX))]
)
def test_asked_patience(bench: Bench, timeout_ms: int, expected_s: float) -> None:
    """The request's own patience counts, up to a multiple of the configured one."""
    answers = bench.submit(to_all(put(b"k", b"v"), timeout_ms=timeout_ms))
    bench.group.turn()
    bench.replica.maybe_checkpoint(expected_s - 0.001)
    assert answers == []
    bench.replica.maybe_checkpoint(expected_s)
    stands(answers, 3, "n3")


def test_leadership_lost(bench: Bench) -> None:
    """A leader that is deposed cannot prove it any more: the write stands, and nobody is named."""
    answers = bench.submit(to_all(put(b"k", b"v")))
    bench.group.turn()
    bench.group.depose()
    stands(answers, 3, "")


def test_applied_after_leadership_was_lost(bench: Bench) -> None:
    """A write that is applied only after its leader was deposed stands all the same, and says so at once."""
    answers = bench.submit(to_all(put(b"k", b"v")))
    bench.replica.pump()
    bench.group.depose()
    assert answers == []
    bench.group.commit()
    stands(answers, 3, "")


def test_replica_stops(bench: Bench) -> None:
    """A replica that ends everything that waits still tells of an applied write that it was applied."""
    answers = bench.submit(to_all(put(b"k", b"v")))
    bench.group.turn()
    bench.replica.reset_pending(Unavailable("stopping"))
    stands(answers, 3, "n3")


def test_held_answers_are_counted(tmp_path: Path) -> None:
    """Answers that are held back take room among the pending requests, and give it back."""
    bench = Bench(tmp_path / "p", pending_requests_max=1)
    answers = bench.submit(to_all(put(b"k", b"v")))
    bench.group.turn()
    assert isinstance(only(bench.submit(batch(put(b"k", b"w")))), Overloaded)
    bench.group.all_durable()
    bench.replica.maybe_checkpoint(0.0)
    assert isinstance(only(answers), bytes)
    assert bench.submit(batch(put(b"k", b"w"))) == []
    bench.crash()


COMPARE = kv_pb2.Compare(key=b"text", version=9)
"""It does not hold."""


@pytest.mark.parametrize("refused", [put(b"k", b"v", present=True), increment(b"text"), put(b"", b"")])
def test_refused_write_waits_for_nobody(bench: Bench, refused: Op) -> None:
    """A write that was refused is nowhere: it is answered at once, never as one that stands."""
    bench.ask(batch(put(b"text", b"text")))
    answer = bench.ask(to_all(refused))
    assert results(answer)[0].error.definite


def test_some_refused(bench: Bench) -> None:
    """A batch of which anything was written waits."""
    answers = bench.submit(to_all(put(b"k", b"v", present=True), put(b"j", b"v")))
    bench.group.turn()
    assert answers == []
    bench.group.all_durable()
    bench.replica.maybe_checkpoint(0.0)
    assert [result.WhichOneof("result") for result in results(only(answers))] == ["error", "put"]


@pytest.mark.parametrize(
    "idle",
    [
        delete(b"nothing"),
        txn([COMPARE], [put(b"k", b"v")]),
        txn([COMPARE], [put(b"k", b"v")], [get(b"text"), delete(b"nothing")]),
        txn((), [txn([COMPARE], [put(b"k", b"v")])]),
    ],
)
def test_what_changed_nothing_waits_for_nobody(bench: Bench, idle: Op) -> None:
    """A transaction whose condition failed, or a delete that found nothing, is never told that it was applied."""
    bench.ask(batch(put(b"text", b"text")))
    answer = bench.ask(to_all(idle, put(b"k", b"v", present=True)))
    assert [result.WhichOneof("result") for result in results(answer)] == [
        idle.WhichOneof("operation"),
        "error",
    ]
    assert evidence(answer).index == 4


def test_what_failed_is_not_said_to_stand(bench: Bench) -> None:
    """Of a batch that is not everywhere in time only the operations that wrote are told so, each by itself."""
    bench.ask(batch(put(b"text", b"text")))
    operations = (
        put(b"k", b"v"),
        put(b"k", b"w", absent=True),
        get(b"k"),
        delete(b"text"),
        delete(b"nothing"),
        txn([COMPARE], [put(b"k", b"v")]),
        txn([COMPARE], [], [append(b"k", b"x")]),
        increment(b"k"),
    )
    answers = bench.submit(to_all(*operations))
    bench.group.turn()
    assert answers == []
    bench.replica.maybe_checkpoint(1.0)
    told = results(only(answers))
    kinds = [
        result.error.reason if result.HasField("error") else result.WhichOneof("result") for result in told
    ]
    stands_short = "NOT_ON_ALL_REPLICAS"
    assert kinds == [
        stands_short, "CONDITION_FAILED", "get", stands_short, "delete", "txn", stands_short, "NOT_AN_INTEGER",
    ]  # fmt: skip
    assert told[2].get.item.value == b"v"
    error = from_proto(told[0].error)
    assert error.applied
    assert error.metadata == {"revision": "4", "missing": "n3"}
    assert (evidence(only(answers)).index, evidence(only(answers)).revision) == (4, 4)


def test_session_errors_wait_for_nobody(bench: Bench) -> None:
    """What a session refuses is answered at once."""
    assert isinstance(bench.ask(to_all(put(b"k", b"v"), request=(99, 1, 0))), SessionExpired)


def test_repetition_waits_again(bench: Bench) -> None:
    """A write that was not everywhere in time may be sent again: it is not applied again, and waits again."""
    session = bench.open_session()
    raw = to_all(increment(b"n"), request=(session, 1, 0))
    first = bench.submit(raw)
    bench.group.turn()
    bench.replica.maybe_checkpoint(1.0)
    stands(first, 4, "n3")
    bench.group.now = 1.0
    again = bench.submit(raw)
    bench.group.turn()
    assert again == []
    bench.group.all_durable()
    bench.replica.maybe_checkpoint(1.1)
    assert results(only(again))[0].increment.value == 1
    assert (evidence(only(again)).index, evidence(only(again)).revision) == (5, 4)


# --- revisions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [put(b"k", b"v"), delete(b"k"), increment(b"n"), append(b"k", b"v"), txn((), [put(b"k", b"v")])],
)
def test_revision_of_writes(bench: Bench, operation: Op) -> None:
    """The evidence of a write tells its revision; that of a repetition tells the revision of the first time."""
    assert evidence(bench.ask(batch(operation))).revision == 3
    session = bench.open_session()
    raw = batch(operation, request=(session, 1, 0))
    told = [evidence(bench.ask(raw)) for _ in range(2)]
    assert [(one.index, one.revision) for one in told] == [(5, 5), (6, 5)]


def test_without_a_revision(bench: Bench) -> None:
    """Opening a session and asking for an outcome write nothing that has a revision."""
    for operation in (open_session(), ask_outcome(1, 1)):
        assert evidence(bench.ask(batch(operation))).revision == 0


# --- outcomes ----------------------------------------------------------------------------------------


def test_token_of_an_unknown_outcome(bench: Bench) -> None:
    """A write with a session whose fate is not known carries the token by which to ask; one without carries none."""
    session = bench.open_session()
    named = bench.submit(batch(put(b"k", b"v"), request=(session, 4, 0)))
    nameless = bench.submit(batch(put(b"j", b"v")))
    bench.replica.pump()
    bench.replica.reset_pending(Unavailable("stopping"))
    for answers in (named, nameless):
        assert isinstance(only(answers), UnknownOutcome)
    token = only(named).token  # type: ignore[union-attr]
    assert token is not None
    assert OutcomeToken.parse(token) == OutcomeToken(7, session, 4)
    assert only(nameless).token is None  # type: ignore[union-attr]


def test_outcome_overtakes_the_write(bench: Bench) -> None:
    """Of a write and a query of its outcome the one that is logged first decides, and both agree."""
    session = bench.open_session()
    for sequence, query_first in ((1, True), (2, False)):
        write = batch(increment(b"n"), request=(session, sequence, 0))
        query = batch(ask_outcome(session, sequence))
        order = [query, write] if query_first else [write, query]
        answers = [bench.submit(raw) for raw in order]
        bench.group.turn()
        told = results(only(answers[0 if query_first else 1]))[0].outcome
        done = only(answers[1 if query_first else 0])
        if query_first:
            assert told.outcome == kv_pb2.WRITE_OUTCOME_NOT_APPLIED
            assert isinstance(done, OutcomeDecided)
        else:
            assert told.outcome == kv_pb2.WRITE_OUTCOME_APPLIED
            assert list(told.results) == results(done)


def test_fence_survives_a_restart(tmp_path: Path) -> None:
    """What was declared not applied stays so through a checkpoint and a crash."""
    bench = Bench(tmp_path / "p")
    session = bench.open_session()
    bench.ask(batch(ask_outcome(session, 1)))
    bench.replica.content_hasher()
    bench.crash()
    again = Bench(tmp_path / "p", log=bench.group.log)
    assert again.replica.applied_index == 4
    assert isinstance(again.ask(batch(put(b"k", b"v"), request=(session, 1, 0))), OutcomeDecided)
    assert again.store.get(b"k") is None
    again.crash()
