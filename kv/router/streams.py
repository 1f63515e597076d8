"""What the router's streams share: gRPC options, the writer loop, and how a call ends with an error.

Here lives the part of grpc.aio that pipelines, forwards and unary calls have in common.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from kv.errors import InvalidArgument, KVError, RequestTooLarge, to_grpc
from kv.router.limits import PEER_MESSAGE_BYTES_MAX, RouterConfig

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

STREAMS_HEADROOM: Final = 1024
"""HTTP/2 streams of one connection beyond `streams_max`: a stream above that limit must reach us to be
refused with a reason, and unary calls are HTTP/2 streams too."""

PING_INTERVAL_MS_MIN: Final = 500
"""A peer that pings more often than this is cut off by gRPC."""

CONNECT_BACKOFF_MS_MAX: Final = 500
"""gRPC's own pause between attempts to connect is never longer."""

_STATUS: Final = {code.value[0]: code for code in grpc.StatusCode}

M = TypeVar("M", bound=Message)


def server_options(config: RouterConfig) -> list[tuple[str, Any]]:
    """Return the options of the node's gRPC server, which serves clients and peers on one port.

    The size limit is that of peers; a request of a client above its own limit is refused by the
    router, which can say why.
    """
    return [
        ("grpc.max_receive_message_length", PEER_MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", PEER_MESSAGE_BYTES_MAX),
        ("grpc.max_concurrent_streams", config.streams_max + STREAMS_HEADROOM),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
        # A starved process reads several pings at once: that is no reason to turn a peer away.
        ("grpc.http2.max_ping_strikes", 0),
    ]


def peer_channel_options() -> list[tuple[str, Any]]:
    """Return the options of a channel to another node: a peer that is silent for 3 s counts as gone."""
    return [
        ("grpc.max_receive_message_length", PEER_MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", PEER_MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", 1_000),
        ("grpc.keepalive_timeout_ms", 2_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", CONNECT_BACKOFF_MS_MAX),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]


async def abort(context: Context, error: KVError) -> NoReturn:
    """End the call with the error's status and its ErrorInfo."""
    code, message, trailing = to_grpc(error)
    await context.abort(_STATUS[code], message, trailing)
    raise AssertionError("abort does not return")


def parse(kind: type[M], raw: bytes, bytes_max: int) -> M:
    """Return the message in `raw`. Raises `RequestTooLarge` or `InvalidArgument`."""
    if len(raw) > bytes_max:
        raise RequestTooLarge(
            f"the message has {len(raw)} bytes, the limit is {bytes_max}",
            metadata={"message_bytes": len(raw), "message_bytes_max": bytes_max},
        )
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidArgument(f"the message is not a serialized {kind.DESCRIPTOR.full_name}") from error


async def write_all(
    take: Callable[[], bytes | None], wake: asyncio.Event, write: Callable[[bytes], Awaitable[None]]
) -> NoReturn:
    """Write what `take` gives, one message at a time; when it gives None wait for `wake`. Ends by cancellation.

    While one write is under way more may arrive: so `take` joins what waits, and a lone message
    never waits for company.
    """
    while True:
        while (message := take()) is not None:
            await write(message)
        wake.clear()
        await wake.wait()


async def stop_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until they have ended, however they end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
