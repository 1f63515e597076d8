"""The connections that carry Raft messages between nodes: the TCP shell of the `Links` port.

Each pair of nodes has two connections for all groups, dialled by the node with the smaller id: a *quick* one, and one for
the *bulk* of snapshots. They are plain TCP, not gRPC: a message over a gRPC stream costs about 0.19 ms of CPU at each end,
over a socket 0.05 ms (both measured with one small message each way), and each write of a client costs several.
Messages that wait leave in one frame. Whatever a connection carried when it breaks may be lost: the engine is told of
a reset, and forgets what it thinks was sent.

Both ends open with a Hello. A peer whose data directory is not the one that this node knows it by is refused: a member
that lost its log must not vote as if it had it. Each end says at least every `KEEPALIVE_S` that it lives; one that
has been silent for `SILENCE_S` is cut off, since a peer behind a cut must be noticed, and found again soon after it heals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, cast

import structlog
from google.protobuf.message import DecodeError

from kv.config import parse_address
from kv.frames import BadFrame, FrameReader, write_frame
from kv.internal.v1 import peer_pb2, raft_pb2
from kv.raft.frames import KEEPALIVE, PREFACE, pieces_of

LINK_QUEUE_BYTES_MAX = 64 << 20
"""Messages that wait for one connection; beyond it the connection is reset, since Raft repairs loss and not silence."""
FRAME_BYTES_MAX = 4 << 20
"""Bytes of messages joined into one frame (one message may be larger)."""
MESSAGE_BYTES_MAX = 32 << 20
"""What a peer may send in one frame."""
HELLO_BYTES_MAX = 4096
"""What anyone may send before we know who it is."""
STRANGERS_MAX = 64
"""Connections that have not said hello yet; one more is closed at once."""
WRITE_BUFFER_BYTES_MAX = 1 << 20
"""What is handed to a socket that does not take it; the rest waits here, and is joined meanwhile."""
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.05, 0.5
HELLO_TIMEOUT_S = 2.0
KEEPALIVE_S: Final = 0.5
SILENCE_S: Final = 3.0
"""Longer than the longest election timeout by default: who is silent for so long leads nothing any more."""

log = structlog.get_logger(__name__)


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


class Lane:
    """What waits for one connection to one peer, and the connection if there is one."""

    def __init__(self, peer: str, bulk: bool) -> None:
        self.peer, self.bulk = peer, bulk
        self.connection: Connection | None = None
        self._waiting: list[bytes] = []
        self._bytes = 0

    def attach(self, connection: Connection) -> None:
        """A new connection takes the place of the old one, which may not know yet that it is dead."""
        old, self.connection = self.connection, connection
        self._clear()
        if old is not None:
            old.abort()

    def detach(self, connection: Connection) -> bool:
        """The connection ended; False if another has taken its place."""
        if self.connection is not connection:
            return False
        self.connection = None
        self._clear()
        return True

    def _clear(self) -> None:
        self._waiting, self._bytes = [], 0

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages, or keep them while the socket takes nothing; without a connection they are lost."""
        connection = self.connection
        if connection is None:
            return
        if not self._waiting and connection.writable and len(messages) == 1:
            connection.send_payload(pieces_of(messages))  # nearly always; its size is looked at there
            return
        self._waiting.extend(messages)
        self._bytes += sum(map(len, messages))
        if self._bytes > LINK_QUEUE_BYTES_MAX:
            log.warning("link reset: its queue is full", peer=self.peer, bulk=self.bulk)
            connection.abort()
            self._clear()
            return
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._waiting and self.connection is not None and self.connection.writable:
            self.connection.send_payload(pieces_of(self._take()))

    def _take(self) -> list[bytes]:
        """Take as many messages as one frame should hold, at least one."""
        if self._bytes <= FRAME_BYTES_MAX:
            taken, self._waiting, self._bytes = self._waiting, [], 0
            return taken
        size = count = 0
        while count < len(self._waiting) and (count == 0 or size < FRAME_BYTES_MAX):
            size += len(self._waiting[count])
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        self._bytes -= size
        return taken


class Connection(asyncio.Protocol):
    """One TCP connection, at either end: first a Hello each way, then frames."""

    def __init__(self, links: PeerLinks, lane: Lane | None) -> None:
        """`lane`: what this end dialled for; None at the accepting end, which the Hello tells."""
        self._links = links
        self._lane = lane
        self._dialled = lane is not None
        self._greeted = False
        self._reader = FrameReader(PREFACE, HELLO_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.writable = True
        self.heard_at = self.sent_at = self._loop.time()
        self.ended = asyncio.Event()

    # ------------------------------------------------------------ what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES_MAX)
        if not self._links.admit(self):
            self.abort()
            return
        if self._dialled:
            assert self._lane is not None, "it dialled for a lane"
            transport.write(PREFACE)
            self.send(peer_pb2.RaftFrame(hello=self._links.hello(), bulk=self._lane.bulk))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.heard_at = self._loop.time()
        try:
            for payload in self._reader.feed(data):
                if payload:
                    self._take(peer_pb2.RaftFrame.FromString(payload))
                if self._closing:
                    return
        except (BadFrame, DecodeError) as error:
            tell = log.warning if self._lane is not None else log.debug  # anyone may dial and send anything
            tell("link broken: the other end does not speak this protocol", error=str(error))
            self.abort()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.writable = False

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.writable = True
        if self._greeted and self._lane is not None:
            self._lane.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        log.debug("link broken", peer=None if self._lane is None else self._lane.peer, error=repr(exc))
        self._links.lost(self, self._lane if self._greeted else None)
        self.ended.set()

    # ------------------------------------------------------------ what the links call

    @property
    def greeted(self) -> bool:
        """Whether the other end is known."""
        return self._greeted

    @property
    def _closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def send(self, frame: peer_pb2.RaftFrame) -> None:
        """Hand a frame to the socket."""
        self.send_payload((frame.SerializeToString(),))

    def send_payload(self, pieces: Sequence[bytes]) -> None:
        """Hand the pieces of a serialized frame to the socket."""
        if self._transport is not None and not self._transport.is_closing():
            write_frame(self._transport, pieces)
            self.sent_at = self._loop.time()

    def keep_alive(self, now: float) -> None:
        """Say that this end lives, or end the connection if the other one does not."""
        if now - self.heard_at > SILENCE_S:
            log.debug("link broken: silence", peer=None if self._lane is None else self._lane.peer)
            self.abort()
        elif (
            self._greeted
            and now - self.sent_at >= KEEPALIVE_S
            and self._transport is not None
            and self.writable
        ):
            self._transport.write(KEEPALIVE)
            self.sent_at = now

    def abort(self) -> None:
        """End the connection without sending what waits."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------ frames

    def _take(self, frame: peer_pb2.RaftFrame) -> None:
        if self._greeted:
            assert self._lane is not None, "the Hello tells it"
            if self._lane.connection is self:
                self._links.receiver.deliver(self._lane.peer, frame.messages)
            return
        try:
            self._greet(frame)
        except Refused as refused:
            if not self._dialled and self._transport is not None:
                self._transport.write(PREFACE)
                self.send(peer_pb2.RaftFrame(refusal=str(refused)))
                self._transport.close()
            else:
                log.error(
                    "link refused", peer=None if self._lane is None else self._lane.peer, reason=str(refused)
                )
                self.abort()

    def _greet(self, frame: peer_pb2.RaftFrame) -> None:
        """Take the other end's Hello. Raises `Refused`."""
        if frame.refusal:
            raise Refused(frame.refusal)
        if self._dialled:
            assert self._lane is not None, "it dialled for a lane"
            self._links.check(frame.hello, self._lane.peer)
        else:
            self._links.check(frame.hello, frame.hello.node)
            self._lane = self._links.lane(frame.hello.node, frame.bulk)
            assert self._transport is not None, "it is connected"
            self._transport.write(PREFACE)
            self.send(peer_pb2.RaftFrame(hello=self._links.hello()))
        self._greeted = True
        self._reader.bytes_max = MESSAGE_BYTES_MAX
        self._links.greeted(self, self._lane)


class PeerLinks:
    """All links of one node, dialled and accepted."""

    def __init__(
        self,
        *,
        me: str,
        cluster: str,
        incarnation: int,
        listen: str,
        addresses: Mapping[str, str],
        identities: Identities,
    ) -> None:
        """Make the links; `addresses` are the host:port of all nodes for Raft, `listen` is where to bind."""
        self._me, self._cluster, self._incarnation = me, cluster, incarnation
        self._listen = listen
        self._addresses = {peer: address for peer, address in addresses.items() if peer != me}
        self._identities = identities
        self._receiver: Receiver | None = None
        self._lanes = {(peer, bulk): Lane(peer, bulk) for peer in self._addresses for bulk in (False, True)}
        self._connections: dict[Connection, None] = {}
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, receiver: Receiver) -> None:
        """Listen, and dial the peers that this node dials. Raises `OSError` if the address cannot be bound."""
        self._receiver = receiver
        if not self._addresses:
            return  # a node alone has nobody to talk to
        host, port = parse_address(self._listen)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self, None), host or None, port)
        self._tasks.append(loop.create_task(self._keep_alive()))
        for peer in self._addresses:
            if self._me < peer:
                for bulk in (False, True):
                    self._tasks.append(loop.create_task(self._dial(self._lanes[peer, bulk])))

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.ended.wait()

    def send(self, peer: str, messages: Sequence[bytes], bulk: bool) -> None:
        """See `kv.raft.engine.Links`."""
        lane = self._lanes.get((peer, bulk))
        if lane is not None:
            lane.send(messages)

    # ------------------------------------------------------------ dialling

    async def _dial(self, lane: Lane) -> None:
        """Keep one connection of a lane up."""
        host, port = parse_address(self._addresses[lane.peer])
        loop = asyncio.get_running_loop()
        delay = RECONNECT_MIN_S
        while True:
            try:
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    _, connection = await loop.create_connection(lambda: Connection(self, lane), host, port)
            except OSError as error:  # a TimeoutError is one
                log.debug("link broken", peer=lane.peer, bulk=lane.bulk, error=repr(error))
            else:
                await connection.ended.wait()
                if connection.greeted:
                    delay = RECONNECT_MIN_S
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECONNECT_MAX_S)

    async def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while True:
            before = now
            await asyncio.sleep(KEEPALIVE_S / 2)
            now = loop.time()
            if now - before > KEEPALIVE_S:
                continue  # it was this process that stood still: what came meanwhile was not read yet
            for connection in list(self._connections):
                if not connection.greeted and now - connection.heard_at > HELLO_TIMEOUT_S:
                    connection.abort()
                else:
                    connection.keep_alive(now)

    # ------------------------------------------------------------ what connections ask and tell

    @property
    def receiver(self) -> Receiver:
        """Who takes the messages."""
        assert self._receiver is not None, "the links are started before they carry"
        return self._receiver

    def admit(self, connection: Connection) -> bool:
        """A connection was made; return False if there are too many that have not said who they are."""
        strangers = sum(not known.greeted for known in self._connections)
        if strangers >= STRANGERS_MAX:
            log.warning("link refused: too many connections without a hello", strangers_max=STRANGERS_MAX)
            return False
        self._connections[connection] = None
        return True

    def lane(self, peer: str, bulk: bool) -> Lane:
        """Return the lane of a peer that was checked."""
        return self._lanes[peer, bulk]

    def hello(self) -> peer_pb2.Hello:
        """Return who this node is."""
        return peer_pb2.Hello(cluster=self._cluster, node=self._me, incarnation=self._incarnation)

    def check(self, hello: peer_pb2.Hello, peer: str) -> None:
        """Raise `Refused` unless the other end may be `peer`."""
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

    def greeted(self, connection: Connection, lane: Lane) -> None:
        """The other end of a connection is known: from now on it carries the lane."""
        lane.attach(connection)
        if not lane.bulk:
            self.receiver.connection(lane.peer, False)
            self.receiver.connection(lane.peer, True)

    def lost(self, connection: Connection, lane: Lane | None) -> None:
        """A connection ended."""
        self._connections.pop(connection, None)
        if lane is not None and lane.detach(connection) and not lane.bulk:
            self.receiver.connection(lane.peer, False)
