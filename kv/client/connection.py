"""The transport: one channel and one Pipeline stream for each node. The only gRPC in the client.

grpc.aio allows one outstanding write and one outstanding read on a stream, so each
stream has a task that writes what is queued and one that reads. A message costs far more
than a batch in it, so the writer joins whatever waits for its node. What is queued but
was not yet handed to gRPC certainly did not leave the process, and is reported so.

A node may offer a TCP connection beside the stream (`kv.direct`); once it stands, messages take that way, at a fraction
of the CPU. The gRPC stream stays open, says by its pings that the node lives, and ends with the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from typing import Final, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from kv.client.direct import ACCEPT_TIMEOUT_S, DirectConnection
from kv.client.transport import OnClosed, OnReply
from kv.direct import read_offer
from kv.errors import Internal, KVError, Unavailable, from_grpc
from kv.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Above the protocol's own limits, which the nodes hold."""
JOINED_BYTES_MAX: Final = 1024 * 1024
"""Requests are joined up to this; a larger one travels alone."""
KEEPALIVE_MS: Final = 2_000
KEEPALIVE_TIMEOUT_MS: Final = 2_000
"""A node that is cut off without a word is noticed within the sum of both."""
RECONNECT_BACKOFF_MIN_MS: Final = 100
RECONNECT_BACKOFF_MAX_MS: Final = 500
CONNECT_TIMEOUT_S: Final = 1.0
"""A stream that has no connection by then ends, and what was queued on it goes to another node."""

PIPELINE_METHOD: Final = "/kv.v1.KVService/Pipeline"

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),  # no limit: a stream may be idle for long
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_BACKOFF_MIN_MS),
    ("grpc.min_reconnect_backoff_ms", RECONNECT_BACKOFF_MIN_MS),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MAX_MS),
    ("grpc.enable_retries", 0),  # the client's own retries know sessions; gRPC's do not
    ("grpc.use_local_subchannel_pool", 1),  # two clients of one process fail independently
)

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


def _raw(data: bytes) -> bytes:
    """The core serializes, so that a retry sends the identical bytes."""
    return data


def to_error(error: grpc.aio.AioRpcError, address: str, *, sent: bool) -> KVError:
    """Return what the failed call means; see `kv.errors.from_grpc`."""
    trailing = tuple(error.trailing_metadata() or ())
    details = f"{error.details() or 'no details'} (at {address})"
    return from_grpc(error.code().value[0], details, trailing, sent=sent)


def take_joined(queue: deque[tuple[int, bytes]], bytes_max: int) -> bytes:
    """Remove the first of the queue, up to `bytes_max` together but at least one, and return them as a message."""
    taken: list[bytes] = []
    size = 0
    while queue:
        _, raw = queue[0]
        size += len(raw)
        if taken and size > bytes_max:
            break
        taken.append(raw)
        queue.popleft()
    return b"".join(taken)


class GrpcStream:
    """A Pipeline stream with its two tasks."""

    def __init__(
        self,
        address: str,
        channel: grpc.aio.Channel,
        on_reply: OnReply,
        on_closed: OnClosed,
        *,
        connect_timeout_s: float,
    ) -> None:
        self._address = address
        self._channel = channel
        self._connect_timeout_s = connect_timeout_s
        self._on_reply = on_reply
        self._on_closed = on_closed
        self._queue: deque[tuple[int, bytes]] = deque()
        self._queued = asyncio.Event()
        self._ended = False
        self._direct: DirectConnection | None = None
        self._direct_lost: str | None = None
        self._call: grpc.aio.StreamStreamCall[bytes, kv_pb2.PipelineResponse] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def send(self, request_id: int, raw: bytes) -> None:
        """See `kv.client.transport.Stream`."""
        self._queue.append((request_id, raw))
        if self._direct is None:
            self._queued.set()

    def flush(self) -> None:
        """See `kv.client.transport.Stream`: send what waits, as far as the socket takes it."""
        direct = self._direct
        while direct is not None and direct.writable and self._queue:
            direct.send(take_joined(self._queue, JOINED_BYTES_MAX))

    def withdraw(self, request_id: int) -> bool:
        """See `kv.client.transport.Stream`."""
        for position, (queued, _) in enumerate(self._queue):
            if queued == request_id:
                del self._queue[position]
                return True
        return False

    def close(self) -> None:
        """See `kv.client.transport.Stream`."""
        self._ended = True
        if self._call is None:
            self._task.cancel()
        else:  # the read ends when gRPC has done with the call, so that nothing of it outlives this loop
            self._call.cancel()

    @property
    def ended(self) -> bool:
        """Whether both tasks have ended."""
        return self._task.done()

    async def closed(self) -> None:
        """Return when both tasks have ended."""
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        """Connect, write and read until one of them ends, then report once."""
        error: KVError = Internal("the task of the stream ended by a defect of the client")
        try:
            error = await self._converse()
        finally:
            if not self._ended:
                self._ended = True
                self._on_closed(error, [request_id for request_id, _ in self._queue])

    async def _converse(self) -> KVError:
        try:
            await asyncio.wait_for(self._channel.channel_ready(), self._connect_timeout_s)
        except TimeoutError:
            return Unavailable(f"no connection to {self._address} within {self._connect_timeout_s} s")
        method = self._channel.stream_stream(
            PIPELINE_METHOD,
            request_serializer=_raw,
            response_deserializer=kv_pb2.PipelineResponse.FromString,
        )
        call: grpc.aio.StreamStreamCall[bytes, kv_pb2.PipelineResponse] = method()
        self._call = call
        create_task = asyncio.get_running_loop().create_task
        tasks = (create_task(self._write(call)), create_task(self._take_offer(call)))
        try:
            return await self._read(call)
        finally:
            for task in tasks:
                task.cancel()
            call.cancel()
            if self._direct is not None:
                self._direct.abort()
            await asyncio.wait(tasks)

    async def _write(self, call: grpc.aio.StreamStreamCall[bytes, kv_pb2.PipelineResponse]) -> None:
        """Write in the order of the queue. A failed write ends here: the read reports the status."""
        while self._direct is None:
            while self._queue and self._direct is None:
                try:
                    await call.write(take_joined(self._queue, JOINED_BYTES_MAX))
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return
            self._queued.clear()
            await self._queued.wait()

    # --- the direct way -----------------------------------------------------------------------------

    async def _take_offer(self, call: grpc.aio.StreamStreamCall[bytes, kv_pb2.PipelineResponse]) -> None:
        """Connect directly if the node offers it; if that does not work the stream goes on as it is."""
        try:
            offer = read_offer(await call.initial_metadata())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the read reports it
        if offer is None:
            return
        connection = DirectConnection(offer, MESSAGE_BYTES_MAX, self._on_message, self.flush, self._on_lost)
        host = self._address.rpartition(":")[0].strip("[]")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                await loop.create_connection(lambda: connection, host, offer.port)
                await connection.accepted
            self._direct = connection
        except OSError as error:  # a TimeoutError is one
            _log.debug("direct connection failed", address=self._address, error=repr(error))
            return
        finally:
            if self._direct is not connection:
                connection.abort()  # also where the stream ends meanwhile and cancels this: nobody else knows of it
        self._queued.set()  # ends the writer
        self.flush()

    def _on_message(self, raw: bytes) -> None:
        try:
            response = kv_pb2.PipelineResponse.FromString(raw)
        except DecodeError as error:
            self._on_lost(f"a message does not parse: {error}")
        else:
            self._on_reply(response)

    def _on_lost(self, reason: str) -> None:
        """The connection ended: so does the stream, with everything that was sent on either."""
        if self._direct_lost is None and self._call is not None:
            self._direct_lost = reason
            self._call.cancel()

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, kv_pb2.PipelineResponse]) -> KVError:
        """Hand on every response; return why there are no more."""
        try:
            async for response in call:
                self._on_reply(response)
        except asyncio.CancelledError:
            if self._direct_lost is None:
                raise
            return Unavailable(f"the direct connection to {self._address} was lost: {self._direct_lost}")
        except grpc.aio.AioRpcError as error:
            return to_error(error, self._address, sent=True)
        return Unavailable(f"the node at {self._address} ended the stream")


class GrpcTransport:
    """Channels by address; see `kv.client.transport.Transport`."""

    def __init__(self, *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._streams: set[GrpcStream] = set()

    def open(self, address: str, on_reply: OnReply, on_closed: OnClosed) -> GrpcStream:
        """See `kv.client.transport.Transport`."""
        self._streams = {stream for stream in self._streams if not stream.ended}
        stream = GrpcStream(
            address, self._channel(address), on_reply, on_closed, connect_timeout_s=self._connect_timeout_s
        )
        self._streams.add(stream)
        return stream

    async def get_map(self, address: str, timeout_s: float) -> cluster_pb2.GetMapResponse:
        """See `kv.client.transport.Transport`."""
        stub = cluster_pb2_grpc.ClusterServiceStub(self._channel(address))
        return await _unary(stub.GetMap(cluster_pb2.GetMapRequest(), timeout=timeout_s), address)

    async def get_status(self, address: str, timeout_s: float) -> cluster_pb2.GetStatusResponse:
        """See `kv.client.transport.Transport`."""
        stub = cluster_pb2_grpc.ClusterServiceStub(self._channel(address))
        return await _unary(stub.GetStatus(cluster_pb2.GetStatusRequest(), timeout=timeout_s), address)

    async def scan(
        self, address: str, request: kv_pb2.ScanRequest, timeout_s: float
    ) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        """See `kv.client.transport.Transport`."""
        call = kv_pb2_grpc.KVServiceStub(self._channel(address)).Scan(request, timeout=timeout_s)
        try:
            async for page in call:
                yield page
        except grpc.aio.AioRpcError as error:
            raise to_error(error, address, sent=False) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """See `kv.client.transport.Transport`."""
        for stream in self._streams:
            stream.close()
        for stream in self._streams:
            await stream.closed()
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            self._channels[address] = channel
        return channel


async def _unary(call: Awaitable[_T], address: str) -> _T:
    """Await a call that only reads: for it, whatever failed was not sent in any sense that matters."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise to_error(error, address, sent=False) from error
