"""etcd's messages as bytes, against protobuf itself where a message of ours has the same field numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import wire
from kv.v1 import kv_pb2
from kv.wire import varint

NUMBERS = st.integers(0, 2**64 - 1)


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=300))
def test_put_and_get_are_what_protobuf_reads(key: bytes, value: bytes) -> None:
    """Key is field 1 and value field 2, as in our own PutOperation and GetOperation."""
    put = kv_pb2.PutOperation.FromString(wire.put(key, value))
    assert (put.key, put.value) == (key, value)
    assert kv_pb2.GetOperation.FromString(wire.get(key)).key == key


@given(NUMBERS, NUMBERS, st.binary(max_size=300))
def test_fields_are_read_as_protobuf_wrote_them(session: int, sequence: int, key: bytes) -> None:
    """Varints and what has a length come back by number, in order."""
    request = kv_pb2.RequestId(session=session, sequence=sequence)
    wanted = [(number, value) for number, value in ((1, session), (2, sequence)) if value]
    assert list(wire.fields(request.SerializeToString())) == wanted
    operation = kv_pb2.Operation(get=kv_pb2.GetOperation(key=key))
    ((number, inner),) = wire.fields(operation.SerializeToString())
    assert number == 1
    assert isinstance(inner, bytes)
    assert list(wire.fields(inner)) == ([(1, key)] if key else [])


@given(st.binary(min_size=1, max_size=30))
def test_a_cut_message_is_an_error(key: bytes) -> None:
    """No prefix that ends inside a field passes for a message."""
    message = wire.put(key, b"value")
    for length in range(1, len(message)):
        if length != len(wire.get(key)):  # the message of the key alone
            with pytest.raises(ValueError, match="cut"):
                list(wire.fields(message[:length]))


def test_a_txn_holds_its_operations() -> None:
    """`success` is field 2; in each operation a put is field 2 and a range field 1."""
    message = wire.txn(puts=[wire.put(b"a", b"1")], gets=[wire.get(b"b")])
    operations = [value for number, value in wire.fields(message) if number == 2]
    assert [list(wire.fields(op)) for op in operations if isinstance(op, bytes)] == [
        [(2, wire.put(b"a", b"1"))],
        [(1, wire.get(b"b"))],
    ]


def test_replies_are_read() -> None:
    """The version of an item, and whether a member leads or knows who does."""
    item = wire.chunk(1, b"key") + varint(4 << 3) + varint(7)
    assert wire.versions(wire.chunk(1, b"") + wire.chunk(2, item)) == [7]
    assert wire.versions(wire.chunk(1, b"")) == []
    header = wire.chunk(1, varint(2 << 3) + varint(11))
    leads, follows = (header + varint(4 << 3) + varint(leader) for leader in (11, 12))
    assert wire.leads(leads)
    assert not wire.leads(follows)
    assert wire.knows_leader(follows)
    assert not wire.knows_leader(header)
    assert not wire.leads(header)


def test_a_frame_has_its_length_before_it() -> None:
    """One byte for no compression, four for the length."""
    assert wire.grpc_frame(b"abc") == b"\0\0\0\0\x03abc"
