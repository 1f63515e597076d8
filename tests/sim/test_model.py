"""The independent model: it reads the log as the documentation says, whatever `kv.partition` does."""

from __future__ import annotations

import pytest

from kv.internal.v1 import log_pb2
from kv.sim.model import DoublyApplied, ForbiddenApplied, Model, Version
from kv.v1 import kv_pb2

NOOP = b"\x01"


def put(key: bytes, value: bytes, condition: kv_pb2.Condition | None = None) -> kv_pb2.Operation:
    """A put."""
    made = kv_pb2.PutOperation(key=key, value=value, condition=condition)
    return kv_pb2.Operation(put=made)


def delete(key: bytes) -> kv_pb2.Operation:
    """A delete."""
    return kv_pb2.Operation(delete=kv_pb2.DeleteOperation(key=key))


def entry(
    *operations: kv_pb2.Operation, time_ms: int = 0, request: tuple[int, int, int] | None = None
) -> bytes:
    """A command of one batch."""
    batch = kv_pb2.BatchRequest(operations=operations)
    if request is not None:
        session, sequence, acknowledged = request
        batch.request_id.CopyFrom(
            kv_pb2.RequestId(session=session, sequence=sequence, acknowledged=acknowledged)
        )
    return NOOP + log_pb2.Command(time_ms=time_ms, batches=[batch.SerializeToString()]).SerializeToString()


def open_session() -> kv_pb2.Operation:
    """An operation that opens a session."""
    return kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation())


def model(**more: object) -> Model:
    """A model with an open session in entry 3, of id 3 << 16."""
    made = Model(1000, 2, more.get("forbidden", {}))  # type: ignore[arg-type]
    made.apply(3, entry(open_session()))
    return made


SESSION = 3 << 16


def test_history_answers_for_every_index() -> None:
    """A key is what the last write at or below the index made of it."""
    one = model()
    one.apply(4, entry(put(b"k", b"v1")))
    one.apply(5, NOOP)
    one.apply(6, entry(put(b"k", b"v2")))
    one.apply(7, entry(delete(b"k")))
    one.apply(8, entry(put(b"k", b"v3")))
    assert one.at(b"k", 3).value is None
    assert one.at(b"k", 5) == Version(4, b"v1", 4, 1)
    assert one.at(b"k", 6) == Version(6, b"v2", 4, 2)
    assert one.at(b"k", 7).value is None
    assert one.at(b"k", 99) == Version(8, b"v3", 8, 1)
    assert [moment.value for moment in one.between(b"k", 5, 7)] == [b"v1", b"v2", None]
    assert one.deletes == {(7, b"k"): [True]}


def test_a_repetition_changes_nothing() -> None:
    """The same session and sequence is applied once; so is one that was acknowledged."""
    one = model()
    one.apply(4, entry(put(b"k", b"a"), request=(SESSION, 1, 0)))
    one.apply(5, entry(put(b"k", b"b"), request=(SESSION, 1, 0)))
    one.apply(6, entry(put(b"k", b"c"), request=(SESSION, 3, 2)))
    one.apply(7, entry(put(b"k", b"d"), request=(SESSION, 2, 0)))
    assert one.at(b"k", 7) == Version(6, b"c", 4, 2)
    assert one.repetitions == 2


def test_sessions_expire_and_are_evicted() -> None:
    """A session unused for its time to live is gone, and so is the least recently used of too many."""
    one = model()
    one.apply(4, entry(open_session(), time_ms=999))
    one.apply(5, entry(put(b"k", b"a"), time_ms=999, request=(SESSION, 1, 0)))
    one.apply(6, entry(open_session(), time_ms=1000))
    assert one.sessions == 2
    one.apply(7, entry(put(b"k", b"b"), time_ms=1000, request=(4 << 16, 1, 0)))
    one.apply(8, entry(put(b"k", b"c"), time_ms=1999, request=(SESSION, 2, 0)))
    assert one.at(b"k", 8).value == b"a"
    assert one.expired == 2


def test_a_transaction_takes_one_list() -> None:
    """Compares decide between the lists."""
    one = model()
    one.apply(4, entry(put(b"k", b"a")))
    txn = kv_pb2.TxnOperation(
        compare=[kv_pb2.Compare(key=b"k", value=b"a")],
        then_operations=[put(b"x", b"then")],
        else_operations=[put(b"x", b"else")],
    )
    one.apply(5, entry(kv_pb2.Operation(txn=txn)))
    txn.compare[0].value = b"z"
    one.apply(6, entry(kv_pb2.Operation(txn=txn)))
    assert [version.value for version in one.history[b"x"]] == [b"then", b"else"]


def test_conditions_are_judged() -> None:
    """A put whose condition does not hold changes nothing."""
    one = model()
    one.apply(4, entry(put(b"k", b"a", kv_pb2.Condition(absent=True))))
    one.apply(5, entry(put(b"k", b"b", kv_pb2.Condition(absent=True))))
    one.apply(6, entry(put(b"k", b"c", kv_pb2.Condition(revision=4))))
    one.apply(7, entry(put(b"k", b"d", kv_pb2.Condition(value=b"a"))))
    assert one.at(b"k", 7) == Version(6, b"c", 4, 2)


def test_a_value_is_written_once_and_never_when_it_is_forbidden() -> None:
    """A second write of a unique value is told, and so is the write of one that had failed for good."""
    forbidden: dict[bytes, str] = {}
    one = model(forbidden=forbidden)
    one.apply(4, entry(put(b"k", b"a")))
    with pytest.raises(DoublyApplied):
        one.apply(5, entry(put(b"j", b"a")))
    forbidden[b"bad"] = "it failed"
    with pytest.raises(ForbiddenApplied, match="it failed"):
        one.apply(6, entry(put(b"j", b"bad")))
