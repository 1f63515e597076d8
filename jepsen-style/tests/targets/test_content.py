"""The content hash of a ringkv replica, asked for without the store's own code: the bytes are those of its messages."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.v1 import cluster_pb2
from kv_jepsen.targets.content import Content, content, decoded, request


@given(st.integers(1, 2**32 - 1))
def test_the_request_is_the_stores(partition: int) -> None:
    """The bytes of a request are what the store's own message gives."""
    assert request(partition) == cluster_pb2.GetContentHashRequest(partition=partition).SerializeToString()


@given(st.integers(0, 2**64 - 1), st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_the_response_is_the_stores(index: int, digest: bytes, keys: int) -> None:
    """Index and hash of the store's own message are read, whatever else is in it."""
    message = cluster_pb2.GetContentHashResponse(index=index, hash=digest, keys=keys)
    assert decoded(message.SerializeToString()) == Content(index, digest.hex())


@given(st.binary(max_size=40))
def test_other_bytes_are_refused(message: bytes) -> None:
    """What is no such message raises ValueError and nothing else."""
    with contextlib.suppress(ValueError):
        assert isinstance(decoded(message), Content)


@pytest.mark.parametrize("message", [b"\x12\x05abc", b"\x08", b"\x80" * 11, b"\x0a\x01x", b"\x10\x07"])
def test_broken_messages(message: bytes) -> None:
    """Cut ends, numbers without end, fields of another type."""
    with pytest.raises(ValueError, match="no content hash"):
        decoded(message)


async def test_nobody_there() -> None:
    """A node that does not answer is an OSError, which the caller takes for a node that is down."""
    with pytest.raises(OSError, match="gives no content hash of partition 1"):
        await content("127.0.0.1:1", 1)
