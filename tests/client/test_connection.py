"""The client over real gRPC: streams that break, nodes that stop, addresses where nobody listens."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Collection

import pytest

from kv.client.aio import AsyncClient
from kv.client.connection import JOINED_BYTES_MAX, GrpcTransport, take_joined
from kv.client.types import Get, Put, PutReply
from kv.errors import DeadlineExceeded, KVError, NotLeader, Overloaded, SessionExpired, Unavailable
from kv.v1 import kv_pb2
from tests.client.fakes import Fault
from tests.client.playing import identities, once
from tests.client.server import GrpcCluster, grpc_cluster


def client_of(cluster: GrpcCluster, **options: float) -> AsyncClient:
    """Return a client of the cluster."""
    return AsyncClient(cluster.addresses, **options)  # type: ignore[arg-type]


async def test_every_method_works_over_grpc() -> None:
    """Keys, batches, transactions, scans, map and status travel as they should."""
    async with grpc_cluster() as cluster, client_of(cluster) as client:
        assert (await client.put(b"{a}1", b"x")).version == 1
        item = await client.get(b"{a}1", level="stale")
        assert item is not None
        assert item.value == b"x"
        await asyncio.gather(*(client.put(b"k%02d" % i, b"v") for i in range(100)))
        results = await client.batch([Get(b"k%02d" % i) for i in range(100)])
        assert all(result is not None for result in results)
        assert (await client.txn(then=[Put(b"{a}2", b"y"), Get(b"{a}1")])).succeeded
        assert [item.key async for item in client.scan(b"k0")] == [b"k%02d" % i for i in range(10)]
        assert (await client.delete(b"{a}1")).deleted
        assert await client.cluster_map() == cluster.fake.map
        assert (await client.status("n3")).id == "n3"


@pytest.mark.parametrize(
    "fault", [Fault.CUT_AFTER, Fault.CUT_BEFORE, Overloaded("busy"), SessionExpired("gone")]
)
async def test_a_write_survives_one_fault(fault: Fault | KVError) -> None:
    """Whatever happens to the first attempt, the write is applied exactly once."""
    async with grpc_cluster() as cluster, client_of(cluster) as client:
        cluster.fake.rule = once(fault)
        assert (await client.put(b"a", b"1")).version == 1
        applied = [one for part in cluster.fake.partitions.values() for one in part.applied]
        assert applied == [(b"a", b"1")]
        first, second = identities(cluster.fake)
        assert (first == second) is (fault in {Fault.CUT_AFTER, Fault.CUT_BEFORE})


async def test_leaders_are_followed_over_grpc() -> None:
    """NOT_LEADER hints arrive as metadata of the error and are followed."""
    async with grpc_cluster(partitions=1) as cluster, client_of(cluster) as client:
        cluster.fake.forwards = False
        cluster.fake.leaders[1] = cluster.fake.map.partitions[0].replicas[2]
        assert (await client.put(b"a", b"1")).evidence.node == cluster.fake.leaders[1]


async def test_a_stopped_node_is_passed_over() -> None:
    """Writes go on while a node is down, and no acknowledged one is lost."""
    async with grpc_cluster(partitions=1) as cluster, client_of(cluster) as client:
        first, second, _ = cluster.fake.map.partitions[0].replicas
        await client.put(b"a", b"0")
        cluster.fake.leaders[1] = second
        tasks = [asyncio.ensure_future(client.put(b"k%d" % i, b"v")) for i in range(20)]
        await cluster.stop(first)
        assert all(isinstance(reply, PutReply) for reply in await asyncio.gather(*tasks))
        assert (await client.put(b"a", b"1")).version == 2
        assert len(cluster.fake.partitions[1].applied) == 22


async def test_nobody_listens() -> None:
    """Where nobody listens the caller gets a definite deadline that names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with AsyncClient([address], timeout=0.3) as client:
            with pytest.raises(DeadlineExceeded, match=address) as caught:
                await client.put(b"a", b"1")
            assert caught.value.definite


async def test_what_was_not_written_is_reported_unsent() -> None:
    """A stream without a connection reports its requests as unsent, once, and takes them back if asked."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        transport = GrpcTransport(connect_timeout_s=0.1)
        ended: asyncio.Future[tuple[KVError, Collection[int]]] = asyncio.get_running_loop().create_future()

        def reply(_: kv_pb2.PipelineResponse) -> None:
            raise AssertionError("nobody is there to reply")

        def closed(error: KVError, unsent: Collection[int]) -> None:
            ended.set_result((error, unsent))

        stream = transport.open(f"127.0.0.1:{taken.getsockname()[1]}", reply, closed)
        stream.send(1, b"")
        stream.send(2, b"")
        assert stream.withdraw(1)
        assert not stream.withdraw(1)
        error, unsent = await ended
        assert isinstance(error, Unavailable)
        assert list(unsent) == [2]
        await transport.close()


def test_what_waits_is_joined_up_to_a_limit() -> None:
    """A message takes the first of the queue up to the limit; a larger one travels alone, in its place."""
    sizes = (JOINED_BYTES_MAX - 5, 5, 1, JOINED_BYTES_MAX + 1, 2, 3)
    queue = deque((number, bytes([number]) * size) for number, size in enumerate(sizes))
    messages = [take_joined(queue, JOINED_BYTES_MAX) for _ in range(4)]
    assert [(len(one), sorted(set(one))) for one in messages] == [
        (JOINED_BYTES_MAX, [0, 1]),
        (1, [2]),
        (JOINED_BYTES_MAX + 1, [3]),
        (5, [4, 5]),
    ]
    assert not queue


async def test_requests_of_all_partitions_of_a_node_share_a_message() -> None:
    """What a turn of the loop asks of one node, for however many partitions, leaves in one message."""
    async with grpc_cluster(partitions=8) as cluster, client_of(cluster) as client:
        for partition in cluster.fake.map.partitions:
            cluster.fake.leaders[partition.id] = "n1"
        keys = [b"k%d" % number for number in range(200)]
        await asyncio.gather(*(client.put(key, b"0") for key in keys))  # learns the leaders, opens sessions
        cluster.fake.messages = 0
        cluster.fake.requests.clear()
        await asyncio.gather(*(client.put(key, b"1") for key in keys))
        assert {node for node, _ in cluster.fake.requests} == {"n1"}
        assert (cluster.fake.messages, len(cluster.fake.requests)) == (1, 8)


async def test_a_refusal_with_details_keeps_its_class() -> None:
    """An error of one operation of the stream arrives as its own class with its metadata."""
    async with grpc_cluster(partitions=1) as cluster, client_of(cluster, timeout=0.2) as client:
        cluster.fake.rule = lambda _node, _request: NotLeader("no", metadata={"leader": "", "partition": 1})
        with pytest.raises(DeadlineExceeded, match="NOT_LEADER"):
            await client.get(b"a")
