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
from kv.partition.machine import RESULT_BYTES_MAX, apply_command
from kv.partition.session import SessionLimits, SessionTable
from kv.v1 import kv_pb2
from tests.partition.tools import DictState, Op, batch, delete, get, open_session, put, results, txn

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
    assert isinstance(conflict, bytes)
    assert isinstance(deleted, bytes)
    assert RESULT_BYTES_MAX + BATCH_OPERATIONS_MAX * (len(conflict) + 40) < REQUEST_BYTES_MAX


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
