"""The few messages of etcd's public gRPC API that the load needs, written and read as protobuf bytes.

Pure. Field numbers and method names are those of etcd's published `rpc.proto` and `kv.proto` (API v3). A load
generator that joins bytes costs the machine less than one that builds messages, and etcd shares this machine: so its
client is spared every encoding that can be spared, and its replies are not decoded unless something is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kv.wire import tag_of, varint

PUT: Final = "/etcdserverpb.KV/Put"
RANGE: Final = "/etcdserverpb.KV/Range"
TXN: Final = "/etcdserverpb.KV/Txn"
STATUS: Final = "/etcdserverpb.Maintenance/Status"

_TXN_SUCCESS: Final = 2
_OP_RANGE: Final = 1
_OP_PUT: Final = 2
_RANGE_REPLY_ITEMS: Final = 2
_ITEM_VERSION: Final = 4
_HEADER: Final = 1
_HEADER_MEMBER: Final = 2
_STATUS_LEADER: Final = 4


def chunk(field: int, content: bytes) -> bytes:
    """Return a length-delimited field: bytes, a string or a message."""
    return tag_of(field) + varint(len(content)) + content


def put(key: bytes, value: bytes) -> bytes:
    """Return a PutRequest (key = 1, value = 2)."""
    return chunk(1, key) + chunk(2, value)


def get(key: bytes) -> bytes:
    """Return a RangeRequest for one key (key = 1); linearizable, since `serializable` is left out."""
    return chunk(1, key)


def txn(puts: Iterable[bytes] = (), gets: Iterable[bytes] = ()) -> bytes:
    """Return a TxnRequest without compares that does all of these PutRequests and RangeRequests."""
    operations = [chunk(_OP_PUT, request) for request in puts]
    operations += [chunk(_OP_RANGE, request) for request in gets]
    return b"".join(chunk(_TXN_SUCCESS, operation) for operation in operations)


def grpc_frame(message: bytes) -> bytes:
    """Return a gRPC length-prefixed message, not compressed: what h2load posts as the body of a unary call."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Give number and value of each field. Raises `ValueError` if the message is cut or has groups."""
    at = 0
    while at < len(message):
        mark, at = _varint_at(message, at)
        match mark & 7:
            case 0:
                value, at = _varint_at(message, at)
                yield mark >> 3, value
            case 2:
                size, at = _varint_at(message, at)
                yield mark >> 3, _cut(message, at, size)
                at += size
            case 1:
                yield mark >> 3, int.from_bytes(_cut(message, at, 8), "little")
                at += 8
            case 5:
                yield mark >> 3, int.from_bytes(_cut(message, at, 4), "little")
                at += 4
            case other:
                raise ValueError(f"wire type {other} is not read here")


def versions(range_reply: bytes) -> Sequence[int]:
    """Return the version (number of writes) of each item in a RangeResponse."""
    items = [value for number, value in fields(range_reply) if number == _RANGE_REPLY_ITEMS]
    return [_number(item, _ITEM_VERSION) for item in items if isinstance(item, bytes)]


def leads(status_reply: bytes) -> bool:
    """Return whether the member that gave this StatusResponse is the leader."""
    leader = _number(status_reply, _STATUS_LEADER)
    header = next((value for number, value in fields(status_reply) if number == _HEADER), b"")
    assert isinstance(header, bytes), "the header is a message"
    return leader != 0 and leader == _number(header, _HEADER_MEMBER)


def knows_leader(status_reply: bytes) -> bool:
    """Return whether the member that gave this StatusResponse knows of a leader."""
    return _number(status_reply, _STATUS_LEADER) != 0


def _number(message: bytes, wanted: int) -> int:
    found = [value for number, value in fields(message) if number == wanted and isinstance(value, int)]
    return found[-1] if found else 0


def _varint_at(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("the message is cut inside a varint")
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7


def _cut(message: bytes, at: int, size: int) -> bytes:
    if at + size > len(message):
        raise ValueError("the message is cut inside a field")
    return message[at : at + size]
