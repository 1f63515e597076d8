"""The direct way beside a stream: taken up where it works, missed by nobody where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kv.client.aio import AsyncClient
from kv.client.direct import DirectConnection
from kv.direct import PREFACE
from kv.frames import EMPTY, HEADER
from tests.client.fakes import Fault
from tests.client.playing import identities, once
from tests.client.server import FakeDirect, GrpcCluster, grpc_cluster

WAIT_S = 20.0


@asynccontextmanager
async def direct_cluster(rude: bytes | None = None) -> AsyncIterator[tuple[GrpcCluster, list[FakeDirect]]]:
    """Run a cluster of one partition whose nodes offer the direct way."""
    async with grpc_cluster(partitions=1) as cluster:
        ways = [FakeDirect(node, rude) for node in cluster.nodes.values()]
        for way in ways:
            await way.start()
        yield cluster, ways
        for way in ways:
            await way.stop()


async def write_until_direct(client: AsyncClient, ways: list[FakeDirect]) -> int:
    """Write until a message has taken the direct way; return how often."""
    async with asyncio.timeout(WAIT_S):
        count = 0
        while not any(way.messages for way in ways):
            await client.put(b"k", b"v")
            count += 1
    return count


async def test_messages_take_the_direct_way() -> None:
    """Once the connection stands nothing goes over gRPC any more, and every call is answered once."""
    async with direct_cluster() as (cluster, ways), AsyncClient(cluster.addresses) as client:
        written = await write_until_direct(client, ways)
        over_grpc = cluster.fake.messages
        replies = await asyncio.gather(*(client.put(b"k%d" % i, b"v" * 10_000) for i in range(300)))
        assert [reply.version for reply in replies] == [1] * 300
        items = await asyncio.gather(*(client.get(b"k%d" % i) for i in range(300)))
        assert all(item and item.value == b"v" * 10_000 for item in items)
        assert cluster.fake.messages == over_grpc
        assert len(cluster.fake.partitions[1].applied) == written + 300


async def test_a_request_leaves_before_what_else_is_ready_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made and sent in one turn of the loop: others may be ready, many and slow, and the node waits meanwhile."""
    events: list[str] = []
    send = DirectConnection.send

    def noted(connection: DirectConnection, message: bytes) -> None:
        events.append("sent")
        send(connection, message)

    async with direct_cluster() as (cluster, ways), AsyncClient(cluster.addresses) as client:
        await write_until_direct(client, ways)
        monkeypatch.setattr(DirectConnection, "send", noted)
        loop = asyncio.get_running_loop()
        put = asyncio.ensure_future(client.put(b"k", b"v"))
        loop.call_soon(
            loop.call_soon, events.append, "others"
        )  # in the turn after that in which `put` is called
        await put
        assert events == ["sent", "others"]


async def test_an_offer_where_nobody_listens() -> None:
    """A port that cannot be reached costs nothing: the stream goes on over gRPC."""
    async with direct_cluster() as (cluster, ways):
        for way in ways:
            await way.stop()
        async with AsyncClient(cluster.addresses) as client:
            for _ in range(20):
                await client.put(b"k", b"v")
        assert len(cluster.fake.partitions[1].applied) == 20
        assert not any(way.connections for way in ways)


@pytest.mark.parametrize("rude", [b"", b"HTTP/1.1 400", PREFACE + HEADER.pack(1, 7) + b"x"])
async def test_who_does_not_let_in_is_left_alone(monkeypatch: pytest.MonkeyPatch, rude: bytes) -> None:
    """Silence, another protocol, a broken frame: the stream goes on over gRPC, and nothing is lost or sent twice."""
    monkeypatch.setattr("kv.client.connection.ACCEPT_TIMEOUT_S", 0.1)
    async with direct_cluster(rude) as (cluster, ways), AsyncClient(cluster.addresses) as client:
        async with asyncio.timeout(WAIT_S):
            while not any(way.connections for way in ways):
                await client.put(b"k", b"v")
        await asyncio.sleep(0.2)  # past the time in which the offer would still be taken up
        for number in range(20):
            await client.put(b"n%d" % number, b"v")
        applied = [key for key, _ in cluster.fake.partitions[1].applied if key != b"k"]
        assert applied == [b"n%d" % number for number in range(20)]
        assert not any(way.messages for way in ways)


async def test_a_client_that_is_closed_before_it_was_let_in_leaves_no_connection() -> None:
    """The connection that waits for the node's greeting ends with the stream for which it was made."""
    async with direct_cluster(b"") as (cluster, ways):
        async with asyncio.timeout(WAIT_S), AsyncClient(cluster.addresses) as client:
            while not any(way.connections for way in ways):
                await client.put(b"k", b"v")
        async with asyncio.timeout(WAIT_S):
            for way in [way for way in ways if way.connections]:
                await way.ended.wait()


@pytest.mark.parametrize("fault", [Fault.CUT_AFTER, Fault.CUT_BEFORE])
async def test_a_connection_that_ends_is_an_end_of_the_stream(fault: Fault) -> None:
    """What was sent on it has an unknown outcome: the identical request is sent again, and is applied once."""
    async with direct_cluster() as (cluster, ways), AsyncClient(cluster.addresses) as client:
        await write_until_direct(client, ways)
        cluster.fake.requests.clear()
        cluster.fake.rule = once(fault)
        reply = await client.put(b"once", b"1")
        assert reply.version == 1
        assert [key for key, _ in cluster.fake.partitions[1].applied].count(b"once") == 1
        first, second = identities(cluster.fake)
        assert first == second
        connections = sum(way.connections for way in ways)
        await write_until_direct(client, ways)
        async with asyncio.timeout(WAIT_S):
            while sum(way.connections for way in ways) == connections:
                await client.put(b"k", b"v")


async def test_garbage_after_the_greeting_ends_the_stream() -> None:
    """A node that says something unreadable is asked again, on a new stream."""
    async with direct_cluster(PREFACE + EMPTY + HEADER.pack(1, 7) + b"x") as (cluster, ways):
        async with AsyncClient(cluster.addresses) as client:
            for number in range(5):
                await client.put(b"n%d" % number, b"v")
            async with asyncio.timeout(WAIT_S):
                while not any(way.connections for way in ways):
                    await client.put(b"k", b"v")
            await client.put(b"last", b"v")
        applied = [key for key, _ in cluster.fake.partitions[1].applied if key != b"k"]
        assert applied == [*(b"n%d" % number for number in range(5)), b"last"]
