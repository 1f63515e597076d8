"""Unary and streaming gRPC calls on ready-made bytes: what the generated stubs do, without messages."""

from __future__ import annotations

from typing import TypeAlias, cast

import grpc.aio

UnaryCall: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
StreamCall: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"


def unary(channel: grpc.aio.Channel, method: str) -> UnaryCall:
    """Return the unary method; a request is sent and a reply given as it is on the wire."""
    return cast(UnaryCall, channel.unary_unary(method))


def stream(channel: grpc.aio.Channel, method: str) -> StreamCall:
    """Return the method that streams both ways; messages are given as they are on the wire."""
    return cast(StreamCall, channel.stream_stream(method))
