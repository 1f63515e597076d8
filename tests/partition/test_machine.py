"""What commands do to the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import KVError
from kv.ids import REQUEST_BYTES_MAX, VALUE_BYTES_MAX
from kv.partition.batch import BATCH_OPERATIONS_MAX, decode_batch
from kv.partition.machine import INTEGER_MAX, INTEGER_MIN, RESULT_BYTES_MAX, Repeated, apply_command
from kv.partition.session import SessionLimits, SessionTable
from kv.v1 import kv_pb2
from tests.partition.tools import (
    DictState,
    Op,
    append,
    ask_outcome,
    batch,
    delete,
    get,
    increment,
    open_session,
    put,
    results,
    txn,
)

LIMITS = SessionLimits(sessions_max=3, session_results_max=4, session_result_bytes_max=10_000, ttl_ms=1000)


class Machine:
    """A state with its sessions and the next index."""

    def __init__(self) -> None:
        self.state = DictState()
        self.sessions = SessionTable(LIMITS)
        self.index = 10
        self.time_ms = 0

    def command(self, *raws: bytes) -> list[bytes | KVError]:
        """Apply one command of these batches."""
        self.index += 1
        batches = [decode_batch(raw) for raw in raws]
        return apply_command(self.state, self.sessions, self.index, self.time_ms, batches)

    def do(self, *operations: Op) -> list[kv_pb2.OperationResult]:
        """Apply one command of one batch and return its results."""
        return results(self.command(batch(*operations))[0])


def test_history_of_a_key() -> None:
    """Revisions are log indexes, the version counts writes, and a deleted key begins anew."""
    machine = Machine()
    assert machine.do(put(b"k", b"1"))[0].put == kv_pb2.PutResult(revision=11, version=1)
    assert machine.do(put(b"k", b"2"), put(b"k", b"3"))[1].put == kv_pb2.PutResult(revision=12, version=3)
    item = machine.do(get(b"k"))[0].get.item
    assert item == kv_pb2.KeyValue(key=b"k", value=b"3", create_revision=11, mod_revision=12, version=3)
    assert machine.do(delete(b"k"))[0].delete == kv_pb2.DeleteResult(deleted=True, revision=14)
    assert machine.do(delete(b"k"))[0].delete == kv_pb2.DeleteResult(deleted=False, revision=15)
    assert machine.do(put(b"k", b"4"), get(b"k"))[1].get.item.create_revision == 16


def test_one_revision_for_a_command() -> None:
    """All writes of one command share its revision, over batches too; versions go on counting."""
    machine = Machine()
    outcomes = machine.command(batch(put(b"k", b"1")), batch(put(b"k", b"2"), put(b"j", b"3")))
    written = [result.put for outcome in outcomes for result in results(outcome)]
    assert [(result.revision, result.version) for result in written] == [(11, 1), (11, 2), (11, 1)]


@pytest.mark.parametrize(
    ("condition", "missing", "present"),
    [
        ({"absent": True}, True, False),
        ({"present": True}, False, True),
        ({"revision": 0}, True, False),
        ({"revision": 11}, False, True),
        ({"revision": 12}, False, False),
        ({"value": b"v"}, False, True),
        ({"value": b""}, False, False),
    ],
)
def test_conditions(condition: dict[str, Any], missing: bool, present: bool) -> None:
    """A write happens only if its condition holds; else CONDITION_FAILED names the current revision."""
    for operation in (put(b"k", b"new", **condition), delete(b"k", **condition)):
        for holds, revision in ((missing, 0), (present, 11)):
            machine = Machine()
            if revision:
                machine.do(put(b"k", b"v"))
            before = dict(machine.state.records)
            (result,) = machine.do(operation)
            if holds:
                assert result.WhichOneof("result") != "error"
                continue
            assert (result.error.reason, result.error.definite) == ("CONDITION_FAILED", True)
            assert [(one.key, one.value) for one in result.error.details] == [("revision", str(revision))]
            assert machine.state.records == before


def test_batch_is_not_atomic() -> None:
    """A failed operation leaves the others of its batch alone."""
    machine = Machine()
    got = machine.do(put(b"a", b"1"), put(b"", b""), put(b"a", b"2", absent=True), put(b"b", b"3"))
    assert [result.WhichOneof("result") for result in got] == ["put", "error", "error", "put"]
    assert set(machine.state.records) == {b"a", b"b"}


COMPARES: list[tuple[dict[str, Any], bool, bool]] = [
    ({"value": b"v"}, False, True),
    ({"value": b"v", "comparator": kv_pb2.COMPARATOR_NOT_EQUAL}, True, False),
    ({"value": b"w", "comparator": kv_pb2.COMPARATOR_LESS}, False, True),
    ({"value": b"a", "comparator": kv_pb2.COMPARATOR_GREATER}, False, True),
    ({"value": b"", "comparator": kv_pb2.COMPARATOR_EQUAL}, False, False),
    ({"mod_revision": 0}, True, False),
    ({"mod_revision": 11}, False, True),
    ({"create_revision": 12, "comparator": kv_pb2.COMPARATOR_LESS}, True, True),
    ({"version": 0, "comparator": kv_pb2.COMPARATOR_GREATER}, False, True),
    ({"exists": True}, False, True),
    ({"exists": False}, True, False),
    ({"exists": True, "comparator": kv_pb2.COMPARATOR_NOT_EQUAL}, True, False),
]


@pytest.mark.parametrize(("compare", "missing", "present"), COMPARES)
def test_compares(compare: dict[str, Any], missing: bool, present: bool) -> None:
    """A missing key has revision and version 0, does not exist, and has no value that is equal to any."""
    for holds, exists in ((missing, False), (present, True)):
        machine = Machine()
        if exists:
            machine.do(put(b"k", b"v"))
        (result,) = machine.do(txn([kv_pb2.Compare(key=b"k", **compare)]))
        assert result.txn.succeeded == holds


def test_txn_chooses_one_list() -> None:
    """Exactly one list is applied, in order, each operation seeing the ones before."""
    machine = Machine()
    absent = kv_pb2.Compare(key=b"k", exists=False)
    operation = txn([absent], [put(b"k", b"then"), get(b"k")], [delete(b"k"), get(b"k")])
    first = machine.do(operation)[0].txn
    assert (first.succeeded, first.revision) == (True, 11)
    assert first.results[1].get.item.value == b"then"
    second = machine.do(operation)[0].txn
    assert (second.succeeded, second.results[0].delete.deleted) == (False, True)
    assert not second.results[1].get.HasField("item")


def test_every_compare_must_hold() -> None:
    """One compare that fails makes the transaction take the other list."""
    machine = Machine()
    compares = [kv_pb2.Compare(key=b"a", exists=False), kv_pb2.Compare(key=b"b", exists=True)]
    assert not machine.do(txn(compares, [put(b"a", b"")]))[0].txn.succeeded
    assert not machine.state.records


def test_refused_txn_applies_nothing() -> None:
    """A transaction with a bad operation in either list changes nothing."""
    machine = Machine()
    got = machine.do(txn((), [put(b"a", b""), put(b"b", bytes(VALUE_BYTES_MAX + 1))]), put(b"c", b""))
    assert got[0].error.reason == "VALUE_TOO_LARGE"
    assert set(machine.state.records) == {b"c"}


def test_response_is_bounded() -> None:
    """Gets beyond the response's bound fail with a definite error; what they stand beside is still applied."""
    machine = Machine()
    for n in range(4):
        machine.do(put(b"%d" % n, bytes(VALUE_BYTES_MAX - 100)))
    got = machine.do(*[get(b"%d" % n) for n in range(4)], put(b"k", b"v"))
    assert [result.WhichOneof("result") for result in got] == ["get", "get", "get", "error", "put"]
    assert (got[3].error.reason, got[3].error.definite) == ("REQUEST_TOO_LARGE", True)
    inside = machine.do(txn((), [*[get(b"%d" % n) for n in range(4)], put(b"k", b"w")]))[0].txn.results
    assert [result.WhichOneof("result") for result in inside] == ["get", "get", "get", "error", "put"]


def test_worst_response_fits() -> None:
    """The most and largest results of one batch stay within a request's limit."""
    machine = Machine()
    (conflict,) = machine.command(batch(put(b"k", b"", revision=2**64 - 1)))
    (deleted,) = machine.command(batch(put(b"k", b""), delete(b"k")))
    machine.do(put(b"max", b"%d" % INTEGER_MAX), put(b"text", b"text"))
    failed = [machine.command(batch(operation))[0] for operation in FAILING.values()]
    for outcome in (conflict, deleted, *failed):
        assert isinstance(outcome, bytes)
        assert RESULT_BYTES_MAX + BATCH_OPERATIONS_MAX * (len(outcome) + 40) < REQUEST_BYTES_MAX


def test_open_session() -> None:
    """Each open of one command gets an id of its own, and tells the time to live."""
    machine = Machine()
    outcomes = machine.command(batch(open_session()), batch(put(b"k", b"v")), batch(open_session()))
    opened = [results(outcomes[n])[0].open_session for n in (0, 2)]
    assert opened == [
        kv_pb2.OpenSessionResult(session=11 << 16, ttl_ms=1000),
        kv_pb2.OpenSessionResult(session=11 << 16 | 2, ttl_ms=1000),
    ]


@pytest.mark.parametrize(
    ("request_id", "reason", "definite"),
    [
        ((99, 1, 0), "SESSION_EXPIRED", True),
        ((11 << 16, 1, 0), "RESULT_EVICTED", False),
        ((11 << 16, 2, 0), "RESULT_EVICTED", False),
    ],
)
def test_session_errors(request_id: tuple[int, int, int], reason: str, definite: bool) -> None:
    """A request that the table cannot answer is refused whole with its own error and not applied."""
    machine = Machine()
    machine.command(batch(open_session()))
    session = 11 << 16
    for sequence in range(1, 6):
        machine.command(batch(put(b"a", b"v"), request=(session, sequence, 0)))
    machine.command(batch(put(b"a", b"v"), request=(session, 6, 1)))  # tombstones 2, acknowledges 1
    (outcome,) = machine.command(batch(put(b"b", b"v"), request=request_id))
    assert isinstance(outcome, KVError)
    assert (outcome.reason, outcome.definite) == (reason, definite)
    assert b"b" not in machine.state.records


def test_forgotten_sequence() -> None:
    """A sequence so old that its fate is unknown ends in UNKNOWN_OUTCOME and is not applied."""
    machine = Machine()
    machine.command(batch(open_session()))
    for sequence in range(2, 12):  # the first is late
        machine.command(batch(put(b"a", b"v"), request=(11 << 16, sequence, 0)))
    (outcome,) = machine.command(batch(put(b"late", b"v"), request=(11 << 16, 1, 0)))
    assert isinstance(outcome, KVError)
    assert (outcome.reason, outcome.definite) == ("UNKNOWN_OUTCOME", False)
    assert b"late" not in machine.state.records


def reason(result: kv_pb2.OperationResult) -> str:
    """Return the reason of a failed operation, which must be definite."""
    assert result.error.definite, result
    return result.error.reason


def test_increment() -> None:
    """A counter begins at 0, counts up and down, and is kept as decimal text with revision and version."""
    machine = Machine()
    assert machine.do(increment(b"n", 5))[0].increment == kv_pb2.IncrementResult(
        value=5, revision=11, version=1
    )
    assert machine.do(increment(b"n", -7))[0].increment == kv_pb2.IncrementResult(
        value=-2, revision=12, version=2
    )
    item = machine.do(get(b"n"))[0].get.item
    assert (item.value, item.create_revision, item.mod_revision) == (b"-2", 11, 12)


@pytest.mark.parametrize(
    ("start", "delta", "total"),
    [
        (INTEGER_MAX - 1, 1, INTEGER_MAX),
        (INTEGER_MAX, 1, None),
        (INTEGER_MIN + 1, -1, INTEGER_MIN),
        (INTEGER_MIN, -1, None),
        (INTEGER_MIN, INTEGER_MAX, -1),
    ],
)
def test_increment_overflow(start: int, delta: int, total: int | None) -> None:
    """A sum within a signed 64-bit integer is written; one beyond is a definite error, and nothing is."""
    machine = Machine()
    machine.do(put(b"n", b"%d" % start))
    (result,) = machine.do(increment(b"n", delta))
    if total is not None:
        assert result.increment.value == total
        return
    assert reason(result) == "INTEGER_OVERFLOW"
    assert machine.do(get(b"n"))[0].get.item.version == 1


@pytest.mark.parametrize(
    "text",
    [b"", b"x", b"+1", b"01", b"-0", b" 1", b"1\n", b"1.0", b"9223372036854775808", b"-9223372036854775809", b"9" * 25],
)  # fmt: skip
def test_not_an_integer(text: bytes) -> None:
    """A value that is no signed 64-bit integer in its shortest decimal form is left alone with a definite error."""
    machine = Machine()
    machine.do(put(b"n", text))
    assert reason(machine.do(increment(b"n"))[0]) == "NOT_AN_INTEGER"
    assert machine.do(get(b"n"))[0].get.item.value == text


def test_append() -> None:
    """Bytes go to the end of the value; a key that does not exist counts as empty."""
    machine = Machine()
    assert machine.do(append(b"k", b"ab"))[0].append == kv_pb2.AppendResult(length=2, revision=11, version=1)
    assert machine.do(append(b"k", b""), append(b"k", b"c"))[1].append == kv_pb2.AppendResult(
        length=3, revision=12, version=3
    )
    assert machine.do(get(b"k"))[0].get.item.value == b"abc"


def test_append_too_large() -> None:
    """A value may grow up to the limit exactly; one byte more is a definite error, and nothing is written."""
    machine = Machine()
    machine.do(put(b"k", bytes(VALUE_BYTES_MAX - 1)))
    assert machine.do(append(b"k", b"1"))[0].append.length == VALUE_BYTES_MAX
    assert reason(machine.do(append(b"k", b"2"))[0]) == "VALUE_TOO_LARGE"
    assert machine.do(get(b"k"))[0].get.item.version == 2


def test_conditions_of_counters_and_lists() -> None:
    """Increments and appends take conditions as puts do."""
    machine = Machine()
    for operation in (increment(b"n", 1, present=True), append(b"k", b"v", revision=5)):
        assert reason(machine.do(operation)[0]) == "CONDITION_FAILED"
    assert not machine.state.records
    machine.do(increment(b"n", 1, absent=True), append(b"k", b"v", revision=0))
    assert set(machine.state.records) == {b"n", b"k"}


def test_previous() -> None:
    """A put or delete tells what the key held before if it is asked to, and nothing if there was nothing."""
    machine = Machine()
    assert not machine.do(put(b"k", b"1", previous=True))[0].put.HasField("previous")
    before = kv_pb2.KeyValue(key=b"k", value=b"1", create_revision=11, mod_revision=11, version=1)
    replaced = machine.do(put(b"k", b"2", previous=True))[0].put
    assert replaced == kv_pb2.PutResult(revision=12, version=2, previous=before)
    removed = machine.do(delete(b"k", previous=True))[0].delete
    assert (removed.deleted, removed.previous.value) == (True, b"2")
    assert machine.do(delete(b"k", previous=True))[0].delete == kv_pb2.DeleteResult(revision=14)
    assert reason(machine.do(put(b"k", b"3", previous=True, present=True))[0]) == "CONDITION_FAILED"


def test_previous_is_bounded() -> None:
    """A write whose previous value has no room in the response fails definitely and is not done."""
    machine = Machine()
    for n in range(4):
        machine.do(put(b"%d" % n, bytes(VALUE_BYTES_MAX - 100)))
    got = machine.do(*[put(b"%d" % n, b"new", previous=True) for n in range(4)])
    assert [result.WhichOneof("result") for result in got] == ["put", "put", "put", "error"]
    assert reason(got[3]) == "REQUEST_TOO_LARGE"
    assert len(machine.do(get(b"3"))[0].get.item.value) == VALUE_BYTES_MAX - 100


FAILING = {
    "INTEGER_OVERFLOW": increment(b"max"),
    "NOT_AN_INTEGER": increment(b"text"),
    "VALUE_TOO_LARGE": append(b"text", bytes(VALUE_BYTES_MAX)),
}


@pytest.mark.parametrize("expected", FAILING)
@pytest.mark.parametrize("nested", [False, True])
def test_failing_transaction(expected: str, nested: bool) -> None:
    """A transaction with an operation that fails, nested or not, fails whole with that error and writes nothing."""
    machine = Machine()
    machine.do(put(b"max", b"%d" % INTEGER_MAX), put(b"text", b"text"), put(b"gone", b""))
    before = dict(machine.state.records)
    bad = FAILING[expected]
    steps = [
        put(b"new", b"1"),
        delete(b"gone"),
        increment(b"n"),
        txn((), [put(b"x", b""), bad]) if nested else bad,
    ]
    got = machine.do(txn((), steps), put(b"after", b""))
    assert [reason(got[0]), got[1].put.version] == [expected, 1]
    assert set(machine.state.records) == {*before, b"after"}
    assert {key: machine.state.records[key] for key in before} == before


def test_transaction_that_could_fail() -> None:
    """A transaction on an overlay sees its own writes and leaves all of them."""
    machine = Machine()
    machine.do(put(b"old", b"1"), put(b"n", b"41"))
    absent = kv_pb2.Compare(key=b"made", exists=False)
    done = machine.do(
        txn(
            [absent],
            [
                put(b"made", b"x"),
                append(b"made", b"y"),
                delete(b"old"),
                increment(b"n"),
                txn([absent], [put(b"wrong", b"")], [increment(b"n"), get(b"made"), delete(b"made")]),
                get(b"made"),
            ],
        )
    )[0].txn
    assert (done.succeeded, done.results[3].increment.value) == (True, 42)
    inner = done.results[4].txn
    assert (inner.succeeded, inner.results[0].increment.value) == (False, 43)
    assert inner.results[1].get.item.value == b"xy"
    assert not done.results[5].get.HasField("item")
    assert set(machine.state.records) == {b"n"}


def test_only_the_chosen_list_can_fail_it() -> None:
    """What stands in the list that was not chosen fails nothing."""
    machine = Machine()
    machine.do(put(b"text", b"text"))
    done = machine.do(txn((), [put(b"k", b"v")], [increment(b"text")]))[0]
    assert done.txn.succeeded
    assert b"k" in machine.state.records


def test_response_of_a_failed_transaction_is_free() -> None:
    """What a failed transaction would have answered takes no room from those after it."""
    machine = Machine()
    for n in range(3):
        machine.do(put(b"%d" % n, bytes(VALUE_BYTES_MAX - 100)))
    machine.do(put(b"text", b"text"))
    reads = [get(b"%d" % n) for n in range(3)]
    got = machine.do(txn((), [*reads, increment(b"text")]), *reads)
    assert [result.WhichOneof("result") for result in got] == ["error", "get", "get", "get"]


def outcome_of(machine: Machine, session: int, sequence: int) -> kv_pb2.OutcomeResult:
    """Ask what became of a request."""
    return machine.do(ask_outcome(session, sequence))[0].outcome


def test_outcome_of_an_applied_write() -> None:
    """An applied write is answered as such with its results, again and again; without them once they are evicted."""
    machine = Machine()
    machine.command(batch(open_session()))
    session = 11 << 16
    (first,) = machine.command(batch(increment(b"n"), put(b"k", b"v"), request=(session, 1, 0)))
    for _ in range(2):
        told = outcome_of(machine, session, 1)
        assert told.outcome == kv_pb2.WRITE_OUTCOME_APPLIED
        assert list(told.results) == results(first)
    for sequence in range(2, 7):
        machine.command(batch(put(b"k", b"v"), request=(session, sequence, 0)))
    assert outcome_of(machine, session, 1) == kv_pb2.OutcomeResult(outcome=kv_pb2.WRITE_OUTCOME_APPLIED)


def test_outcome_decides() -> None:
    """A write that was not applied when it was asked for is refused for good, and says so each time."""
    machine = Machine()
    machine.command(batch(open_session()))
    late = batch(put(b"late", b"v"), request=(11 << 16, 1, 0))
    for _ in range(2):
        assert outcome_of(machine, 11 << 16, 1).outcome == kv_pb2.WRITE_OUTCOME_NOT_APPLIED
        (refused,) = machine.command(late)
        assert isinstance(refused, KVError)
        assert (refused.reason, refused.definite) == ("OUTCOME_DECIDED", True)
        assert refused.metadata == {"session": str(11 << 16), "sequence": "1"}
    assert not machine.state.records


def test_outcome_unknown() -> None:
    """Of a session that does not exist or an acknowledged request nothing is known."""
    machine = Machine()
    machine.command(batch(open_session()))
    machine.command(batch(put(b"k", b"v"), request=(11 << 16, 2, 1)))
    for session, sequence in ((99, 1), (11 << 16, 1)):
        assert outcome_of(machine, session, sequence).outcome == kv_pb2.WRITE_OUTCOME_UNKNOWN


def test_largest_outcome_fits() -> None:
    """The outcome of the largest response fits into one."""
    machine = Machine()
    machine.sessions.limits = SessionLimits(3, 4, 16 << 20, 1000)
    machine.command(batch(open_session()))
    for n in range(3):
        machine.do(put(b"%d" % n, bytes(VALUE_BYTES_MAX - 100)))
    reads = [get(b"%d" % n) for n in range(3)]
    machine.command(batch(*reads, put(b"k", b""), request=(11 << 16, 1, 0)))
    (told,) = machine.command(batch(ask_outcome(11 << 16, 1)))
    assert isinstance(told, bytes)
    assert len(results(told)[0].outcome.results) == 4
    assert len(told) < REQUEST_BYTES_MAX


def test_repetitions_are_marked() -> None:
    """An outcome from memory is told from a new one: its revision is that of an earlier command."""
    machine = Machine()
    machine.command(batch(open_session()))
    raw = batch(put(b"k", b"v"), request=(11 << 16, 1, 0))
    first, again = machine.command(raw, raw)
    assert (type(first), type(again)) == (bytes, Repeated)
    assert first == again


KEYS = st.sampled_from([b"a", b"b", b"c"])
VALUES = st.binary(max_size=2)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, VALUES),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("create"), KEYS, VALUES),
)


@given(st.lists(st.lists(OPERATIONS, max_size=6), max_size=10))
def test_against_a_dict(script: list[list[tuple[Any, ...]]]) -> None:
    """Any sequence of operations answers as a dict with revisions and versions would."""
    machine = Machine()
    model: dict[bytes, kv_pb2.KeyValue] = {}
    make: dict[str, Callable[..., Op]] = {
        "put": put,
        "delete": delete,
        "get": get,
        "create": lambda key, value: put(key, value, absent=True),
    }
    for steps in script:
        got = machine.do(*[make[step[0]](*step[1:]) for step in steps])
        for step, result in zip(steps, got, strict=True):
            assert result == _expected(model, step, machine.index), step
    stored = {key: machine.do(get(key))[0].get.item for key in machine.state.records}
    assert stored == model


def _expected(
    model: dict[bytes, kv_pb2.KeyValue], step: tuple[Any, ...], index: int
) -> kv_pb2.OperationResult:
    kind, key = step[0], step[1]
    old = model.get(key)
    if kind == "get":
        return kv_pb2.OperationResult(get=kv_pb2.GetResult(item=old))
    if kind == "delete":
        model.pop(key, None)
        done = kv_pb2.DeleteResult(deleted=old is not None, revision=index)
        return kv_pb2.OperationResult(delete=done)
    if kind == "create" and old is not None:
        error = Machine().do(put(b"x", b""), put(b"x", b"", absent=True))[1].error
        error.message = error.message.replace("revision 11", f"revision {old.mod_revision}")
        error.details[0].value = str(old.mod_revision)
        return kv_pb2.OperationResult(error=error)
    created, version = (index, 1) if old is None else (old.create_revision, old.version + 1)
    model[key] = kv_pb2.KeyValue(
        key=key, value=step[2], create_revision=created, mod_revision=index, version=version
    )
    return kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=index, version=version))


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=30))
def test_exactly_once(arrivals: list[tuple[int, bool]]) -> None:
    """However often and in whatever order requests arrive, each is applied at most once."""
    machine = Machine()
    machine.command(batch(open_session()))
    applied: list[int] = []
    for sequence, together in arrivals:
        raw = batch(put(b"%d" % sequence, b""), request=(11 << 16, sequence, 0))
        before = {key: record[16:24] for key, record in machine.state.records.items()}
        machine.command(*[raw, raw] if together else [raw])
        after = {key: record[16:24] for key, record in machine.state.records.items()}
        applied += [int(key) for key in after if after[key] != before.get(key)]
    assert len(applied) == len(set(applied))
    assert all(record[16:24] == (1).to_bytes(8, "little") for record in machine.state.records.values())
