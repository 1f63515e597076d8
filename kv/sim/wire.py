"""What production does with gRPC, over the simulated network: raft links, forwards, client streams.

Each class here takes the place of one gRPC shell (`kv.raft.transport`, the ends of
`kv.router.forward` and `forward_server`, `kv.router.pipeline`'s loop, `kv.client.connection`)
and drives the same sans-I/O object behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol

from kv.client.transport import OnClosed, OnReply
from kv.errors import KVError, Unavailable, UnknownOutcome
from kv.internal.v1 import peer_pb2, raft_pb2
from kv.raft.frames import payload_of
from kv.router.api import Cluster
from kv.router.dispatch import Router
from kv.router.forward import ForwardLink
from kv.router.forward_server import ForwardInbox
from kv.router.limits import RouterConfig
from kv.router.pipeline import Pipeline
from kv.router.scan import Scan
from kv.router.streams import write_all
from kv.sim.network import Connection, Deliver, Host, Network
from kv.sim.process import Life
from kv.v1 import cluster_pb2, kv_pb2

RECONNECT_S = 0.1
CUT_LOOK_S = 0.1
"""How often a page that is held by a cut looks whether it can go on."""


class Node(Host, Protocol):
    """A simulated node, as its wires see it."""

    @property
    def life(self) -> Life:
        """Its incarnation."""

    @property
    def cluster(self) -> Cluster:
        """What its router stands on."""

    @property
    def router(self) -> Router:
        """Its router."""

    @property
    def raft(self) -> Callable[[str, Sequence[raft_pb2.RaftMessage]], None]:
        """Takes Raft messages from a peer."""

    def raft_connection(self, peer: str, up: bool) -> None:
        """The connection to a peer came or went."""


class RaftLinks:
    """`kv.raft.engine.Links` of one incarnation: streams, or datagrams where the world wants faults TCP hides."""

    def __init__(self, network: Network, me: Node, peers: Callable[[], Sequence[Node]], lossy: bool) -> None:
        self._network, self._me, self._peers, self._lossy = network, me, peers, lossy
        self._streams: dict[tuple[str, bool], tuple[Connection, int]] = {}
        self._targets: dict[str, tuple[Node, Deliver]] = {}
        """Where datagrams go, and what takes them there."""

    def start(self) -> None:
        """Dial the peers with larger names, as in production."""
        for peer in self._peers():
            if self._lossy:
                self._targets[peer.name] = (peer, partial(_take, peer, self._me.name))
                self._me.raft_connection(peer.name, True)
            elif self._me.name < peer.name:
                self._dial(peer, False)
                self._dial(peer, True)

    def send(self, peer: str, messages: Sequence[bytes], bulk: bool) -> None:
        """See `Links`."""
        if self._lossy:
            target, take = self._targets[peer]
            for message in messages:
                self._network.datagram(self._me, target, payload_of((message,)), take)
            return
        stream = self._streams.get((peer, bulk))
        if stream is not None:
            connection, end = stream
            connection.send(end, payload_of(messages))

    def _dial(self, peer: Node, bulk: bool) -> None:
        again = partial(self._me.life.call_later, RECONNECT_S, partial(self._dial, peer, bulk))
        opened = partial(self._opened, peer, bulk)
        self._network.connect("raft", self._me, peer, opened, again)

    def _opened(self, peer: Node, bulk: bool, connection: Connection) -> None:
        self.attach(connection, 0, peer, bulk)
        ended, call_later = connection.on_closed[0], self._me.life.call_later

        def closed() -> None:
            ended()
            call_later(RECONNECT_S, self._dial, peer, bulk)

        connection.on_closed[0] = closed
        self._network.loop.call_soon(
            peer.enter, lambda: _links_of(peer).attach(connection, 1, self._me, bulk)
        )

    def attach(self, connection: Connection, end: int, peer: Node, bulk: bool) -> None:
        """Carry over this connection from now on; an older one to the same peer is closed."""
        old = self._streams.get((peer.name, bulk))
        if old is not None:
            old[0].close()
        self._streams[peer.name, bulk] = (connection, end)
        connection.on_message[end] = partial(_take, self._me, peer.name)
        connection.on_closed[end] = lambda: self._closed(connection, peer, bulk)
        if not bulk:
            self._me.raft_connection(peer.name, False)
            self._me.raft_connection(peer.name, True)

    def _closed(self, connection: Connection, peer: Node, bulk: bool) -> None:
        current = self._streams.get((peer.name, bulk))
        if current is not None and current[0] is connection:
            del self._streams[peer.name, bulk]
            if not bulk:
                self._me.raft_connection(peer.name, False)


def _links_of(node: Node) -> RaftLinks:
    links: RaftLinks = node.links  # type: ignore[attr-defined]
    return links


def _take(target: Node, source: str, data: bytes) -> None:
    target.raft(source, peer_pb2.RaftFrame.FromString(data).messages)


class SimForwarder:
    """The way of one node's router to another node: `ForwardLink` here, `ForwardInbox` there."""

    def __init__(self, network: Network, me: Node, target: Node, config: RouterConfig) -> None:
        self._network, self._me, self._target, self._config = network, me, target, config
        self._connection: Connection | None = None
        self._scheduled = False
        self.link = ForwardLink(target.name, config, self._wake)
        self.send = self.link.send
        self.cancel = self.link.cancel
        self._dial()

    def _dial(self) -> None:
        again = partial(self._me.life.call_later, RECONNECT_S, self._dial)
        self._network.connect("forward", self._me, self._target, self._opened, again)

    def _opened(self, connection: Connection) -> None:
        self._connection = connection
        connection.on_message[0] = lambda data: self.link.answered(peer_pb2.ForwardResponse.FromString(data))
        connection.on_closed[0] = self._closed
        target, config = self._target, self._config
        self._network.loop.call_soon(target.enter, lambda: _accept_forwards(target, connection, config))
        self.link.opened()

    def _closed(self) -> None:
        self._connection = None
        self.link.lost(Unavailable(f"the connection to node {self._target.name} is gone"))
        self._me.life.call_later(RECONNECT_S, self._dial)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._me.life.call_soon(self._write)

    def _write(self) -> None:
        self._scheduled = False
        while self._connection is not None and (message := self.link.take()) is not None:
            self._connection.send(0, message)


def _accept_forwards(node: Node, connection: Connection, config: RouterConfig) -> None:
    def write() -> None:
        while (message := inbox.take_out()) is not None:
            connection.send(1, message)

    inbox = ForwardInbox(node.cluster, config, lambda: node.life.call_soon(write))
    connection.on_message[1] = lambda data: inbox.take_in(peer_pb2.ForwardRequest.FromString(data))
    connection.on_closed[1] = inbox.close


class SimStream:
    """A client's Pipeline stream to one node; implements `kv.client.transport.Stream`."""

    def __init__(
        self, network: Network, me: Host, target: Node, on_reply: OnReply, on_closed: OnClosed
    ) -> None:
        self._on_reply, self._on_closed = on_reply, on_closed
        self._network, self._me, self._target = network, me, target
        self._queue: dict[int, bytes] = {}
        self._connection: Connection | None = None
        self._ended = False
        network.connect("client", me, target, self._opened, self._failed)

    def send(self, request_id: int, raw: bytes) -> None:
        """See `Stream`."""
        if self._ended:
            return
        if self._connection is None:
            self._queue[request_id] = raw
        else:
            self._connection.send(0, raw)

    def flush(self) -> None:
        """See `Stream`: what is sent leaves at once."""

    def withdraw(self, request_id: int) -> bool:
        """See `Stream`."""
        return self._queue.pop(request_id, None) is not None

    def close(self) -> None:
        """See `Stream`."""
        self._ended = True
        if self._connection is not None:
            self._connection.close()

    def _opened(self, connection: Connection) -> None:
        if self._ended:
            connection.close()
            return
        self._connection = connection
        connection.on_message[0] = lambda data: self._on_reply(kv_pb2.PipelineResponse.FromString(data))
        connection.on_closed[0] = lambda: self._end(())
        target = self._target
        self._network.loop.call_soon(target.enter, lambda: _accept_pipeline(target, connection))
        queue, self._queue = self._queue, {}
        for raw in queue.values():
            connection.send(0, raw)

    def _failed(self) -> None:
        self._end(tuple(self._queue))

    def _end(self, unsent: Collection[int]) -> None:
        if not self._ended:
            self._ended = True
            why: KVError = UnknownOutcome("the connection was lost") if not unsent else Unavailable("refused")
            self._on_closed(why, unsent)


def _accept_pipeline(node: Node, connection: Connection) -> None:
    async def write(message: bytes) -> None:
        connection.send(1, message)

    def count(_: str) -> None:
        """Outcomes are not counted here."""

    pipeline = Pipeline(node.router, count)
    connection.on_message[1] = pipeline.take_in
    connection.on_closed[1] = pipeline.close
    node.life.task(asyncio.ensure_future(write_all(pipeline.take_out, pipeline.wake_writer, write)))


class SimTransport:
    """The way of a client to every node; implements `kv.client.transport.Transport`."""

    def __init__(self, network: Network, me: Host, nodes: Callable[[str], Node]) -> None:
        self._network, self._me, self._nodes = network, me, nodes

    def open(self, address: str, on_reply: OnReply, on_closed: OnClosed) -> SimStream:
        """See `Transport`."""
        return SimStream(self._network, self._me, self._nodes(address), on_reply, on_closed)

    async def get_map(self, address: str, timeout_s: float) -> cluster_pb2.GetMapResponse:
        """See `Transport`."""
        node = await self._reach(address, timeout_s)
        cluster_map = node.cluster.map
        if cluster_map is None:
            return cluster_pb2.GetMapResponse()
        return cluster_pb2.GetMapResponse(map=cluster_map.to_proto())

    async def get_status(self, address: str, timeout_s: float) -> cluster_pb2.GetStatusResponse:
        """See `Transport`."""
        node = await self._reach(address, timeout_s)
        return cluster_pb2.GetStatusResponse(status=node.cluster.status())

    async def _reach(self, address: str, timeout_s: float) -> Node:
        node = self._nodes(address)
        here, there = self._me.name, node.name
        await asyncio.sleep(self._network.delay((here, there)))
        if self._network.is_cut(here, there) or not node.up or node.life.paused:
            await asyncio.sleep(timeout_s)
            raise Unavailable(f"{there} cannot be reached")
        await asyncio.sleep(self._network.delay((there, here)))
        if not node.up:
            raise Unavailable(f"{there} is gone")
        return node

    async def scan(
        self, address: str, request: kv_pb2.ScanRequest, timeout_s: float
    ) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        """See `Transport`: each page takes a trip over the network; a scan whose node dies is silent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        node = await self._reach(address, timeout_s)
        life = node.life
        router_deadline = node.router.deadline(timeout_s * 1000)
        async with aclosing(Scan(node.router, request, lambda: router_deadline).pages()) as pages:
            async for page in pages:
                await asyncio.sleep(self._network.delay((node.name, self._me.name)))
                while self._network.is_cut(node.name, self._me.name) and loop.time() < deadline:  # noqa: ASYNC110 - time is virtual
                    await asyncio.sleep(CUT_LOOK_S)
                if not life.alive:
                    raise Unavailable(f"{node.name} is gone")
                yield page

    async def close(self) -> None:
        """See `Transport`."""
