"""The unary calls that ask for nothing but the defaults, as bytes in and bytes out.

Pure. Here live the plain Get and Put, which are nearly all unary calls there are: the batch of one that each becomes,
and its reply from that batch's response. Everything else goes through messages, in `kv.router.server`.
"""

from __future__ import annotations

from typing import Final

from kv.errors import from_proto
from kv.router.routing import Traits
from kv.v1 import kv_pb2

PLAIN_READ: Final = Traits(is_read=True)
"""What kind of request a plain Get is."""

PLAIN_WRITE: Final = Traits(is_read=False)
"""What kind of request a plain Put is: the router lends it a session."""

_LEVEL_PLAIN_MAX: Final[int] = kv_pb2.READ_LEVEL_LINEARIZABLE
_WRITE_LEVEL_PLAIN_MAX: Final[int] = kv_pb2.WRITE_LEVEL_QUORUM


def plain_get(request: kv_pb2.GetRequest) -> bytes | None:
    """Return the serialized batch of a Get that asks for the defaults, None if this one asks for more."""
    if not 0 <= request.level <= _LEVEL_PLAIN_MAX or request.HasField("read"):
        return None
    batch = kv_pb2.BatchRequest()
    batch.operations.add().get.key = request.key
    return batch.SerializeToString()


def plain_put(request: kv_pb2.PutRequest) -> bytes | None:
    """Return the serialized batch of a Put that asks for the defaults, None if this one asks for more."""
    if (
        request.return_previous
        or not 0 <= request.write_level <= _WRITE_LEVEL_PLAIN_MAX
        or request.HasField("request_id")
        or request.HasField("condition")
    ):
        return None
    batch = kv_pb2.BatchRequest(write_level=request.write_level, all_timeout_ms=request.all_timeout_ms)
    put = batch.operations.add().put
    put.key = request.key
    put.value = request.value
    return batch.SerializeToString()


def get_reply(raw: bytes) -> bytes:
    """Return the serialized GetResponse for the response of a batch of one get. Raises the error of the get."""
    response = kv_pb2.BatchResponse.FromString(raw)
    got = _result(response).get
    item = got.item if got.HasField("item") else None
    return kv_pb2.GetResponse(evidence=_evidence(response), item=item).SerializeToString()


def put_reply(raw: bytes) -> bytes:
    """Return the serialized PutResponse for the response of a batch of one put. Raises the error of the put."""
    response = kv_pb2.BatchResponse.FromString(raw)
    done = _result(response).put
    reply = kv_pb2.PutResponse(evidence=_evidence(response), revision=done.revision, version=done.version)
    return reply.SerializeToString()


def _result(response: kv_pb2.BatchResponse) -> kv_pb2.OperationResult:
    [result] = response.results
    if result.HasField("error"):
        raise from_proto(result.error)
    return result


def _evidence(response: kv_pb2.BatchResponse) -> kv_pb2.Evidence:
    evidence = response.evidence
    return evidence[0] if evidence else kv_pb2.Evidence()
