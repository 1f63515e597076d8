"""Levels, preferences, atomic operations and outcomes through the public methods, in virtual time."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from kv.client.aio import AsyncClient
from kv.client.lanes import ROUTES_MAX
from kv.client.levels import Level
from kv.client.limits import Limits
from kv.client.types import (
    Append,
    AppendReply,
    Compare,
    Get,
    Increment,
    IncrementReply,
    Item,
    Put,
    PutReply,
    ReadLevel,
    Txn,
    TxnReply,
)
from kv.errors import (
    BehindSession,
    Conflict,
    IntegerOverflow,
    InvalidArgument,
    KVError,
    LeaseRefused,
    NotAnInteger,
    Overloaded,
    TooFewReplicas,
    TooStale,
)
from kv.ids import NodeId
from kv.v1 import kv_pb2
from tests.client.fakes import FakeCluster, FakeTransport, Fault
from tests.client.memory import rows_of
from tests.client.playing import always, once, play
from tests.client.virtual import run_virtual


def last(cluster: FakeCluster) -> tuple[NodeId, kv_pb2.BatchRequest]:
    """Return the last request that reached a node, and the node."""
    node, request = cluster.requests[-1]
    return node, request.batch


# --- reads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["linearizable", "lease", "session", "bounded:200ms", "stale", "quorum:2", "all"]
)
def test_each_level_travels_with_its_bound(text: str) -> None:
    """A read carries the level that was asked for, and its evidence tells the level and the age."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        level = Level.parse(text)
        written = await client.put(b"a", b"1")
        reading = await client.read(b"a", level=text)
        batch = last(cluster)[1]
        assert (batch.level, batch.read.max_age_ms, batch.read.replicas) == (
            int(level.kind),
            level.max_age_ms,
            level.replicas,
        )
        assert reading.item is not None
        assert reading.item.value == b"1"
        assert reading.evidence.level is level.kind
        assert reading.evidence.revision == written.revision
        assert reading.evidence.age_ms == (None if text in ("linearizable", "lease") else 7)
        assert len(reading.answers) == (3 if text in ("quorum:2", "all") else 0)
        assert reading.answers[:1] in ((), (reading.evidence,))
        item = await client.get(b"a", level=level)
        assert item is not None
        assert item[:5] == reading.item[:5]

    play(scenario)


def test_a_miss_has_evidence() -> None:
    """`read` tells who served and at which index, also where there is no such key."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        reading = await client.read(b"a")
        assert reading.item is None
        assert reading.evidence.index == cluster.partitions[1].index
        assert reading.evidence.revision == 0

    play(scenario)


def test_options_of_the_client_hold_where_a_call_names_none() -> None:
    """Level, preference and write level may be the client's, or come with its address."""

    async def main() -> None:
        cluster = FakeCluster(partitions=1)
        url = "kv://n1:7001,n2:7001,n3:7001/?level=bounded:50ms&prefer=n2&write=all"
        client = AsyncClient.from_url(url)
        client._transport = FakeTransport(cluster)
        async with client:
            await client.put(b"a", b"1")
            assert last(cluster)[1].write_level == kv_pb2.WRITE_LEVEL_ALL
            await client.get(b"a")
            node, batch = last(cluster)
            assert (node, batch.read.node, batch.read.max_age_ms) == ("n2", "n2", 50)
            await client.get(b"a", level="linearizable")
            node, batch = last(cluster)
            assert (node, batch.level) == ("n2", kv_pb2.READ_LEVEL_LINEARIZABLE)
            await client.put(b"a", b"1", write_level="quorum")
            assert last(cluster)[1].write_level == kv_pb2.WRITE_LEVEL_UNSPECIFIED

    run_virtual(main)


def test_reads_with_different_options_share_no_request() -> None:
    """Concurrent reads travel together only if they ask for the same."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.get(b"a")
        cluster.requests.clear()
        levels = ("linearizable", "stale", "bounded:1ms", "bounded:2ms", "quorum", "quorum:2")
        await asyncio.gather(*(client.get(b"a", level=level) for level in levels for _ in range(3)))
        assert len(cluster.requests) == len(levels)
        assert all(len(rows_of(request.batch)) == 3 for _, request in cluster.requests)

    play(scenario)


def test_a_read_at_a_follower_teaches_nothing_about_the_leader() -> None:
    """A linearizable read that a preferred follower served leaves writes going to the leader."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.forwards = False
        leader, follower, _other = cluster.map.partitions[0].replicas
        await client.put(b"a", b"1")
        reading = await client.read(b"a", prefer=follower)
        assert reading.evidence.node == follower
        cluster.requests.clear()
        await client.put(b"a", b"2")
        assert [node for node, _ in cluster.requests] == [leader]
        await client.get(b"a", level="lease", prefer=follower)
        assert last(cluster)[0] == leader

    play(scenario)


def test_the_nearest_replica_serves_most_reads() -> None:
    """With prefer=nearest the fastest replica gets nearly all reads, though it is not the leader."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        transport.delays_s = {"n1": 0.020, "n2": 0.010, "n3": 0.0}
        for _ in range(100):
            await client.get(b"a", level="stale", prefer="nearest")
        served = [node for node, _ in cluster.requests]
        assert served.count("n3") >= 90
        assert set(served) == {"n1", "n2", "n3"}

    play(scenario)


def test_the_least_loaded_replica_is_asked() -> None:
    """With prefer=least-loaded a read passes by the replica that still owes an answer."""
    limits = Limits(pipeline_ops_min=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = once(Fault.SILENT_BEFORE, "get")
        slow = asyncio.ensure_future(client.get(b"slow", level="stale", prefer="least-loaded"))
        await asyncio.sleep(0.01)
        busy = last(cluster)[0]
        for _round in range(10):
            await client.get(b"a", level="stale", prefer="least-loaded")
            assert last(cluster)[0] != busy
        await slow

    play(scenario, limits=limits)


def test_a_preferred_node_that_is_down_is_passed_over() -> None:
    """A preference is no demand: another replica serves, and the evidence tells."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        cluster.down.add("n2")
        reading = await client.read(b"a", level="stale", prefer="n2")
        assert reading.item is not None
        assert reading.evidence.node != "n2"

    play(scenario)


@pytest.mark.parametrize("error", [TooStale("old"), BehindSession("behind"), TooFewReplicas("few")])
def test_a_level_that_cannot_be_kept_is_tried_elsewhere_and_then_said(error: KVError) -> None:
    """Another replica is asked until the deadline; then the caller learns which promise nobody could keep."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = once(error, "get")
        await client.get(b"a", level="session")
        assert cluster.requests[-1][0] != cluster.requests[-2][0]
        cluster.rule = always(error, "get")
        with pytest.raises(type(error), match="until the deadline") as caught:
            await client.get(b"a", level="session", timeout=1.0)
        assert caught.value.definite

    play(scenario)


def test_a_refused_lease_is_told_at_once() -> None:
    """LEASE_REFUSED is a matter of configuration: it is not repeated."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(LeaseRefused("off"), "get")
        with pytest.raises(LeaseRefused):
            await client.get(b"a", level="lease")
        assert len(cluster.requests) == 1

    play(scenario)


def test_the_number_of_routes_is_bounded() -> None:
    """More than ROUTES_MAX combinations of options may be used one after the other, not all at once."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        for age in range(1, 2 * ROUTES_MAX):
            await client.get(b"a", level=f"bounded:{age}ms")
            await asyncio.sleep(6.0 if age % ROUTES_MAX == 0 else 0.0)
        assert len(client._lanes._routes) <= ROUTES_MAX
        cluster.rule = always(Fault.SILENT_BEFORE, "get")
        reads = [client.get(b"a", level=f"bounded:{age}ms", timeout=1.0) for age in range(1, ROUTES_MAX + 2)]
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
        assert refused
        assert len(client._lanes._routes) <= ROUTES_MAX
        cluster.rule = lambda _node, _request: None
        await client.get(b"a", level="bounded:1234ms")

    play(scenario)


# --- sessions ---------------------------------------------------------------------------------------


def test_session_reads_carry_what_was_seen() -> None:
    """A SESSION read demands the highest index of any answer so far, in its own partition only."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.get(b"a", level="session")
        assert not last(cluster)[1].read.after
        index = (await client.put(b"a", b"1")).evidence.index
        await client.get(b"a", level="session")
        [after] = last(cluster)[1].read.after
        assert (after.partition, after.index) == (1, index)
        stale = (await client.read(b"a", level="stale")).evidence.index
        await client.get(b"a", level="session")
        assert last(cluster)[1].read.after[0].index >= stale

    play(scenario)


def test_an_answer_from_before_the_session_is_none() -> None:
    """A replica that answers a SESSION read with too little is not believed: another one is asked."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        serve = cluster.serve
        lies: list[NodeId] = []

        def lie_once(node: NodeId, request: kv_pb2.PipelinedBatch) -> kv_pb2.PipelinedReply:
            reply = serve(node, request)
            if not lies:
                lies.append(node)
                reply.batch.evidence[0].index = 2
                reply.batch.results[0].get.ClearField("item")
            return reply

        cluster.serve = lie_once  # type: ignore[method-assign]
        reading = await client.read(b"a", level="session")
        assert reading.item is not None
        assert reading.evidence.node != lies[0]

    play(scenario)


def test_a_session_moves_to_another_client() -> None:
    """The token of one client makes another's SESSION reads and scans see at least as much."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        token = client.session_token()
        async with AsyncClient(list(cluster.addresses.values()), transport=FakeTransport(cluster)) as other:
            other.observe(token)
            await other.get(b"a", level="session")
            assert last(cluster)[1].read.after[0].index == cluster.partitions[1].index - 1
            assert [item.key async for item in other.scan(level="session")] == [b"a"]
            assert cluster.scans[-1].read.after[0].partition == 1
            with pytest.raises(InvalidArgument, match="not a session token"):
                other.observe("nonsense")
        foreign = AsyncClient(["n1:7001"], transport=FakeTransport(cluster))
        foreign.observe("s1-12345678-1.5")
        with pytest.raises(InvalidArgument, match="not of cluster 'test'"):
            await foreign.get(b"a")
        assert (await foreign.get(b"a", level="session")) is not None

    play(scenario)


# --- scans ------------------------------------------------------------------------------------------


def test_scans_take_a_level_and_give_evidence() -> None:
    """The request carries level and preference; each page tells the index of each partition, an empty scan too."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        [page] = [page async for page in client.scan_pages(level="bounded:9ms", prefer="n3")]
        assert {evidence.partition for evidence in page.evidence} == set(cluster.partitions)
        assert cluster.scans[-1].read == kv_pb2.ReadOptions(max_age_ms=9, node="n3")
        [nothing] = [page async for page in client.scan_pages(b"zz")]
        assert nothing == []
        assert nothing.evidence
        for level in ("quorum", "all"):
            with pytest.raises(InvalidArgument, match="a scan has no level"):
                await anext(client.scan(level=level))

    play(scenario, partitions=2)


# --- atomic operations ------------------------------------------------------------------------------


def test_atomic_operations() -> None:
    """increment, append, get_and_put and return_previous give what they promise, with evidence."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        assert (await client.increment(b"n")).value == 1
        added = await client.increment(b"n", -5)
        assert (added.value, added.version) == (-4, 2)
        assert added.evidence.revision == added.revision
        assert (await client.append(b"s", b"ab")).length == 2
        assert (await client.append(b"s", b"c", if_value=b"ab")).length == 3
        with pytest.raises(NotAnInteger):
            await client.increment(b"s")
        with pytest.raises(Conflict):
            await client.append(b"s", b"d", if_absent=True)
        assert await client.get_and_put(b"g", b"1") is None
        previous = await client.get_and_put(b"g", b"2")
        assert previous is not None
        assert previous.value == b"1"
        reply = await client.put(b"g", b"3", return_previous=True, if_value=b"2")
        assert reply.previous is not None
        assert reply.previous.value == b"2"
        removed = await client.delete(b"g", return_previous=True)
        assert removed.previous is not None
        assert removed.previous.value == b"3"
        assert (await client.delete(b"g", return_previous=True)).previous is None
        with pytest.raises(Conflict):
            await client.delete(b"n", if_absent=True)

    play(scenario)


def test_atomic_operations_in_batches_and_transactions() -> None:
    """They stand in batches with results of their own, and in transactions, also one inside another."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        results = await client.batch(
            [Increment(b"n", 4), Append(b"s", b"xy"), Increment(b"s"), Put(b"p", b"1", return_previous=True)]
        )
        assert isinstance(results[0], IncrementReply)
        assert isinstance(results[1], AppendReply)
        assert isinstance(results[2], NotAnInteger)
        assert isinstance(results[3], PutReply)
        inner = Txn([Compare(b"n", value=b"5")], [Get(b"n"), Append(b"s", b"!")], [])
        reply = await client.txn([], [Increment(b"n"), inner])
        first, second = reply.results
        assert isinstance(first, IncrementReply)
        assert first.value == 5
        assert isinstance(second, TxnReply)
        assert second.succeeded
        assert cast(Item, second.results[0]).value == b"5"
        assert cast(AppendReply, second.results[1]).length == 3

    play(scenario)


def test_bad_atomic_operations_are_refused_unsent() -> None:
    """Deltas beyond 64 bits, conditions in transactions and transactions two deep never leave the client."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        for delta in (2**63, -(2**63) - 1):
            with pytest.raises(InvalidArgument, match="signed 64-bit"):
                await client.increment(b"n", delta)
        for wrong in (1.5, "1", True):
            with pytest.raises(TypeError, match="is an int"):
                await client.increment(b"n", cast(int, wrong))
        with pytest.raises(InvalidArgument, match="at most one"):
            await client.append(b"s", b"", if_absent=True, if_present=True)
        with pytest.raises(InvalidArgument, match="nest once"):
            await client.txn(then=[Txn(then=[Txn(then=[Get(b"a")])])])  # type: ignore[list-item]
        with pytest.raises(InvalidArgument, match="at least one key"):
            await client.txn(then=[Get(b"a"), Txn()])
        with pytest.raises(InvalidArgument, match="no condition of its own"):
            await client.txn(then=[Txn(then=[Increment(b"a", if_absent=True)])])
        with pytest.raises(InvalidArgument, match="no write level"):
            await client.put(b"a", b"1", write_level="most")
        assert cluster.requests == []

    play(scenario)


@pytest.mark.parametrize("error", [IntegerOverflow("large"), NotAnInteger("text")])
def test_errors_of_operations_are_the_callers_own(error: KVError) -> None:
    """A definite failure of one operation reaches its caller as it is."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(error, "increment")
        with pytest.raises(type(error)) as caught:
            await client.increment(b"n")
        assert caught.value.definite
        assert caught.value.token is None

    play(scenario)


def test_levels_are_values() -> None:
    """A `Level`, a bare `ReadLevel` and a text mean the same to every method."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        for level in (Level(ReadLevel.STALE), ReadLevel.STALE, "stale"):
            await client.get(b"a", level=level)
            assert last(cluster)[1].level == kv_pb2.READ_LEVEL_STALE

    play(scenario)
