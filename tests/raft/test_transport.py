"""The links between nodes, over real gRPC streams on the loopback interface."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from kv.internal.v1 import peer_pb2, peer_pb2_grpc, raft_pb2
from kv.raft import transport
from kv.raft.transport import FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, PeerLinks

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
)
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
    """One node: its links, and the server that accepts for them."""

    def __init__(
        self, name: str, addresses: dict[str, str], cluster: str = "c", incarnation: int = 1
    ) -> None:
        self.name, self.address = name, addresses[name]
        self.recorder, self.known = Recorder(), Known()
        self.links = PeerLinks(
            me=name, cluster=cluster, incarnation=incarnation, addresses=addresses, identities=self.known
        )
        self.server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen, and dial."""
        await self.listen()
        self.links.start(self.recorder)

    async def listen(self) -> None:
        """Start a server for the links."""
        self.server = grpc.aio.server(options=SERVER_OPTIONS)
        self.server.add_generic_rpc_handlers((self.links.handler(),))
        assert self.server.add_insecure_port(self.address)
        await self.server.start()

    async def deafen(self) -> None:
        """Stop the server; streams that it carried break."""
        assert self.server is not None
        await self.server.stop(None)

    async def close(self) -> None:
        """End everything."""
        await self.links.close()
        await self.deafen()


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


def numbered(number: int, size: int = 0) -> raft_pb2.RaftMessage:
    """A message that can be told from others."""
    chunk = raft_pb2.SnapshotChunk(data=bytes(size))
    return raft_pb2.RaftMessage(term=number, snapshot_chunk=chunk)


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
    assert bulk.stream is not None
    bulk.stream.cancel()
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
    assert [len(node.links._channels) for node in nodes.values()] == [2, 1, 0]
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


async def test_a_stranger_is_refused() -> None:
    """A node that is not in the configuration is refused, and so is one that claims to be us."""
    addresses = free_addresses("n1", "n2")
    second = Node("n2", addresses)
    await second.start()
    for name in ("n9", "n2"):
        async with grpc.aio.insecure_channel(addresses["n2"]) as channel:
            call = peer_pb2_grpc.PeerServiceStub(channel).Raft()
            await call.write(
                peer_pb2.RaftRequest(hello=peer_pb2.Hello(cluster="c", node=name, incarnation=1))
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert second.recorder.events == []
    await second.close()


# ------------------------------------------------------------ breaks


async def test_a_restarted_server_is_found_again(pair: Pair) -> None:
    """When the accepting end goes and comes back both ends are told of the reset, and messages flow again."""
    first, second = pair
    await second.deafen()
    await first.recorder.until(lambda: not first.recorder.up("n2"))
    await second.recorder.until(lambda: not second.recorder.up("n1"))
    await second.listen()
    await first.recorder.until(lambda: first.recorder.up("n2"))
    await second.recorder.until(lambda: second.recorder.up("n1"))
    first.links.send("n2", [numbered(1)], False)
    second.links.send("n1", [numbered(2)], False)
    await second.recorder.until(lambda: second.recorder.numbers("n1") == [1])
    await first.recorder.until(lambda: first.recorder.numbers("n2") == [2])


async def test_a_break_while_writing_is_repaired(pair: Pair) -> None:
    """A stream that breaks under its writer is dialled again, time after time."""
    first, second = pair
    for _ in range(3):
        await second.deafen()
        while first.recorder.up("n2"):
            first.links.send("n2", [numbered(0, 100_000)], False)
            await asyncio.sleep(0)
        await second.listen()
        await first.recorder.until(lambda: first.recorder.up("n2"))
    second.recorder.messages.clear()
    first.links.send("n2", [numbered(1)], False)
    await second.recorder.until(lambda: 1 in second.recorder.numbers("n1"))


@pytest.mark.parametrize("end", ["n1", "n2"])
async def test_a_full_queue_resets_the_connection(
    pair: Pair, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its limit a queue is thrown away with its stream: both ends learn of it, and the link comes back."""
    monkeypatch.setattr(transport, "LINK_QUEUE_BYTES_MAX", 1000)
    sender, receiver = pair if end == "n1" else pair[::-1]
    sender.links.send(receiver.name, [numbered(1, 900)], False)
    await receiver.recorder.until(lambda: receiver.recorder.numbers(sender.name) == [1])
    assert sender.recorder.up(receiver.name), "within the limit nothing happens"
    events = len(sender.recorder.events)
    sender.links.send(receiver.name, [numbered(2, 1100)], False)
    await sender.recorder.until(lambda: (receiver.name, False) in sender.recorder.events[events:])
    await sender.recorder.until(lambda: sender.recorder.up(receiver.name))
    await receiver.recorder.until(lambda: receiver.recorder.events.count((sender.name, True)) == 2)
    sender.links.send(receiver.name, [numbered(3)], False)
    await receiver.recorder.until(lambda: 3 in receiver.recorder.numbers(sender.name))
    assert receiver.recorder.numbers(sender.name) == [1, 3]


async def test_a_new_stream_takes_the_place_of_a_dead_one(pair: Pair) -> None:
    """A peer that dials again before its old stream is known to be dead is let in, and the reset is told."""
    _, second = pair
    events = len(second.recorder.events)
    async with grpc.aio.insecure_channel(second.address) as channel:
        call = peer_pb2_grpc.PeerServiceStub(channel).Raft()
        await call.write(peer_pb2.RaftRequest(hello=peer_pb2.Hello(cluster="c", node="n1", incarnation=1)))
        answer = await call.read()
        assert isinstance(answer, peer_pb2.RaftResponse)
        assert answer.hello.node == "n2"
        await call.write(peer_pb2.RaftRequest(messages=[numbered(8)]))
        await second.recorder.until(lambda: 8 in second.recorder.numbers("n1"))
    assert second.recorder.events[events : events + 2] == [("n1", False), ("n1", True)]
    await second.recorder.until(lambda: second.recorder.events.count(("n1", True)) == 3)
