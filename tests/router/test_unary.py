"""The plain Get and Put as bytes: the same batch and the same reply as by way of messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import KeyEmpty, to_proto
from kv.router.routing import traits_of
from kv.router.unary import PLAIN_READ, PLAIN_WRITE, get_reply, plain_get, plain_put, put_reply
from kv.v1 import kv_pb2

EVIDENCE = kv_pb2.Evidence(partition=3, term=2, index=7, node="n1", revision=7)

keys = st.binary(max_size=40)


@given(keys)
def test_a_plain_get_is_a_batch_of_that_get(key: bytes) -> None:
    """Its batch has one get of the key and no option, and is the kind of request that it is said to be."""
    raw = plain_get(kv_pb2.GetRequest(key=key))
    assert raw is not None
    batch = kv_pb2.BatchRequest.FromString(raw)
    assert batch == kv_pb2.BatchRequest(operations=[kv_pb2.Operation(get=kv_pb2.GetOperation(key=key))])
    assert traits_of(batch) == PLAIN_READ


@given(keys, st.binary(max_size=300))
def test_a_plain_put_is_a_batch_of_that_put(key: bytes, value: bytes) -> None:
    """Its batch has one put of key and value, and is the kind of request that it is said to be."""
    raw = plain_put(kv_pb2.PutRequest(key=key, value=value))
    assert raw is not None
    batch = kv_pb2.BatchRequest.FromString(raw)
    put = kv_pb2.PutOperation(key=key, value=value)
    assert batch == kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put=put)])
    assert traits_of(batch) == PLAIN_WRITE


@pytest.mark.parametrize(
    "request_",
    [
        kv_pb2.GetRequest(key=b"k", level=kv_pb2.READ_LEVEL_STALE),
        kv_pb2.GetRequest(key=b"k", level=kv_pb2.READ_LEVEL_QUORUM),
        kv_pb2.GetRequest.FromString(b"\n\x01k\x10\x63"),  # a level that does not exist
        kv_pb2.GetRequest.FromString(b"\n\x01k\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),  # -1
        kv_pb2.GetRequest(key=b"k", read=kv_pb2.ReadOptions()),
    ],
)
def test_a_get_that_asks_for_more_is_not_plain(request_: kv_pb2.GetRequest) -> None:
    """A level or an option of any kind is checked, and served, by the general way."""
    assert plain_get(request_) is None


@pytest.mark.parametrize(
    "request_",
    [
        kv_pb2.PutRequest(key=b"k", condition=kv_pb2.Condition()),
        kv_pb2.PutRequest(key=b"k", request_id=kv_pb2.RequestId()),
        kv_pb2.PutRequest(key=b"k", return_previous=True),
        kv_pb2.PutRequest(key=b"k", write_level=kv_pb2.WRITE_LEVEL_ALL),
        kv_pb2.PutRequest.FromString(b"\n\x01k\x30\x63"),  # a level that does not exist
    ],
)
def test_a_put_that_asks_for_more_is_not_plain(request_: kv_pb2.PutRequest) -> None:
    """A condition, a request id, a level or the wish for what was before go the general way."""
    assert plain_put(request_) is None


def response(result: kv_pb2.OperationResult) -> bytes:
    """Return a response as a partition gives it."""
    return kv_pb2.BatchResponse(results=[result], evidence=[EVIDENCE]).SerializeToString()


def test_the_reply_of_a_get_has_item_and_evidence() -> None:
    """An item is passed on as it is; a key that is not there has none."""
    item = kv_pb2.KeyValue(key=b"k", value=b"v", create_revision=1, mod_revision=7, version=2)
    found = get_reply(response(kv_pb2.OperationResult(get=kv_pb2.GetResult(item=item))))
    assert kv_pb2.GetResponse.FromString(found) == kv_pb2.GetResponse(evidence=EVIDENCE, item=item)
    missing = get_reply(response(kv_pb2.OperationResult(get=kv_pb2.GetResult())))
    assert kv_pb2.GetResponse.FromString(missing) == kv_pb2.GetResponse(evidence=EVIDENCE)


def test_the_reply_of_a_put_has_revision_version_and_evidence() -> None:
    """What the partition says of the write is what the caller hears."""
    raw = put_reply(response(kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=7, version=2))))
    assert kv_pb2.PutResponse.FromString(raw) == kv_pb2.PutResponse(evidence=EVIDENCE, revision=7, version=2)


def test_an_error_of_the_operation_is_raised() -> None:
    """The error inside a response is that of the call."""
    raw = response(kv_pb2.OperationResult(error=to_proto(KeyEmpty("the key is empty"))))
    with pytest.raises(KeyEmpty):
        get_reply(raw)
    with pytest.raises(KeyEmpty):
        put_reply(raw)
