"""The streams that carry Raft messages between nodes: the gRPC shell of the `Links` port.

Each pair of nodes has one channel, dialled by the node with the smaller id, and on it two
long-lived streams for all groups: `Raft` for what must be quick, `Bulk` for snapshots. A
gRPC stream takes one write at a time, so each stream has one writer task, and what waits
meanwhile leaves in one message. Whatever a stream carried when it breaks may be lost: the
engine is told of a reset, and forgets what it thinks was sent.

Both ends open with a Hello. A peer whose data directory is not the one that this node knows
it by is refused: a member that lost its log must not vote as if it had it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio
import structlog

from kv.internal.v1 import peer_pb2, peer_pb2_grpc, raft_pb2

LINK_QUEUE_BYTES_MAX = 64 << 20
"""Messages that wait for one stream; beyond it the stream is reset, since Raft repairs loss and not silence."""
FRAME_BYTES_MAX = 4 << 20
"""Bytes of messages joined into one frame (one message may be larger)."""
MESSAGE_BYTES_MAX = 32 << 20
"""What a peer may send in one frame."""
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.05, 0.5
HELLO_TIMEOUT_S = 2.0

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A peer behind a cut must be noticed, and found again soon after the cut heals.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)

log = structlog.get_logger(__name__)

Frame: TypeAlias = Any
"""One of the four frame types of peer.proto: they have the same fields, and no common class."""
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Call: TypeAlias = grpc.aio.StreamStreamCall[Any, Any]


class Identities(Protocol):
    """Who the peers are, remembered on disk."""

    def known(self, peer: str, incarnation: int) -> bool:
        """Whether the peer's data directory is the one known, or the first one seen (then remembered)."""


class Receiver(Protocol):
    """The engine, as the links see it."""

    def deliver(self, peer: str, messages: Iterable[raft_pb2.RaftMessage]) -> None:
        """Messages came from a peer."""

    def connection(self, peer: str, up: bool) -> None:
        """The connection to a peer came or went."""


class Refused(Exception):
    """The other end's Hello is not acceptable; the message says why and what to do."""


class Stream(Protocol):
    """Either end of a bidirectional stream."""

    def read(self) -> Awaitable[Frame]:
        """The next frame, or EOF."""

    def write(self, frame: Frame) -> Awaitable[None]:
        """Sends one frame; one call at a time."""

    def cancel(self) -> object:
        """Ends the stream."""


class Lane:
    """What waits for one stream to one peer, and the stream if there is one."""

    def __init__(self, peer: str, bulk: bool) -> None:
        self.peer, self.bulk = peer, bulk
        self.stream: Stream | None = None
        self._waiting: list[raft_pb2.RaftMessage] = []
        self._bytes = 0
        self._wakeup = asyncio.Event()

    def attach(self, stream: Stream) -> None:
        """A new stream takes the place of the old one, which may not know yet that it is dead."""
        if self.stream is not None:
            self.stream.cancel()
        self.stream = stream
        self._clear()

    def detach(self, stream: Stream) -> bool:
        """The stream ended; False if another has taken its place."""
        if self.stream is not stream:
            return False
        self.stream = None
        self._clear()
        return True

    def _clear(self) -> None:
        self._waiting, self._bytes = [], 0
        self._wakeup.clear()

    def send(self, messages: Sequence[raft_pb2.RaftMessage]) -> None:
        """Queues messages for the stream; without one they are lost."""
        if self.stream is None:
            return
        self._waiting.extend(messages)
        self._bytes += sum(message.ByteSize() for message in messages)
        if self._bytes > LINK_QUEUE_BYTES_MAX:
            log.warning("link reset: its queue is full", peer=self.peer, bulk=self.bulk)
            self.stream.cancel()
            self._clear()
            return
        self._wakeup.set()

    async def take(self) -> list[raft_pb2.RaftMessage]:
        """Waits for messages and takes as many as one frame should hold."""
        while not self._waiting:
            self._wakeup.clear()
            await self._wakeup.wait()
        if self._bytes <= FRAME_BYTES_MAX:
            taken, self._waiting, self._bytes = self._waiting, [], 0
            return taken
        size = count = 0
        while count < len(self._waiting) and (count == 0 or size < FRAME_BYTES_MAX):
            size += self._waiting[count].ByteSize()
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        self._bytes -= size
        return taken


class PeerLinks:
    """All links of one node; also the server's half of `Raft` and `Bulk`."""

    def __init__(
        self,
        *,
        me: str,
        cluster: str,
        incarnation: int,
        addresses: Mapping[str, str],
        identities: Identities,
    ) -> None:
        self._me, self._cluster, self._incarnation = me, cluster, incarnation
        self._addresses = {peer: address for peer, address in addresses.items() if peer != me}
        self._identities = identities
        self._receiver: Receiver | None = None
        self._lanes = {(peer, bulk): Lane(peer, bulk) for peer in self._addresses for bulk in (False, True)}
        self._channels: list[grpc.aio.Channel] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, receiver: Receiver) -> None:
        """Starts to dial the peers that this node dials."""
        self._receiver = receiver
        for peer, address in self._addresses.items():
            if self._me < peer:
                channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
                self._channels.append(channel)
                for bulk in (False, True):
                    self._tasks.append(asyncio.create_task(self._dial(peer, channel, bulk)))

    async def close(self) -> None:
        """Ends all streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._lanes.values():
            if lane.stream is not None:
                lane.stream.cancel()
        for channel in self._channels:
            await channel.close()

    def send(self, peer: str, messages: Sequence[raft_pb2.RaftMessage], bulk: bool) -> None:
        """See `kv.raft.engine.Links`."""
        lane = self._lanes.get((peer, bulk))
        if lane is not None:
            lane.send(messages)

    # ------------------------------------------------------------ the dialling end

    async def _dial(self, peer: str, channel: grpc.aio.Channel, bulk: bool) -> None:
        stub = peer_pb2_grpc.PeerServiceStub(channel)
        delay = RECONNECT_MIN_S
        while True:
            call: Call = stub.Bulk() if bulk else stub.Raft()
            try:
                request = peer_pb2.BulkRequest if bulk else peer_pb2.RaftRequest
                await call.write(request(hello=self._hello()))
                # Not wait_for: it may swallow the cancellation that `close` waits for.
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    first: Frame = await call.read()
                if first is grpc.aio.EOF:
                    raise Refused(await _ending(call))
                self._check(first.hello, peer)
                delay = RECONNECT_MIN_S
                await self._carry(self._lanes[peer, bulk], call, request)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    log.error("link refused", peer=peer, reason=error.details())
                log.debug("link broken", peer=peer, bulk=bulk, error=repr(error))
            except (TimeoutError, asyncio.InvalidStateError) as error:
                log.debug("link broken", peer=peer, bulk=bulk, error=repr(error))
            except asyncio.CancelledError:
                # A stream that this node reset raises the same as a task that it ends.
                if _is_ending():
                    raise
                log.debug("link reset", peer=peer, bulk=bulk)
            except Refused as refused:
                log.error("link refused", peer=peer, reason=str(refused))
            finally:
                call.cancel()
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECONNECT_MAX_S)

    # ------------------------------------------------------------ the accepting end

    def handler(self) -> grpc.GenericRpcHandler:
        """The server's half of `PeerService.Raft` and `PeerService.Bulk`."""
        return grpc.method_handlers_generic_handler(
            "kv.internal.v1.PeerService",
            {
                "Raft": grpc.stream_stream_rpc_method_handler(
                    self._raft,
                    request_deserializer=peer_pb2.RaftRequest.FromString,
                    response_serializer=peer_pb2.RaftResponse.SerializeToString,
                ),
                "Bulk": grpc.stream_stream_rpc_method_handler(
                    self._bulk,
                    request_deserializer=peer_pb2.BulkRequest.FromString,
                    response_serializer=peer_pb2.BulkResponse.SerializeToString,
                ),
            },
        )

    async def _raft(self, _requests: AsyncIterator[Frame], context: Context) -> None:
        await self._accept(context, False, peer_pb2.RaftResponse)

    async def _bulk(self, _requests: AsyncIterator[Frame], context: Context) -> None:
        await self._accept(context, True, peer_pb2.BulkResponse)

    async def _accept(self, context: Context, bulk: bool, response: Callable[..., Frame]) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            first = await context.read()
        if first is grpc.aio.EOF:
            return
        peer = first.hello.node
        try:
            self._check(first.hello, peer)
        except Refused as refused:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refused))
        await context.write(response(hello=self._hello()))
        accepted = _Accepted(context)
        try:
            await self._carry(self._lanes[peer, bulk], accepted, response)
        except asyncio.CancelledError:
            # A handler that is cancelled says nothing to the other end; one that returns ends the stream.
            if not accepted.is_reset:
                raise

    # ------------------------------------------------------------ both ends

    def _hello(self) -> peer_pb2.Hello:
        return peer_pb2.Hello(cluster=self._cluster, node=self._me, incarnation=self._incarnation)

    def _check(self, hello: peer_pb2.Hello, peer: str) -> None:
        if hello.cluster != self._cluster:
            raise Refused(
                f"node {hello.node!r} belongs to cluster {hello.cluster!r}, this one to {self._cluster!r}:"
                " check the addresses and the cluster names"
            )
        if hello.node != peer or peer not in self._addresses:
            raise Refused(f"{hello.node!r} is not a peer that {self._me!r} knows at this address")
        if not self._identities.known(peer, hello.incarnation):
            raise Refused(
                f"{peer!r} has another data directory than the one it is known by: it lost its log and may"
                " not vote with it; bring its directory back, or rejoin it as the README says under 'A lost disk'"
            )

    async def _carry(self, lane: Lane, stream: Stream, frame_type: Callable[..., Frame]) -> None:
        assert self._receiver is not None, "the links are started before they carry"
        lane.attach(stream)
        if not lane.bulk:
            self._receiver.connection(lane.peer, False)
            self._receiver.connection(lane.peer, True)
        writer = asyncio.create_task(_write(lane, stream, frame_type))
        try:
            while True:
                frame = await stream.read()
                if frame is grpc.aio.EOF or lane.stream is not stream:
                    return
                self._receiver.deliver(lane.peer, frame.messages)
        finally:
            writer.cancel()
            if lane.detach(stream) and not lane.bulk:
                self._receiver.connection(lane.peer, False)


class _Accepted:
    """The server's end of a stream as a `Stream`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._task = asyncio.current_task()
        self.is_reset = False

    def read(self) -> Awaitable[Frame]:
        return self._context.read()

    def write(self, frame: Frame) -> Awaitable[None]:
        return self._context.write(frame)

    def cancel(self) -> object:
        assert self._task is not None
        self.is_reset = True
        return self._task.cancel()


async def _write(lane: Lane, stream: Stream, frame_type: Callable[..., Frame]) -> None:
    """The stream's only writer: joins what waits while a write is under way."""
    try:
        while True:
            messages = await lane.take()
            await stream.write(frame_type(messages=messages))
    except (grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.RpcError, asyncio.InvalidStateError) as error:
        log.debug("link broken while writing", peer=lane.peer, error=repr(error))
        stream.cancel()


def _is_ending() -> bool:
    """Whether the running task itself is to end."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling() > 0


async def _ending(call: Call) -> str:
    """Why the other end closed the stream."""
    return f"{await call.code()}: {await call.details()}"
