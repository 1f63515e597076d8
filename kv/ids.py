"""The names of things and the limits of what users may send.

Here live identifier types, the hard limits on keys, values and requests, and the checks
that hold them. Limits that an operator may change are in `kv.config`; nothing here does I/O.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from kv.errors import InvalidArgument, KeyEmpty, KeyTooLong, RequestTooLarge, ValueTooLarge

NodeId: TypeAlias = str
"""The name of a node, unique in its cluster and stable over restarts."""

GroupId: TypeAlias = int
"""The number of a Raft group; partition n is group n, and partitions count from 1."""

META_GROUP: Final[GroupId] = 0
"""The group that owns the cluster map."""

KEY_BYTES_MAX: Final = 480
"""LMDB's keys end at 511 bytes; the difference is left for the store's own prefixes."""

VALUE_BYTES_MAX: Final = 1024 * 1024
"""One value, in bytes."""

REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
"""One serialized request, in bytes; gRPC's default limit on a received message."""

NODE_ID_CHARS_MAX: Final = 63
"""As long as a DNS label, so that a host name can be the node's name."""

_NODE_ID = re.compile(rf"[a-zA-Z0-9_.-]{{1,{NODE_ID_CHARS_MAX}}}")


def check_key(key: bytes) -> None:
    """Raise `KeyEmpty` or `KeyTooLong` unless `key` has 1 to `KEY_BYTES_MAX` bytes."""
    if not key:
        raise KeyEmpty("the key is empty")
    if len(key) > KEY_BYTES_MAX:
        raise KeyTooLong(
            f"the key has {len(key)} bytes, the limit is {KEY_BYTES_MAX}",
            metadata={"key_bytes": len(key), "key_bytes_max": KEY_BYTES_MAX},
        )


def check_value(value: bytes) -> None:
    """Raise `ValueTooLarge` if `value` has more than `VALUE_BYTES_MAX` bytes."""
    if len(value) > VALUE_BYTES_MAX:
        raise ValueTooLarge(
            f"the value has {len(value)} bytes, the limit is {VALUE_BYTES_MAX}",
            metadata={"value_bytes": len(value), "value_bytes_max": VALUE_BYTES_MAX},
        )


def check_request_bytes(request_bytes: int) -> None:
    """Raise `RequestTooLarge` if a serialized request of that size is above `REQUEST_BYTES_MAX`."""
    if request_bytes > REQUEST_BYTES_MAX:
        raise RequestTooLarge(
            f"the request has {request_bytes} bytes, the limit is {REQUEST_BYTES_MAX}",
            metadata={"request_bytes": request_bytes, "request_bytes_max": REQUEST_BYTES_MAX},
        )


def check_node_id(node_id: str) -> None:
    """Raise `InvalidArgument` unless `node_id` has 1 to 63 characters of a-z, A-Z, 0-9, `_`, `.` and `-`."""
    if not _NODE_ID.fullmatch(node_id):
        raise InvalidArgument(
            f"the node id {node_id[:80]!r} is not 1 to {NODE_ID_CHARS_MAX} characters of a-z A-Z 0-9 _ . -",
            metadata={"node_id": node_id},
        )
