"""The hard limits: what is at a limit passes, what is beyond is refused with its own error."""

from __future__ import annotations

import pytest

from kv.errors import InvalidArgument, KeyEmpty, KeyTooLong, RequestTooLarge, ValueTooLarge
from kv.ids import (
    KEY_BYTES_MAX,
    NODE_ID_CHARS_MAX,
    REQUEST_BYTES_MAX,
    VALUE_BYTES_MAX,
    check_key,
    check_node_id,
    check_request_bytes,
    check_value,
)


def test_key_limits() -> None:
    """A key has 1 to KEY_BYTES_MAX bytes, and fits with room into LMDB's 511."""
    check_key(b"k")
    check_key(b"k" * KEY_BYTES_MAX)
    with pytest.raises(KeyEmpty):
        check_key(b"")
    with pytest.raises(KeyTooLong) as caught:
        check_key(b"k" * (KEY_BYTES_MAX + 1))
    assert caught.value.metadata == {"key_bytes": "481", "key_bytes_max": "480"}
    assert KEY_BYTES_MAX < 511


def test_value_limits() -> None:
    """A value has 0 to VALUE_BYTES_MAX bytes."""
    check_value(b"")
    check_value(bytes(VALUE_BYTES_MAX))
    with pytest.raises(ValueTooLarge, match="1048577 bytes, the limit is 1048576"):
        check_value(bytes(VALUE_BYTES_MAX + 1))


def test_request_limits() -> None:
    """A request has at most REQUEST_BYTES_MAX bytes, which holds a value of the greatest size."""
    check_request_bytes(REQUEST_BYTES_MAX)
    with pytest.raises(RequestTooLarge):
        check_request_bytes(REQUEST_BYTES_MAX + 1)
    assert VALUE_BYTES_MAX + KEY_BYTES_MAX < REQUEST_BYTES_MAX


@pytest.mark.parametrize("node_id", ["n", "node-1.zone_A", "x" * NODE_ID_CHARS_MAX])
def test_good_node_ids(node_id: str) -> None:
    """Letters, digits, underscore, dot and dash make a node id."""
    check_node_id(node_id)


@pytest.mark.parametrize(
    "node_id", ["", "x" * (NODE_ID_CHARS_MAX + 1), "a b", "a=b", "a,b", "a/b", "é", "n1\n"]
)
def test_bad_node_ids(node_id: str) -> None:
    """What could not stand in a peers list, a path or a metric is no node id."""
    with pytest.raises(InvalidArgument):
        check_node_id(node_id)
