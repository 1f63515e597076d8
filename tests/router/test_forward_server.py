"""The receiving side of a Forward stream."""

from __future__ import annotations

import grpc
import pytest

from kv.errors import (
    InvalidArgument,
    Overloaded,
    Unavailable,
    WrongCluster,
    WrongPartition,
    from_grpc,
    from_proto,
)
from kv.internal.v1 import peer_pb2, peer_pb2_grpc
from kv.router.forward_server import ForwardInbox
from kv.router.limits import RouterConfig
from tests.router.conftest import MakeWorld
from tests.router.world import CLUSTER, VirtualWorld, batch, get, put


def forwarded(ticket: int, partition: int = 1) -> peer_pb2.ForwardedBatch:
    """Return a forwarded read."""
    return peer_pb2.ForwardedBatch(id=ticket, partition=partition, batch=batch(get(b"k")).SerializeToString())


def inbox_of(world: VirtualWorld, config: RouterConfig | None = None) -> ForwardInbox:
    """Return the inbox of a stream into n1."""
    return ForwardInbox(world.nodes["n1"], config or RouterConfig(), lambda: None)


def replies(inbox: ForwardInbox) -> list[peer_pb2.ForwardedReply]:
    """Take one message of replies."""
    raw = inbox.take_out()
    return [] if raw is None else list(peer_pb2.ForwardResponse.FromString(raw).replies)


def test_replies_that_are_ready_are_joined() -> None:
    """All batches of a message are submitted, and their replies travel together with their tickets."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    inbox = inbox_of(world)
    inbox.take_in(peer_pb2.ForwardRequest(batches=[forwarded(5), forwarded(6)]))
    assert [(reply.id, reply.WhichOneof("outcome")) for reply in replies(inbox)] == [
        (5, "batch"),
        (6, "batch"),
    ]
    assert replies(inbox) == []


def test_messages_of_replies_are_bounded() -> None:
    """Joining stops at forward_message_bytes_max."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    inbox = inbox_of(world, RouterConfig(forward_message_bytes_max=1))
    inbox.take_in(peer_pb2.ForwardRequest(batches=[forwarded(5), forwarded(6)]))
    assert [len(replies(inbox)) for _ in range(3)] == [1, 1, 0]


def test_a_partition_that_is_not_here_is_told_apart_from_one_not_started() -> None:
    """WRONG_PARTITION sends the caller away; UNAVAILABLE asks it to wait."""
    world = VirtualWorld(partitions=1)
    inbox = inbox_of(world)
    inbox.take_in(peer_pb2.ForwardRequest(batches=[forwarded(1, partition=99)]))
    assert isinstance(from_proto(replies(inbox)[0].error), WrongPartition)
    world.nodes["n1"].replicas.clear()
    inbox.take_in(peer_pb2.ForwardRequest(batches=[forwarded(2)]))
    assert isinstance(from_proto(replies(inbox)[0].error), Unavailable)


def test_in_flight_is_bounded() -> None:
    """A sender that ignores its own bound is refused by ours."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    world.groups[1].hold_replies = True
    inbox = inbox_of(world, RouterConfig(forward_in_flight_max=2))
    inbox.take_in(peer_pb2.ForwardRequest(batches=[forwarded(n) for n in (1, 2, 3)]))
    [refused] = replies(inbox)
    assert refused.id == 3
    assert isinstance(from_proto(refused.error), Overloaded)


def test_replies_after_the_end_of_the_stream_are_dropped() -> None:
    """A replica may answer when nobody listens any more."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    world.groups[1].hold_replies = True
    inbox = inbox_of(world)
    inbox.take_in(peer_pb2.ForwardRequest(batches=[forwarded(1)]))
    inbox.close()
    world.groups[1].release()
    assert replies(inbox) == []


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (peer_pb2.ForwardRequest(batches=[forwarded(1)]), InvalidArgument),
        (peer_pb2.ForwardRequest(hello=peer_pb2.Hello(cluster="other", node="x")), WrongCluster),
    ],
)
async def test_a_stream_begins_with_the_right_hello(
    wire_world: MakeWorld, first: peer_pb2.ForwardRequest, expected: type[Exception]
) -> None:
    """No hello and the hello of another cluster end the stream with a reason, and nothing is applied."""
    world = await wire_world(partitions=1)
    stub: peer_pb2_grpc.PeerServiceAsyncStub = peer_pb2_grpc.PeerServiceStub(world.channels["n1"])
    call = stub.Forward()
    await call.write(first)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    error = from_grpc(
        caught.value.code().value[0], "", tuple(caught.value.trailing_metadata() or ()), sent=True
    )
    assert isinstance(error, expected)
    assert world.groups[1].submitted == []


async def test_the_stream_answers_hello_and_then_each_batch(wire_world: MakeWorld) -> None:
    """The first response says who answers; then replies come by ticket."""
    world = await wire_world(partitions=1)
    world.lead("n1")
    stub: peer_pb2_grpc.PeerServiceAsyncStub = peer_pb2_grpc.PeerServiceStub(world.channels["n1"])
    call = stub.Forward()
    hello = peer_pb2.Hello(cluster=CLUSTER, node="tester")
    await call.write(peer_pb2.ForwardRequest(hello=hello, batches=[]))
    greeting = await call.read()
    assert isinstance(greeting, peer_pb2.ForwardResponse)
    assert (greeting.hello.cluster, greeting.hello.node) == (CLUSTER, "n1")
    write = peer_pb2.ForwardedBatch(id=9, partition=1, batch=batch(put(b"k")).SerializeToString())
    await call.write(peer_pb2.ForwardRequest(batches=[write]))
    answer = await call.read()
    assert isinstance(answer, peer_pb2.ForwardResponse)
    assert [reply.id for reply in answer.replies] == [9]
    call.cancel()
