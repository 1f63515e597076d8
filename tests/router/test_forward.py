"""The stream to another node: joining, bounds, and what its end means; without a wire and with one."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import NotLeader, Overloaded, Unavailable, UnknownOutcome, WrongCluster, to_proto
from kv.internal.v1 import peer_pb2
from kv.router.forward import ForwardLink
from kv.router.limits import RouterConfig
from kv.router.streams import server_options
from tests.router.conftest import MakeWorld
from tests.router.world import Inbox, batch, get, put

KEY = b"key"


class Link:
    """A link that is open, with what it woke for."""

    def __init__(self, config: RouterConfig | None = None) -> None:
        self.wakes = 0
        self.link = ForwardLink("n2", config or RouterConfig(), self._wake)
        self.link.opened()

    def _wake(self) -> None:
        self.wakes += 1

    def send(self, raw: bytes = b"x") -> tuple[int, Inbox]:
        inbox = Inbox()
        return self.link.send(1, 1, 1000, raw, inbox), inbox

    def take(self) -> list[peer_pb2.ForwardedBatch]:
        raw = self.link.take()
        return [] if raw is None else list(peer_pb2.ForwardRequest.FromString(raw).batches)


def test_what_waits_travels_in_one_message_in_order() -> None:
    """Requests that arrive while the stream is busy are joined; nothing waits for company."""
    link = Link()
    tickets = [link.send(b"%d" % n)[0] for n in range(5)]
    assert link.wakes == 5
    taken = link.take()
    assert [b.id for b in taken] == tickets
    assert [b.batch for b in taken] == [b"0", b"1", b"2", b"3", b"4"]
    assert link.take() == []


def test_a_message_is_bounded_and_a_larger_request_travels_alone() -> None:
    """Joining stops below forward_message_bytes_max; what is larger by itself still goes."""
    link = Link(RouterConfig(forward_message_bytes_max=10))
    for size in (6, 4, 1, 30, 1):
        link.send(b"x" * size)
    sizes = []
    while taken := link.take():
        sizes.append([len(b.batch) for b in taken])
    assert sizes == [[6, 4], [1], [30], [1]]


def test_replies_are_matched_by_ticket_in_any_order() -> None:
    """Each reply reaches its request; one that this node does not understand is unknown."""
    link = Link()
    sent = [link.send() for _ in range(3)]
    link.take()
    replies = [
        peer_pb2.ForwardedReply(id=sent[2][0], batch=b"two"),
        peer_pb2.ForwardedReply(id=sent[0][0], error=to_proto(NotLeader("x", metadata={"leader": "n3"}))),
        peer_pb2.ForwardedReply(id=sent[1][0]),
        peer_pb2.ForwardedReply(id=999, batch=b"nobody's"),
    ]
    link.link.answered(peer_pb2.ForwardResponse(replies=replies))
    assert sent[2][1].outcomes == [b"two"]
    assert isinstance(sent[0][1].error, NotLeader)
    assert sent[0][1].error.metadata == {"leader": "n3"}
    assert isinstance(sent[1][1].error, UnknownOutcome)


@given(st.integers(min_value=0, max_value=8), st.integers(min_value=0, max_value=8))
def test_the_end_of_a_stream_is_unknown_for_sent_and_definite_for_unsent(sent: int, unsent: int) -> None:
    """What was handed to the wire may have been applied; what was not was not."""
    link = Link()
    first = [link.send()[1] for _ in range(sent)]
    link.take()
    second = [link.send()[1] for _ in range(unsent)]
    link.link.lost(Unavailable("gone"))
    assert all(isinstance(inbox.error, UnknownOutcome) for inbox in first)
    assert all(isinstance(inbox.error, Unavailable) and inbox.error.definite for inbox in second)
    assert link.link.in_flight == 0
    _, later = link.send()
    assert isinstance(later.error, Unavailable)


def test_in_flight_and_waiting_bytes_are_bounded() -> None:
    """At each bound the next request is refused, definite, and an answer makes room."""
    link = Link(RouterConfig(forward_in_flight_max=2))
    (first, _), _ = link.send(), link.send()
    assert isinstance(link.send()[1].error, Overloaded)
    link.take()
    link.link.answered(peer_pb2.ForwardResponse(replies=[peer_pb2.ForwardedReply(id=first, batch=b"done")]))
    assert link.send()[1].empty
    narrow = Link(RouterConfig(forward_waiting_bytes_max=10))
    assert narrow.send(b"x" * 10)[1].empty
    assert isinstance(narrow.send()[1].error, Overloaded)
    narrow.take()
    assert narrow.send(b"x" * 50)[1].empty, "a large request alone is not refused for ever"


def test_cancel_tells_whether_it_was_sent() -> None:
    """A request that still waits is taken back; one on its way is only forgotten."""
    link = Link()
    waiting, inbox = link.send()
    assert link.link.cancel(waiting)
    assert link.take() == []
    sent, other = link.send()
    link.take()
    assert not link.link.cancel(sent)
    link.link.lost(Unavailable("gone"))
    assert inbox.empty
    assert other.empty


# --- with a wire ----------------------------------------------------------------------------------


async def ask(world_router: object, raw: bytes) -> Inbox:
    """Send a batch for partition 1 through a router and wait for its end."""
    from kv.router.dispatch import Router

    assert isinstance(world_router, Router)
    inbox, done = Inbox(), asyncio.Event()

    def reply(outcome: object) -> None:
        inbox(outcome)  # type: ignore[arg-type]
        done.set()

    world_router.submit(raw, 1, world_router.deadline(2000), reply)
    async with asyncio.timeout(5):
        await done.wait()
    return inbox


async def test_requests_and_replies_cross_the_wire(wire_world: MakeWorld) -> None:
    """A write at one node is applied at the leader on the other and answered with its evidence."""
    world = await wire_world(partitions=1)
    world.lead("n2")
    await world.connected("n1", "n2")
    inbox = await ask(world.nodes["n1"].router, batch(put(KEY)).SerializeToString())
    assert inbox.response.results[0].put.version == 1
    assert inbox.response.evidence[0].node == "n2"


async def test_a_stream_that_breaks_leaves_a_bare_write_unknown_and_comes_back(
    wire_world: MakeWorld,
) -> None:
    """The peer dies with a request in its hands: unknown for the write; a new peer is found by itself."""
    world = await wire_world(partitions=1)
    world.lead("n2")
    await world.connected("n1", "n2")
    [group] = world.groups.values()
    group.hold_replies = True
    pending = asyncio.create_task(ask(world.nodes["n1"].router, batch(put(KEY)).SerializeToString()))
    await group.holding(1)
    link = world.nodes["n1"].forwarders.get("n2")
    await world.nodes["n2"].server.stop(None)
    inbox = await pending
    assert isinstance(inbox.error, UnknownOutcome)
    refused = Inbox()
    link.send(1, 1, 100, b"", refused)
    assert isinstance(refused.error, Unavailable)
    assert refused.error.definite
    group.hold_replies = False
    node = world.nodes["n2"]
    server = grpc.aio.server(options=server_options(node.config))
    assert server.add_insecure_port(node.address) == node.port
    node.service.add_to(server)
    await server.start()
    await world.connected("n1", "n2")
    again = await ask(world.nodes["n1"].router, batch(put(KEY)).SerializeToString())
    await server.stop(None)
    assert again.ok


async def test_a_peer_of_another_cluster_is_refused(wire_world: MakeWorld) -> None:
    """Two clusters whose addresses were mixed up never exchange requests."""
    world = await wire_world(partitions=1, foreign="n2")
    forwarder = world.nodes["n1"].forwarders.get("n2")
    async with asyncio.timeout(5):
        while True:
            inbox = Inbox()
            forwarder.send(1, 1, 100, batch(get(KEY)).SerializeToString(), inbox)
            if isinstance(inbox.error, WrongCluster):
                break
            await asyncio.sleep(0.005)
    assert world.nodes["n1"].forwarders.connected() == []


async def test_a_node_outside_of_the_map_is_unavailable(wire_world: MakeWorld) -> None:
    """A forwarder for an unknown node refuses, definite."""
    world = await wire_world(partitions=1)
    inbox = Inbox()
    forwarder = world.nodes["n1"].forwarders.get("n9")
    forwarder.send(1, 1, 100, b"", inbox)
    assert isinstance(inbox.error, Unavailable)
    assert not forwarder.cancel(1)


async def test_the_nodes_of_the_map_have_streams_before_they_are_needed(wire_world: MakeWorld) -> None:
    """`follow` opens the streams by itself, closes those to nodes that left, and leaves the others alone."""
    world = await wire_world(nodes=3, partitions=1)
    forwarders = world.nodes["n1"].forwarders
    forwarders.follow(["n2", "n3"])
    async with asyncio.timeout(5):
        while forwarders.connected() != ["n2", "n3"]:  # noqa: ASYNC110 - a stream has no event to await
            await asyncio.sleep(0.005)
    kept, left = forwarders.get("n2"), forwarders.get("n3")
    forwarders.follow(["n2"])
    assert forwarders.connected() == ["n2"]
    assert forwarders.get("n2") is kept
    async with asyncio.timeout(5):
        while getattr(left, "link").connected:  # noqa: ASYNC110, B009 - as above
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
async def test_any_node_serves_over_the_wire(wire_world: MakeWorld, node: str) -> None:
    """With real streams between three nodes, one of them without a replica, each accepts the write."""
    world = await wire_world(nodes=3, partitions=2, replication_factor=2)
    response = await world.stub(node).Batch(batch(put(b"a"), put(b"b"), put(b"c"), get(b"a")), timeout=5)
    assert [result.WhichOneof("result") for result in response.results] == ["put", "put", "put", "get"]
