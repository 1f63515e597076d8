"""Requests on their way to another node: one stream for each ordered pair of nodes (step 3 of a write).

Here live `ForwardLink`, the stream without I/O, and `GrpcForwarder`, the shell that moves its bytes;
`Forwarders` keeps one for each node. The receiving side is `kv.router.forward_server`.

The rule of the link: what was handed to the wire and has no answer when the stream ends may have
been applied (`UnknownOutcome`); what was not is definitely not (`Unavailable`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from random import Random
from typing import Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from kv.errors import KVError, Overloaded, Unavailable, UnknownOutcome, WrongCluster, from_grpc, from_proto
from kv.ids import GroupId, NodeId
from kv.internal.v1 import peer_pb2
from kv.router.api import Reply
from kv.router.limits import RouterConfig
from kv.router.streams import peer_channel_options, stop_tasks, write_all

FORWARD_METHOD: Final = "/kv.internal.v1.PeerService/Forward"

HELLO_TIMEOUT_S: Final = 2.0
"""A peer that has not said hello after this long is tried anew."""

RECONNECT_BACKOFF_S: Final = 0.05
"""The first pause before a stream is opened again; doubles with each failure."""

RECONNECT_BACKOFF_S_MAX: Final = 1.0
"""The pause is never longer."""

_log = structlog.get_logger(__name__)


class ForwardLink:
    """What is under way to one node: waits for the wire, or was sent and waits for its answer."""

    def __init__(self, node: NodeId, config: RouterConfig, wake: Callable[[], None]) -> None:
        self.node = node
        self._config = config
        self._wake = wake
        self._refusal: KVError | None = Unavailable(f"there is no connection to node {node} yet")
        self._last_ticket = 0
        self._replies: dict[int, Reply] = {}
        self._waiting: dict[int, tuple[GroupId, int, int, bytes]] = {}
        self._waiting_bytes = 0

    @property
    def connected(self) -> bool:
        """Whether requests are taken."""
        return self._refusal is None

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return len(self._replies)

    def send(self, partition: GroupId, map_epoch: int, timeout_ms: int, raw: bytes, reply: Reply) -> int:
        """See `kv.router.api.Forwarder.send`. Without a connection a request is refused at once, not kept."""
        refusal = self._refusal or self._overloaded(len(raw))
        if refusal is not None:
            reply(refusal)
            return 0
        self._last_ticket += 1
        ticket = self._last_ticket
        self._replies[ticket] = reply
        self._waiting[ticket] = (partition, map_epoch, timeout_ms, raw)
        self._waiting_bytes += len(raw)
        self._wake()
        return ticket

    def cancel(self, ticket: int) -> bool:
        """See `kv.router.api.Forwarder.cancel`."""
        self._replies.pop(ticket, None)
        waiting = self._waiting.pop(ticket, None)
        if waiting is None:
            return False
        self._waiting_bytes -= len(waiting[-1])
        return True

    def opened(self) -> None:
        """Take requests from now on: the stream is up and the peer has said who it is."""
        assert not self._replies, "a new stream starts with nothing under way"
        self._refusal = None

    def take(self) -> bytes | None:
        """Return the next message to write, or None. What is in it counts as sent from now on."""
        if not self._waiting:
            return None
        message = peer_pb2.ForwardRequest()
        message_bytes = 0
        while self._waiting:
            ticket, (partition, map_epoch, timeout_ms, raw) = next(iter(self._waiting.items()))
            message_bytes += len(raw)
            if message.batches and message_bytes > self._config.forward_message_bytes_max:
                break
            del self._waiting[ticket]
            self._waiting_bytes -= len(raw)
            message.batches.add(
                id=ticket, partition=partition, map_epoch=map_epoch, timeout_ms=timeout_ms, batch=raw
            )
        return message.SerializeToString()

    def answered(self, response: peer_pb2.ForwardResponse) -> None:
        """Hand out the replies of a message. One without a taker was cancelled."""
        for answer in response.replies:
            reply = self._replies.pop(answer.id, None)
            if reply is None:
                continue
            kind = answer.WhichOneof("outcome")
            if kind == "batch":
                reply(answer.batch)
            elif kind == "error":
                reply(from_proto(answer.error))
            else:
                reply(UnknownOutcome(f"node {self.node} sent a reply that this node does not understand"))

    def lost(self, why: KVError) -> None:
        """End everything under way, and refuse with `why` (definite) until the next `opened`."""
        assert why.definite, "it is the answer to what is never sent"
        self._refusal = why
        replies, self._replies = self._replies, {}
        waiting, self._waiting = self._waiting, {}
        self._waiting_bytes = 0
        sent = UnknownOutcome(
            f"the stream to node {self.node} ended before the answer came", metadata={"node": self.node}
        )
        for ticket, reply in replies.items():
            reply(why if ticket in waiting else sent)

    def _overloaded(self, raw_bytes: int) -> KVError | None:
        limit, bytes_limit = self._config.forward_in_flight_max, self._config.forward_waiting_bytes_max
        if len(self._replies) >= limit:
            message = f"{limit} requests are in flight to node {self.node}"
            return Overloaded(message, metadata={"node": self.node, "forward_in_flight_max": limit})
        if self._waiting and self._waiting_bytes + raw_bytes > bytes_limit:
            message = f"{self._waiting_bytes} bytes wait for the stream to node {self.node}"
            return Overloaded(message, metadata={"node": self.node, "forward_waiting_bytes_max": bytes_limit})
        return None


class GrpcForwarder:
    """Keeps a Forward stream to one node open and moves the link's messages over it."""

    def __init__(
        self,
        node: NodeId,
        address: str,
        hello: Callable[[], peer_pb2.Hello],
        config: RouterConfig,
        rng: Random,
    ) -> None:
        self.node = node
        self.address = address
        self._hello = hello
        self._rng = rng
        self._wake = asyncio.Event()
        self.link = ForwardLink(node, config, self._wake.set)
        self.send = self.link.send
        self.cancel = self.link.cancel
        self._failures = 0
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"forward to {node}")

    async def close(self) -> None:
        """Close the stream; what is under way ends as the rule of the link says."""
        await stop_tasks(self._task)
        self.link.lost(Unavailable("this node is stopping"))

    async def _run(self) -> None:
        async with grpc.aio.insecure_channel(self.address, peer_channel_options()) as channel:
            open_stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                FORWARD_METHOD
            )
            while True:
                why: KVError = Unavailable(f"the connection to node {self.node} is gone")
                try:
                    await self._stream(open_stream())
                except grpc.aio.AioRpcError as error:
                    why = self._explain(error)
                except (
                    KVError,
                    TimeoutError,
                    DecodeError,
                    grpc.aio.UsageError,
                    asyncio.InvalidStateError,
                ) as error:
                    why = error if isinstance(error, KVError) else self._unreachable(repr(error))
                finally:
                    self.link.lost(why)
                # a node that stays away is told of once
                tell = _log.debug if self._failures else _log.info
                tell("forward stream ended", node=self.node, address=self.address, why=why.message)
                self._failures += 1
                await asyncio.sleep(self._backoff_s())

    async def _stream(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        """Run one stream to its end."""
        writer: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await call.write(peer_pb2.ForwardRequest(hello=self._hello()).SerializeToString())
                first = await self._read(call)
            if first is None:
                return
            self._check(first.hello)
            self._failures = 0
            self.link.opened()
            writer = asyncio.get_running_loop().create_task(write_all(self.link.take, self._wake, call.write))
            while (response := await self._read(call)) is not None:
                self.link.answered(response)
        finally:
            call.cancel()
            if writer is not None:
                await stop_tasks(writer)

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> peer_pb2.ForwardResponse | None:
        raw: object = await call.read()
        return peer_pb2.ForwardResponse.FromString(raw) if isinstance(raw, bytes) else None

    def _check(self, theirs: peer_pb2.Hello) -> None:
        ours = self._hello()
        if theirs.cluster != ours.cluster:
            raise WrongCluster(
                f"{self.address} belongs to cluster {theirs.cluster!r}, not {ours.cluster!r}",
                metadata={"address": self.address, "cluster": theirs.cluster},
            )
        if theirs.node != self.node:
            raise WrongCluster(
                f"{self.address} is node {theirs.node!r}, not {self.node!r}",
                metadata={"address": self.address, "node": theirs.node},
            )

    def _explain(self, error: grpc.aio.AioRpcError) -> KVError:
        """Return why the stream ended, as the answer to requests that were never sent."""
        trailing = tuple(error.trailing_metadata() or ())
        why = from_grpc(error.code().value[0], error.details(), trailing, sent=False)
        return why if why.definite else self._unreachable(why.message)

    def _unreachable(self, detail: str) -> KVError:
        return Unavailable(f"node {self.node} cannot be reached: {detail}", metadata={"node": self.node})

    def _backoff_s(self) -> float:
        longest = RECONNECT_BACKOFF_S * 2.0 ** min(self._failures, 10)
        return min(RECONNECT_BACKOFF_S_MAX, longest) * (1 + self._rng.random()) / 2


class _NoForwarder:
    """Stands for a node that is not in the map."""

    def __init__(self, node: NodeId) -> None:
        self._node = node

    def send(self, partition: GroupId, map_epoch: int, timeout_ms: int, raw: bytes, reply: Reply) -> int:
        """Refuse."""
        del partition, map_epoch, timeout_ms, raw
        reply(Unavailable(f"node {self._node} is not in the cluster map", metadata={"node": self._node}))
        return 0

    def cancel(self, ticket: int) -> bool:
        """Nothing is ever under way."""
        del ticket
        return False


class Forwarders:
    """One `GrpcForwarder` for each node, made when it is first needed, made anew when the address changes.

    A stream refuses until it is up, so the first request over it would go elsewhere: `follow` opens all beforehand.
    """

    def __init__(
        self,
        address_of: Callable[[NodeId], str | None],
        hello: Callable[[], peer_pb2.Hello],
        config: RouterConfig,
        rng: Random,
    ) -> None:
        self._address_of = address_of
        self._hello = hello
        self._config = config
        self._rng = rng
        self._by_node: dict[NodeId, GrpcForwarder] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, node: NodeId) -> GrpcForwarder | _NoForwarder:
        """Return the way to `node`. Call it on the loop thread."""
        address = self._address_of(node)
        known = self._by_node.get(node)
        if known is not None and known.address == address:
            return known
        if known is not None:
            self._retire(self._by_node.pop(node))
        if address is None:
            return _NoForwarder(node)
        made = self._by_node[node] = GrpcForwarder(node, address, self._hello, self._config, self._rng)
        return made

    def follow(self, nodes: Iterable[NodeId]) -> None:
        """Keep streams to these nodes and no others, whether or not anything is to be sent. Call it on the loop thread."""
        named = dict.fromkeys(nodes)
        for node in [known for known in self._by_node if known not in named]:
            self._retire(self._by_node.pop(node))
        for node in named:
            self.get(node)

    def connected(self) -> list[NodeId]:
        """Return the nodes whose stream is up, in order."""
        return sorted(node for node, forwarder in self._by_node.items() if forwarder.link.connected)

    async def close(self) -> None:
        """Close every stream."""
        open_ones, self._by_node = list(self._by_node.values()), {}
        await asyncio.gather(*(forwarder.close() for forwarder in open_ones), *self._closing)

    def _retire(self, forwarder: GrpcForwarder) -> None:
        task = asyncio.get_running_loop().create_task(forwarder.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
