"""The links between nodes, over real sockets on the loopback interface."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from kv.frames import HEADER, FrameReader, frame_of
from kv.internal.v1 import peer_pb2, raft_pb2
from kv.raft import transport
from kv.raft.frames import PREFACE
from kv.raft.transport import FRAME_BYTES_MAX, HELLO_BYTES_MAX, MESSAGE_BYTES_MAX, PeerLinks

WAIT_S = 10.0
"""What no test should take: the links do in milliseconds what is waited for."""


class Recorder:
    """The engine's place: what was delivered and which connections came and went, to be awaited."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, raft_pb2.RaftMessage]] = []
        self.events: list[tuple[str, bool]] = []
        self._changed = asyncio.Event()

    def deliver(self, peer: str, messages: Iterable[raft_pb2.RaftMessage]) -> None:
        self.messages += [(peer, message) for message in messages]
        self._changed.set()

    def connection(self, peer: str, up: bool) -> None:
        self.events.append((peer, up))
        self._changed.set()

    def up(self, peer: str) -> bool:
        """Whether the last word about this peer was that it is there."""
        return next((up for name, up in reversed(self.events) if name == peer), False)

    def numbers(self, peer: str) -> list[int]:
        """What `numbered` messages came from a peer."""
        return [message.term for source, message in self.messages if source == peer]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; it is looked at after each event."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Known:
    """Which data directory each peer is known by; the first one seen is remembered."""

    def __init__(self) -> None:
        self.incarnations: dict[str, int] = {}

    def known(self, peer: str, incarnation: int) -> bool:
        return self.incarnations.setdefault(peer, incarnation) == incarnation


class Node:
    """One node: its links, which may go and come back."""

    def __init__(
        self, name: str, addresses: dict[str, str], cluster: str = "c", incarnation: int = 1
    ) -> None:
        self.name, self.address = name, addresses[name]
        self.recorder, self.known = Recorder(), Known()
        self._cluster, self._incarnation, self._addresses = cluster, incarnation, addresses
        self.links = self._made()

    def _made(self) -> PeerLinks:
        return PeerLinks(
            me=self.name,
            cluster=self._cluster,
            incarnation=self._incarnation,
            listen=self.address,
            addresses=self._addresses,
            identities=self.known,
        )

    async def start(self) -> None:
        """Listen, and dial."""
        await self.links.start(self.recorder)

    async def restart(self) -> None:
        """Start again after `close`."""
        self.links = self._made()
        await self.start()

    async def close(self) -> None:
        """End all connections."""
        await self.links.close()


def free_addresses(*names: str) -> dict[str, str]:
    """Loopback addresses for nodes."""
    sockets = {name: socket.socket() for name in names}
    for sock in sockets.values():
        sock.bind(("127.0.0.1", 0))
    addresses = {name: f"127.0.0.1:{sock.getsockname()[1]}" for name, sock in sockets.items()}
    for sock in sockets.values():
        sock.close()
    return addresses


async def connected(node: Node, peer: str) -> None:
    """Wait until a node has a connection to a peer."""
    await node.recorder.until(lambda: node.recorder.up(peer))


async def refused(logs: Sequence[Mapping[str, object]]) -> str:
    """Wait until the log says that a link was refused; the reason."""
    async with asyncio.timeout(WAIT_S):
        while True:  # a log has no event to await
            for entry in logs:
                if entry["event"] == "link refused":
                    return str(entry["reason"])
            await asyncio.sleep(0.01)


Pair = tuple[Node, Node]


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    """n1, which dials, and n2, which accepts; connected."""
    addresses = free_addresses("n1", "n2")
    first, second = Node("n1", addresses), Node("n2", addresses)
    await second.start()
    await first.start()
    await first.recorder.until(lambda: first.recorder.up("n2"))
    await second.recorder.until(lambda: second.recorder.up("n1"))
    yield first, second
    await first.close()
    await second.close()


def numbered(number: int, size: int = 0) -> bytes:
    """A serialized message that can be told from others."""
    chunk = raft_pb2.SnapshotChunk(data=bytes(size))
    return raft_pb2.RaftMessage(term=number, snapshot_chunk=chunk).SerializeToString()


async def test_messages_travel_both_ways_in_order(pair: Pair) -> None:
    """What is sent on one lane arrives once and in order, however many frames it takes."""
    first, second = pair
    for number in range(2000):
        first.links.send("n2", [numbered(number, 100)], False)
        second.links.send("n1", [numbered(number), numbered(number + 10_000)], False)
        if number % 500 == 0:
            await asyncio.sleep(0)
    await second.recorder.until(lambda: len(second.recorder.messages) == 2000)
    await first.recorder.until(lambda: len(first.recorder.messages) == 4000)
    assert second.recorder.numbers("n1") == list(range(2000))
    assert first.recorder.numbers("n2")[1::2] == list(range(10_000, 12_000))


async def test_a_large_backlog_is_cut_into_frames(pair: Pair) -> None:
    """More than one frame's worth that waits goes out in several frames, and all of it arrives."""
    first, second = pair
    count = 5
    first.links.send("n2", [numbered(n, FRAME_BYTES_MAX // 2) for n in range(count)], False)
    await second.recorder.until(lambda: len(second.recorder.messages) == count)
    assert second.recorder.numbers("n1") == list(range(count))


async def bulk_arrives(source: Node, target: Node, number: int) -> None:
    """Send a message as bulk until it arrives: what is sent before its stream is up is lost."""
    async with asyncio.timeout(WAIT_S):
        while number not in target.recorder.numbers(source.name):
            source.links.send(target.name, [numbered(number)], True)
            await asyncio.sleep(0.01)


async def test_bulk_has_a_stream_of_its_own(pair: Pair) -> None:
    """Bulk arrives too; when its stream breaks the connection is not reported as gone, and it comes back."""
    first, second = pair
    await bulk_arrives(first, second, 1)
    events = len(first.recorder.events)
    bulk = first.links._lanes["n2", True]
    assert bulk.connection is not None
    bulk.connection.abort()
    await bulk_arrives(first, second, 2)
    first.links.send("n2", [numbered(3)], False)
    await second.recorder.until(lambda: 3 in second.recorder.numbers("n1"))
    assert len(first.recorder.events) == events


async def test_each_pair_has_one_connection() -> None:
    """Of three nodes the one with the smaller name dials; all pairs are connected, each once."""
    addresses = free_addresses("n1", "n2", "n3")
    nodes = {name: Node(name, addresses) for name in addresses}
    for node in nodes.values():
        await node.start()
    for node in nodes.values():
        others = [name for name in nodes if name != node.name]
        for other in others:
            await connected(node, other)
        node.links.send(others[0], [numbered(1)], False)
    await nodes["n1"].recorder.until(lambda: len(nodes["n1"].recorder.messages) == 2)
    dialled = [[c for c in node.links._connections if c._dialled] for node in nodes.values()]
    assert [len(connections) for connections in dialled] == [4, 2, 0], "a quick one and one for bulk to each"
    assert all(
        node.recorder.events.count((peer, True)) == 1
        for node in nodes.values()
        for peer in nodes
        if peer != node.name
    )
    for node in nodes.values():
        await node.close()


async def test_without_a_connection_messages_are_lost() -> None:
    """Nothing is kept for a peer that is not there: Raft repairs loss, and old messages would be in the way."""
    addresses = free_addresses("n1", "n2")
    first, second = Node("n1", addresses), Node("n2", addresses)
    await first.start()
    first.links.send("n2", [numbered(1)], False)
    first.links.send("n9", [numbered(1)], False)
    await second.start()
    await first.recorder.until(lambda: first.recorder.up("n2"))
    first.links.send("n2", [numbered(2)], False)
    await second.recorder.until(lambda: len(second.recorder.messages) > 0)
    assert second.recorder.numbers("n1") == [2]
    await first.close()
    await second.close()


# ------------------------------------------------------------ who is let in


async def refusal(first: Node, second: Node) -> str:
    """Start both and return why the dialling end was refused."""
    with capture_logs() as logs:
        await second.start()
        await first.start()
        reason = await refused(logs)
    assert first.recorder.events == []
    assert second.recorder.events == []
    await first.close()
    await second.close()
    return reason


async def test_a_node_of_another_cluster_is_refused() -> None:
    """Nodes that were given each other's addresses by mistake do not connect, and say why."""
    addresses = free_addresses("n1", "n2")
    reason = await refusal(Node("n1", addresses, cluster="other"), Node("n2", addresses))
    assert "'other'" in reason


async def test_a_peer_with_another_data_directory_is_refused() -> None:
    """A member that lost its log must not take part as the one that had it."""
    addresses = free_addresses("n1", "n2")
    first, second = Node("n1", addresses, incarnation=7), Node("n2", addresses)
    second.known.incarnations["n1"] = 6
    assert "another data directory" in await refusal(first, second)


async def test_the_dialling_end_checks_too() -> None:
    """The one that dials refuses a peer whose data directory is not the known one."""
    addresses = free_addresses("n1", "n2")
    first, second = Node("n1", addresses), Node("n2", addresses, incarnation=7)
    first.known.incarnations["n2"] = 6
    with capture_logs() as logs:
        await second.start()
        await first.start()
        assert "another data directory" in await refused(logs)
    assert first.recorder.events == []
    await first.close()
    await second.close()


class Stranger:
    """A raw connection to a node, from whoever."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = FrameReader(PREFACE, MESSAGE_BYTES_MAX)

    @classmethod
    async def dial(cls, address: str) -> Stranger:
        """Connect."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def say(self, frame: peer_pb2.RaftFrame, preface: bytes = b"") -> None:
        """Send a frame."""
        self.writer.write(preface + frame_of(frame.SerializeToString()))

    async def heard(self) -> peer_pb2.RaftFrame | None:
        """Return the next frame that is not empty, None at the end of the connection."""
        async with asyncio.timeout(WAIT_S):
            while data := await self.read():
                for payload in self._frames.feed(data):
                    if payload:
                        return peer_pb2.RaftFrame.FromString(payload)
        return None

    async def read(self) -> bytes:
        """Return some bytes, none at the end, however it ends."""
        try:
            return await self.reader.read(1 << 16)
        except ConnectionError:
            return b""

    async def closed(self) -> bool:
        """Whether the other end closes the connection in time."""
        async with asyncio.timeout(WAIT_S):
            while await self.read():
                pass
        self.writer.close()
        return True


def hello(node: str, cluster: str = "c", incarnation: int = 1) -> peer_pb2.RaftFrame:
    """The first frame of a dialling end."""
    return peer_pb2.RaftFrame(hello=peer_pb2.Hello(cluster=cluster, node=node, incarnation=incarnation))


async def test_a_stranger_is_refused() -> None:
    """A node that is not in the configuration is refused, and so is one that claims to be us."""
    addresses = free_addresses("n1", "n2")
    second = Node("n2", addresses)
    await second.start()
    for name in ("n9", "n2"):
        stranger = await Stranger.dial(addresses["n2"])
        stranger.say(hello(name), PREFACE)
        answer = await stranger.heard()
        assert answer is not None
        assert "is not a peer" in answer.refusal
        assert await stranger.closed()
    assert second.recorder.events == []
    await second.close()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        PREFACE + HEADER.pack(HELLO_BYTES_MAX + 1, 0),
        PREFACE + HEADER.pack(4, 0) + b"abcd",
        PREFACE + frame_of(b"\xff" * 40),
        b"",
    ],
    ids=["http", "grpc", "too large", "checksum", "no message", "silent"],
)
async def test_who_does_not_say_hello_is_cut_off(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else arrives first, or nothing at all: the connection ends, and the peers' go on."""
    monkeypatch.setattr(transport, "HELLO_TIMEOUT_S", 0.2)
    addresses = free_addresses("n1", "n2")
    second = Node("n2", addresses)
    await second.start()
    stranger = await Stranger.dial(addresses["n2"])
    stranger.writer.write(said)
    assert await stranger.closed()
    assert second.recorder.events == []
    peer = await Stranger.dial(addresses["n2"])
    peer.say(hello("n1"), PREFACE)
    answer = await peer.heard()
    assert answer is not None
    assert answer.hello.node == "n2"
    peer.writer.close()
    await second.close()


async def test_strangers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without a hello above the bound are closed at once; those below are not, until their time is up."""
    monkeypatch.setattr(transport, "STRANGERS_MAX", 2)
    monkeypatch.setattr(transport, "HELLO_TIMEOUT_S", 60.0)
    addresses = free_addresses("n1", "n2")
    second = Node("n2", addresses)
    await second.start()
    kept = [await Stranger.dial(addresses["n2"]) for _ in range(2)]
    while len(second.links._connections) < len(kept):  # noqa: ASYNC110 - accepting is the other end's doing
        await asyncio.sleep(0.01)
    assert await (await Stranger.dial(addresses["n2"])).closed()
    kept[0].say(hello("n1"), PREFACE)
    answer = await kept[0].heard()
    assert answer is not None
    assert answer.hello.node == "n2"
    for stranger in kept:
        stranger.writer.close()
    await second.close()


# ------------------------------------------------------------ breaks


async def test_a_restarted_peer_is_found_again(pair: Pair) -> None:
    """When the accepting end goes and comes back both ends are told of the reset, and messages flow again."""
    first, second = pair
    await second.close()
    await first.recorder.until(lambda: not first.recorder.up("n2"))
    assert not second.recorder.up("n1")
    await second.restart()
    await first.recorder.until(lambda: first.recorder.up("n2"))
    await second.recorder.until(lambda: second.recorder.up("n1"))
    first.links.send("n2", [numbered(1)], False)
    second.links.send("n1", [numbered(2)], False)
    await second.recorder.until(lambda: second.recorder.numbers("n1") == [1])
    await first.recorder.until(lambda: first.recorder.numbers("n2") == [2])


async def test_a_break_while_writing_is_repaired(pair: Pair) -> None:
    """A connection that breaks under its writer is dialled again, time after time."""
    first, second = pair
    for _ in range(3):
        await second.close()
        while first.recorder.up("n2"):
            first.links.send("n2", [numbered(0, 100_000)], False)
            await asyncio.sleep(0)
        await second.restart()
        await first.recorder.until(lambda: first.recorder.up("n2"))
    second.recorder.messages.clear()
    first.links.send("n2", [numbered(1)], False)
    await second.recorder.until(lambda: 1 in second.recorder.numbers("n1"))


@pytest.mark.parametrize("end", ["n1", "n2"])
async def test_a_full_queue_resets_the_connection(
    pair: Pair, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its limit a queue is thrown away with its connection: both ends learn of it, and the link comes back."""
    monkeypatch.setattr(transport, "LINK_QUEUE_BYTES_MAX", 4 << 20)
    sender, receiver = pair if end == "n1" else pair[::-1]
    other = receiver.links._lanes[sender.name, False].connection
    assert other is not None
    assert other._transport is not None
    other._transport.pause_reading()
    lane = sender.links._lanes[receiver.name, False]
    connection = lane.connection
    assert connection is not None
    events = len(sender.recorder.events)
    number = 0
    async with asyncio.timeout(WAIT_S):
        while (receiver.name, False) not in sender.recorder.events[events:]:
            number += 1
            sender.links.send(receiver.name, [numbered(number, 100_000)], False)
            assert lane._bytes <= 4 << 20
            await asyncio.sleep(0)
    assert number > 4 * 10, "within the limit nothing happens"
    await sender.recorder.until(lambda: sender.recorder.up(receiver.name))
    await receiver.recorder.until(lambda: receiver.recorder.events.count((sender.name, True)) == 2)
    receiver.recorder.messages.clear()
    sender.links.send(receiver.name, [numbered(3)], False)
    await receiver.recorder.until(lambda: receiver.recorder.numbers(sender.name) == [3])


async def test_what_waits_for_a_slow_reader_arrives_in_order(pair: Pair) -> None:
    """A reader that takes nothing for a while gets all of it later, joined into few frames."""
    first, second = pair
    other = second.links._lanes["n1", False].connection
    assert other is not None
    assert other._transport is not None
    other._transport.pause_reading()
    for number in range(200):
        first.links.send("n2", [numbered(number, 100_000)], False)
        await asyncio.sleep(0)
    assert first.links._lanes["n2", False]._waiting, "the socket takes no more"
    other._transport.resume_reading()
    await second.recorder.until(lambda: len(second.recorder.messages) == 200)
    assert second.recorder.numbers("n1") == list(range(200))


async def test_a_silent_peer_is_cut_off(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that says nothing at all, as behind a cut, counts as gone; one that has nothing to say does not."""
    first, second = pair
    monkeypatch.setattr(transport, "SILENCE_S", 1.2)
    events = len(first.recorder.events)
    await asyncio.sleep(1.5)
    assert first.recorder.events[events:] == [], "it has nothing to say, and says so"
    for known in list(second.links._connections):
        monkeypatch.setattr(known, "keep_alive", lambda _: None)
    await first.recorder.until(lambda: ("n2", False) in first.recorder.events[events:])
    await first.recorder.until(lambda: first.recorder.up("n2"))


async def test_a_new_connection_takes_the_place_of_a_dead_one(pair: Pair) -> None:
    """A peer that dials again before its old connection is known to be dead is let in, and the reset is told."""
    _, second = pair
    events = len(second.recorder.events)
    again = await Stranger.dial(second.address)
    again.say(hello("n1"), PREFACE)
    answer = await again.heard()
    assert answer is not None
    assert answer.hello.node == "n2"
    again.say(peer_pb2.RaftFrame(messages=[raft_pb2.RaftMessage(term=8)]))
    await second.recorder.until(lambda: 8 in second.recorder.numbers("n1"))
    again.writer.close()
    assert second.recorder.events[events : events + 2] == [("n1", False), ("n1", True)]
    await second.recorder.until(lambda: second.recorder.events.count(("n1", True)) == 3)
