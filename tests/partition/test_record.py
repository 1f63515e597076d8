"""The stored form of a key, and the framing of results."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.errors import Conflict, to_proto
from kv.partition.record import (
    HEADER,
    MISSING_PART,
    decode_record,
    error_part,
    get_part,
    item_of,
    result_part,
    txn_part,
)
from kv.v1 import kv_pb2

REVISION = st.integers(0, 2**64 - 1)


def test_record_golden() -> None:
    """The stored form of a record never changes: it is on disks."""
    stored = bytes.fromhex(
        "0300000000000000" + "0001000000000000" + "ffffffffffffffff" + "0000000000000000" + "76616c7565"
    )
    assert HEADER.pack(3, 256, 2**64 - 1, 0) + b"value" == stored
    assert decode_record(stored) == (3, 256, 2**64 - 1, b"value")


@given(REVISION, REVISION, REVISION, st.binary(min_size=1, max_size=480), st.binary(max_size=20_000))
def test_get_part(created: int, modified: int, version: int, key: bytes, value: bytes) -> None:
    """The framed result of a get is what the library makes of the same messages."""
    record = HEADER.pack(created, modified, version, 0) + value
    item = kv_pb2.KeyValue(
        key=key, value=value, create_revision=created, mod_revision=modified, version=version
    )
    result = kv_pb2.OperationResult(get=kv_pb2.GetResult(item=item))
    assert item_of(key, record) == item
    assert get_part(key, record) == kv_pb2.BatchResponse(results=[result]).SerializeToString()


def test_missing_part() -> None:
    """A get that finds nothing has a result without an item."""
    result = kv_pb2.OperationResult(get=kv_pb2.GetResult())
    assert get_part(b"k", None) == MISSING_PART == kv_pb2.BatchResponse(results=[result]).SerializeToString()


def test_error_part() -> None:
    """An error is the result of its operation."""
    error = Conflict("no", metadata={"revision": 7})
    (result,) = kv_pb2.BatchResponse.FromString(error_part(error)).results
    assert result.error == to_proto(error)


@given(st.booleans(), REVISION, st.lists(st.binary(max_size=300), max_size=5))
def test_txn_part(succeeded: bool, revision: int, values: list[bytes]) -> None:
    """The framed result of a transaction is what the library makes of the same messages."""
    inner = [
        kv_pb2.OperationResult(get=kv_pb2.GetResult(item=kv_pb2.KeyValue(key=b"k", value=value)))
        for value in values
    ]
    result = kv_pb2.TxnResult(succeeded=succeeded, revision=revision, results=inner)
    part = txn_part(succeeded, revision, [result_part(one) for one in inner])
    (found,) = kv_pb2.BatchResponse.FromString(part).results
    assert found.txn == result
