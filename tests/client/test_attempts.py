"""How the core repeats, routes and paces attempts, in virtual time over a fake network."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from kv.client.aio import AsyncClient
from kv.cluster.map import PartitionInfo
from kv.errors import DeadlineExceeded, DiskFull, KVError, NoLeader, SessionExpired, UnknownOutcome
from kv.router.ring import HASH_SPACE
from tests.client.fakes import FakeCluster, FakeTransport, Fault
from tests.client.memory import rows_of
from tests.client.playing import always, identities, once, play


def test_a_lost_reply_is_repeated_with_the_same_identity() -> None:
    """After a reply was lost the identical request is sent again, and the first result comes back."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = once(Fault.CUT_AFTER)
        reply = await client.put(b"a", b"1")
        assert reply.version == 1
        first, second = identities(cluster)
        assert first == second
        assert cluster.partitions[1].applied == [(b"a", b"1")]

    play(scenario)


def test_silence_is_broken_by_another_node() -> None:
    """A request without an answer for attempt_timeout_s goes to another node and is applied once."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"0")
        start = asyncio.get_running_loop().time()
        cluster.requests.clear()
        cluster.rule = once(Fault.SILENT_AFTER)
        assert (await client.put(b"a", b"1")).version == 2
        (first, one), (second, two) = cluster.requests
        assert first != second
        assert one.batch == two.batch
        assert 2.0 <= asyncio.get_running_loop().time() - start < 2.1

    play(scenario)


def test_a_definite_refusal_frees_the_operations() -> None:
    """After a definite failure the operations take a new sequence, and the old one is never applied."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = once(DiskFull("no room"))
        await client.put(b"a", b"1")
        (session, one), (same, two) = identities(cluster)
        assert session == same
        assert (one, two) == (1, 2)

    play(scenario)


def test_hints_lead_to_the_leader() -> None:
    """NOT_LEADER with a hint is followed at once, and the next request goes straight to the leader."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        replicas = cluster.map.partitions[0].replicas
        cluster.forwards = False
        cluster.leaders[1] = replicas[2]
        start = asyncio.get_running_loop().time()
        await client.put(b"a", b"1")
        assert [node for node, _ in cluster.requests] == [replicas[0], replicas[2], replicas[2]]
        assert asyncio.get_running_loop().time() - start < 0.02

    play(scenario)


def test_the_node_that_served_is_asked_next() -> None:
    """Evidence of a forwarded request teaches who leads."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        replicas = cluster.map.partitions[0].replicas
        cluster.leaders[1] = replicas[1]
        await client.get(b"a")
        await client.get(b"a")
        assert [node for node, _ in cluster.requests] == [replicas[0], replicas[1]]

    play(scenario)


def test_a_dead_node_is_passed_over() -> None:
    """When the preferred node is down another one serves, without losing a write."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        first, second, _third = cluster.map.partitions[0].replicas
        await client.put(b"a", b"1")
        cluster.down.add(first)
        cluster.leaders[1] = second
        assert (await client.put(b"a", b"2")).evidence.node == second
        assert cluster.partitions[1].applied == [(b"a", b"1"), (b"a", b"2")]

    play(scenario)


def test_an_expired_session_is_renewed() -> None:
    """If no attempt can have been applied, the write moves to a new session and succeeds."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        cluster.partitions[1].sessions.clear()
        assert (await client.put(b"a", b"2")).version == 2
        sessions = [session for session, _ in identities(cluster)]
        assert sessions[0] == sessions[1] != sessions[2]

    play(scenario)


def test_an_expired_session_after_a_lost_reply_is_unknown() -> None:
    """If an earlier attempt may have been applied, nothing is sent in a new session: the caller is told."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        faults: list[Fault | KVError] = [SessionExpired("gone"), Fault.CUT_AFTER]
        cluster.rule = lambda _node, request: (
            faults.pop() if faults and rows_of(request.batch)[0].HasField("put") else None
        )
        with pytest.raises(UnknownOutcome, match="session expired"):
            await client.put(b"a", b"1")
        assert cluster.partitions[1].applied == [(b"a", b"1")]
        assert (await client.put(b"a", b"2")).version == 2

    play(scenario)


def test_a_newer_map_moves_what_waits() -> None:
    """WRONG_PARTITION fetches the map, and the operations go where it says."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        whole = cluster.map.partitions[0]
        moved = PartitionInfo(2, 0, HASH_SPACE, whole.replicas)
        cluster.map = dataclasses.replace(cluster.map, epoch=2, partitions=(moved,))
        cluster.partitions[2] = dataclasses.replace(cluster.partitions[1], id=2, sessions={})
        cluster.leaders[2] = whole.replicas[0]
        reply = await client.put(b"a", b"2")
        assert reply.evidence.partition == 2
        assert reply.version == 2
        assert transport.maps_asked == 2

    play(scenario)


def test_a_flood_of_refusals_is_paced() -> None:
    """A partition that refuses everything is asked a bounded number of times before the deadline."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(NoLeader("none"), "get")
        with pytest.raises(DeadlineExceeded, match="NO_LEADER"):
            await client.get(b"a", timeout=10.0)
        assert 20 <= len(cluster.requests) <= 45

    play(scenario)
