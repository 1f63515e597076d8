"""How the core joins, routes, retries and gives up, in virtual time over a fake network."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kv.client.aio import AsyncClient
from kv.client.lane import Limits, Request
from kv.client.link import Link
from kv.client.types import Get, Put, PutReply
from kv.cluster.map import PartitionInfo
from kv.errors import (
    DeadlineExceeded,
    DiskFull,
    Internal,
    InvalidArgument,
    KVError,
    NoLeader,
    NotLeader,
    Overloaded,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)
from kv.ids import NodeId
from kv.router.ring import HASH_SPACE
from kv.v1 import kv_pb2
from tests.client.fakes import FakeCluster, FakeTransport, Fault, rows_of, run_virtual

Scenario = Callable[[AsyncClient, FakeCluster, FakeTransport], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario, *, limits: Limits | None = None, partitions: int = 1, timeout: float = 5.0
) -> None:
    """Run the scenario with a client of a fresh cluster."""

    async def main() -> None:
        cluster = FakeCluster(partitions)
        transport = FakeTransport(cluster)
        addresses = list(cluster.addresses.values())
        async with AsyncClient(
            addresses, transport=transport, limits=limits, timeout=timeout, jitter=lambda: 0.5
        ) as client:
            await scenario(client, cluster, transport)
        assert transport.closed

    run_virtual(main)


def once(fault: Fault | KVError, wanted: str = "put") -> Callable[[NodeId, kv_pb2.PipelinedBatch], Any]:
    """Return a rule that lets the first request with a `wanted` operation suffer the fault."""
    left = [fault]

    def rule(_node: NodeId, request: kv_pb2.PipelinedBatch) -> Fault | KVError | None:
        kinds = {operation.WhichOneof("operation") for operation in rows_of(request.batch)}
        return left.pop() if left and wanted in kinds else None

    return rule


def always(fault: Fault | KVError, wanted: str = "put") -> Callable[[NodeId, kv_pb2.PipelinedBatch], Any]:
    """Return a rule that lets every request with a `wanted` operation suffer the fault."""

    def rule(_node: NodeId, request: kv_pb2.PipelinedBatch) -> Fault | KVError | None:
        kinds = {operation.WhichOneof("operation") for operation in rows_of(request.batch)}
        return fault if wanted in kinds else None

    return rule


def identities(cluster: FakeCluster) -> list[tuple[int, int]]:
    """Return (session, sequence) of each request with a put that reached a node."""
    return [
        (request.batch.request_id.session, request.batch.request_id.sequence)
        for _, request in cluster.requests
        if any(operation.HasField("put") for operation in rows_of(request.batch))
    ]


# --- joining ----------------------------------------------------------------------------------------


def test_concurrent_calls_travel_together() -> None:
    """What is called in one turn of the loop becomes one request; a lone call leaves alone."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        await asyncio.gather(*(client.put(b"k%d" % i, b"v") for i in range(50)))
        await asyncio.gather(*(client.get(b"k%d" % i) for i in range(50)))
        assert cluster.partitions[1].batch_sizes == [1, 1, 50, 50]

    play(scenario)


def test_what_is_called_during_a_request_becomes_the_next() -> None:
    """While one request is under way the others wait and then travel in one."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")

        async def later(number: int) -> None:
            await asyncio.sleep(number * 0.0001)
            await client.put(b"k%d" % number, b"2")

        await asyncio.gather(*(later(number) for number in range(10)))
        assert cluster.partitions[1].batch_sizes[2:] == [1, 9]

    play(scenario)


def test_two_writes_of_one_key_never_travel_together() -> None:
    """Writes of one request share a revision: with one request each, the revision names the caller's own write."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        replies = await asyncio.gather(*(client.put(b"k", b"%d" % number) for number in range(5)))
        assert len({reply.revision for reply in replies}) == 5
        await asyncio.gather(*(client.get(b"k") for _ in range(5)))
        assert cluster.partitions[1].batch_sizes == [1] + [1] * 5 + [5]

    play(scenario)


def test_requests_are_bounded_by_operations_and_bytes() -> None:
    """No request has more operations or bytes than the limits, and everything arrives."""
    limits = Limits(ops_per_request_max=8, pipeline_ops_min=8, request_bytes_max=1000)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await asyncio.gather(*(client.put(b"k%d" % i, b"v") for i in range(20)))
        assert cluster.partitions[1].batch_sizes == [1, 8, 8, 4]
        await asyncio.gather(*(client.put(b"k%d" % i, b"v" * 400) for i in range(5)))
        assert cluster.partitions[1].batch_sizes[4:] == [2, 2, 1]
        assert all(len(request.batch.SerializeToString()) <= 1000 for _, request in cluster.requests)

    play(scenario, limits=limits)


def test_what_is_joined_is_bounded_and_a_batch_is_not_cut_by_it() -> None:
    """Calls are joined up to ops_joined_max; one batch travels whole, up to ops_per_request_max."""
    limits = Limits(ops_per_request_max=8, ops_joined_max=3, pipeline_ops_min=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        sizes = cluster.partitions[1].batch_sizes
        del sizes[:]
        await asyncio.gather(*(client.put(b"k%d" % i, b"v") for i in range(7)))
        assert sizes == [3, 3, 1]
        await client.batch([Put(b"k%d" % i, b"v") for i in range(8)])
        assert sizes[3:] == [8]

    play(scenario, limits=limits)


def test_requests_follow_each_other_in_turns_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits beyond a request leaves in the loop's next pass, when that one is on its way."""
    turns: list[int] = []
    send = Link.send

    def noted(link: Link, request: Request, timeout_ms: int, turn: int, now: float) -> int:
        turns.append(turn)
        return send(link, request, timeout_ms, turn, now)

    async def scenario(client: AsyncClient, _cluster: FakeCluster, _transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        del turns[:]
        await asyncio.gather(*(client.put(b"k%d" % i, b"v") for i in range(7)))
        assert turns == [turns[0], turns[0] + 1, turns[0] + 2]

    monkeypatch.setattr(Link, "send", noted)
    play(scenario, limits=Limits(ops_joined_max=3, pipeline_ops_min=1))


def test_a_lone_call_does_not_wait_for_what_keeps_leaving() -> None:
    """Full requests wait for no answers, so there is always one under way; a call of another lane goes all the same."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        busy, loop = True, asyncio.get_running_loop()

        async def puts() -> None:
            async with asyncio.TaskGroup() as group:
                turn = 0
                while busy:
                    turn += 1
                    for number in range(64):
                        group.create_task(client.put(b"%d-%d" % (turn, number), b""))
                    await asyncio.sleep(0.0015)

        writing = asyncio.ensure_future(puts())
        took: list[float] = []
        while len(took) < 10:
            began = loop.time()
            await client.get(b"a", timeout=1.0)
            took.append(loop.time() - began)
        busy = False
        await writing
        assert max(took) < 0.010, "about the time of one wave, twice"
        assert len(cluster.requests) > 20

    play(scenario)


def test_a_batch_whose_first_piece_fails_ends_however_many_pieces_it_has() -> None:
    """What was not sent is told so, with the reason of the piece that failed, and the client goes on."""
    limits = Limits(ops_per_request_max=1, ops_joined_max=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        cluster.rule = once(InvalidArgument("no"))
        first, *rest = await client.batch([Put(b"k%d" % number, b"") for number in range(2000)])
        assert isinstance(first, InvalidArgument)
        assert {
            (type(result), result.metadata["cause"]) for result in rest if isinstance(result, KVError)
        } == {(Unavailable, "INVALID_ARGUMENT")}
        assert len(set(map(id, rest))) == 1999
        assert all("not sent" in str(result) and str(result).count("not sent") == 1 for result in rest)
        await client.put(b"b", b"1")

    play(scenario, limits=limits)


def test_waiting_operations_are_bounded() -> None:
    """At lane_waiting_ops_max one more operation is refused with OVERLOADED, and the others succeed."""
    limits = Limits(lane_waiting_ops_max=3)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.get(b"a")
        calls = (client.put(b"k%d" % i, b"v") for i in range(4))
        *good, refused = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(reply, PutReply) for reply in good)
        assert isinstance(refused, Overloaded)
        assert refused.definite

    play(scenario, limits=limits)


def test_a_key_that_many_write_does_not_cut_requests_short() -> None:
    """A call for a key that the request writes already waits, in order; calls for other keys pass it."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        keys = [b"hot", b"k1", b"hot", b"k2", b"hot", b"k3"]
        replies = await asyncio.gather(*(client.put(key, b"%d" % n) for n, key in enumerate(keys)))
        assert cluster.partitions[1].batch_sizes[2:] == [4, 1, 1]
        assert [reply.version for reply in replies] == [1, 1, 2, 1, 3, 1], "those of one key keep their order"
        item = await client.get(b"hot")
        assert item is not None
        assert item.value == b"4"

    play(scenario)


def test_a_call_that_would_wait_too_long_is_refused_at_once() -> None:
    """In a lane that drains slowly a call is refused, definitely, unless it has time enough to wait."""
    limits = Limits(ops_per_request_max=20, pipeline_ops_min=1, lane_requests_max=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        transport.delays_s = dict.fromkeys(cluster.addresses, 0.1)  # 20 operations in 0.1 s: 200 a second
        calls = [asyncio.create_task(client.put(b"k%d" % n, b"v", timeout=60)) for n in range(1000)]
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        with pytest.raises(Overloaded) as caught:
            await client.put(b"late", b"v", timeout=5)
        assert asyncio.get_running_loop().time() == began
        assert caught.value.definite
        assert 3000 < int(caught.value.metadata["wait_ms"]) < 5000
        await client.put(b"patient", b"v", timeout=60)
        assert await client.get(b"late") is None
        await asyncio.gather(*calls)
        await client.put(b"late", b"v", timeout=5)

    play(scenario, limits=limits)


def test_what_is_under_way_counts_as_waiting() -> None:
    """A call behind a large request that has no answer yet waits for that too, and is refused if it has no time for it."""
    limits = Limits(ops_per_request_max=1000, ops_joined_max=1000, pipeline_ops_min=1, lane_requests_max=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        transport.delays_s = dict.fromkeys(cluster.addresses, 1.0)  # 1000 operations a second
        calls = [asyncio.create_task(client.put(b"k%d" % n, b"v", timeout=60)) for n in range(4000)]
        await asyncio.sleep(2.5)  # 2000 are answered, 1000 are under way, 1000 wait
        with pytest.raises(Overloaded) as caught:
            await client.put(b"late", b"v", timeout=3)
        assert int(caught.value.metadata["wait_ms"]) == pytest.approx(2000, rel=0.1)
        await client.put(b"patient", b"v", timeout=5)
        await asyncio.gather(*calls)

    play(scenario, limits=limits)


def test_waiting_bytes_are_bounded() -> None:
    """At lane_waiting_bytes_max one more operation is refused with OVERLOADED, and the others succeed."""
    limits = Limits(lane_waiting_bytes_max=1000)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.get(b"a")
        calls = (client.put(b"k%d" % i, bytes(400)) for i in range(3))
        *good, refused = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(reply, PutReply) for reply in good)
        assert isinstance(refused, Overloaded)
        assert refused.metadata["lane_waiting_bytes_max"] == "1000"
        await client.put(b"large", bytes(2000))  # alone it always fits

    play(scenario, limits=limits)


def test_large_values_do_not_wait_for_each_other() -> None:
    """From pipeline_bytes_min on, what waits is sent although a request is under way; below it waits for the answer."""
    limits = Limits(pipeline_bytes_min=1000)

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        transport.delays_s = dict.fromkeys(cluster.addresses, 0.1)
        began = asyncio.get_running_loop().time()

        async def one(number: int, size: int) -> float:
            await asyncio.sleep(0.01 * number)
            await client.put(b"k%d" % number, bytes(size))
            return asyncio.get_running_loop().time() - began

        small = await asyncio.gather(*(one(number, 100) for number in range(2)))
        assert max(small) > 0.2
        began = asyncio.get_running_loop().time()
        large = await asyncio.gather(*(one(number, 1000) for number in range(2)))
        assert max(large) < 0.15

    play(scenario, limits=limits)


def test_reads_and_writes_travel_apart() -> None:
    """Reads carry no session and do not wait for writes; a batch with a write goes through the log whole."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        cluster.requests.clear()
        await asyncio.gather(client.put(b"a", b"2"), client.get(b"a"), client.get(b"a", level="stale"))
        levels = sorted(
            (request.batch.level, bool(request.batch.request_id.session)) for _, request in cluster.requests
        )
        assert levels == [(0, True), (1, False), (2, False)]
        cluster.requests.clear()
        await client.batch([Get(b"a"), Put(b"a", b"3")])
        assert [len(rows_of(request.batch)) for _, request in cluster.requests] == [2]
        assert cluster.requests[0][1].batch.request_id.session

    play(scenario)


def test_one_session_is_opened_for_each_partition() -> None:
    """Many first writes open one session for each partition that they touch."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await asyncio.gather(*(client.put(b"k%d" % i, b"v") for i in range(100)))
        assert [len(part.sessions) for part in cluster.partitions.values()] == [1] * 4

    play(scenario, partitions=4)


# --- retries ----------------------------------------------------------------------------------------


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


# --- ends -------------------------------------------------------------------------------------------


def test_deadline_of_a_write_that_was_refused_is_definite() -> None:
    """If every attempt was refused, the deadline is definite and nothing was applied."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(DiskFull("no room"))
        with pytest.raises(DeadlineExceeded, match="DISK_FULL") as caught:
            await client.put(b"a", b"1", timeout=1.0)
        assert caught.value.definite
        cluster.rule = lambda _node, _request: None
        assert await client.get(b"a") is None

    play(scenario)


def test_deadline_of_a_write_without_an_answer_is_unknown() -> None:
    """If an attempt was sent and never answered, the write may have been applied."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(Fault.SILENT_AFTER)
        with pytest.raises(UnknownOutcome, match="deadline"):
            await client.put(b"a", b"1", timeout=1.0)
        cluster.rule = lambda _node, _request: None
        assert (await client.put(b"a", b"2")).version == 2

    play(scenario)


def test_deadline_of_a_read_is_definite() -> None:
    """A read without an answer has read nothing, and that is certain."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(Fault.SILENT_AFTER, "get")
        with pytest.raises(DeadlineExceeded) as caught:
            await client.get(b"a", timeout=1.0)
        assert caught.value.definite

    play(scenario)


def test_deadline_before_anything_left_is_definite() -> None:
    """A write that never left the process was certainly not applied, and a later one may still succeed."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.get(b"a")
        transport.black_holes.update(cluster.addresses)
        for address in cluster.addresses.values():  # a stream that connects into a black hole
            client._core._links.pop(address, None)  # type: ignore[union-attr]
        with pytest.raises(DeadlineExceeded) as caught:
            await client.put(b"a", b"1", timeout=1.0)
        assert caught.value.definite
        transport.black_holes.clear()
        await client.put(b"a", b"2", timeout=10.0)
        assert cluster.partitions[1].applied == [(b"a", b"2")]

    play(scenario)


def test_no_cluster_is_a_definite_deadline() -> None:
    """Without any node there is no map, and the caller learns why in time."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.down.update(cluster.addresses)
        start = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded, match="cannot be reached") as caught:
            await client.put(b"a", b"1", timeout=2.0)
        assert caught.value.definite
        assert asyncio.get_running_loop().time() - start == pytest.approx(2.0, abs=0.01)

    play(scenario)


def test_each_caller_of_a_joined_request_has_a_deadline_of_its_own() -> None:
    """Of calls that travel together, one with a short timeout fails alone and the other gets its answer."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"0")
        cluster.rule = once(Fault.SILENT_AFTER)
        short, long = await asyncio.gather(
            client.put(b"a", b"1", timeout=0.5), client.put(b"b", b"1", timeout=5.0), return_exceptions=True
        )
        assert isinstance(short, UnknownOutcome)
        assert isinstance(long, PutReply)

    play(scenario)


def test_what_retrying_cannot_cure_is_told_at_once() -> None:
    """A failure of the session's opening that is not transient fails the writes that wait for it, definitely."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(Internal("a defect"), "open_session")
        with pytest.raises(Unavailable, match="no session could be opened") as caught:
            await client.put(b"a", b"1")
        assert caught.value.definite
        cluster.rule = lambda _node, _request: None
        await client.put(b"a", b"1")

    play(scenario)


def test_a_wrong_number_of_results_is_internal() -> None:
    """An answer that does not fit its request is reported as a defect, not misread."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        serve = cluster.serve

        def short(node: NodeId, request: kv_pb2.PipelinedBatch) -> kv_pb2.PipelinedReply:
            response = serve(node, request)
            del response.batch.results[:]
            return response

        cluster.serve = short  # type: ignore[method-assign]
        with pytest.raises(Internal, match="1 operations were answered by 0 results"):
            await client.get(b"a")

    play(scenario)


def test_a_cancelled_caller_is_forgotten() -> None:
    """Cancelling a waiting call takes it out of the queue, and the others go on."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.get(b"a")
        cluster.leaders[1] = None
        task = asyncio.ensure_future(client.put(b"a", b"1"))
        batch = asyncio.ensure_future(client.batch([Put(b"b", b"1")]))
        await asyncio.sleep(0.5)
        task.cancel()
        batch.cancel()
        await asyncio.wait((task, batch))
        assert task.cancelled()
        assert batch.cancelled()
        cluster.leaders[1] = "n1"
        await client.put(b"a", b"2")
        assert cluster.partitions[1].applied == [(b"a", b"2")]

    play(scenario)


def test_close_fails_what_waits() -> None:
    """Closing answers everybody: a sent write is unknown, an unsent one and a read are definite."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"0")
        cluster.rule = always(Fault.SILENT_AFTER)
        sent = asyncio.ensure_future(client.put(b"a", b"1"))
        await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(client.put(b"a", b"2"))
        await asyncio.sleep(0.01)
        await client.close()
        outcomes = await asyncio.gather(sent, waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UnknownOutcome, Unavailable]
        with pytest.raises(Unavailable, match="closed"):
            await client.get(b"a")

    play(scenario)


def test_window_of_the_session_bounds_unanswered_writes() -> None:
    """At session_requests_max unanswered requests the next one waits, and goes on when one ends."""
    limits = Limits(
        session_requests_max=2, lane_requests_max=4, pipeline_ops_min=1, ops_per_request_max=1,
        attempt_timeout_s=100.0,
    )  # fmt: skip

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"0")
        cluster.requests.clear()
        cluster.rule = always(Fault.SILENT_AFTER)
        tasks = [asyncio.ensure_future(client.put(b"k%d" % i, b"v", timeout=1.0 + i)) for i in range(3)]
        await asyncio.sleep(0.9)
        assert len(cluster.requests) == 2
        await asyncio.sleep(0.2)
        first, second, third = identities(cluster)
        assert first[0] == second[0] != third[0], "the session of an unknown outcome takes no new requests"
        assert all(request.batch.request_id.acknowledged <= 1 for _, request in cluster.requests)
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), UnknownOutcome) for task in tasks)

    play(scenario, limits=limits)


def test_a_slow_request_does_not_cost_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """When one unanswered write holds the mark SEQUENCE_SPAN_MAX back, the next write opens another session."""
    monkeypatch.setattr("kv.client.sessions.SEQUENCE_SPAN_MAX", 3)
    limits = Limits(pipeline_ops_min=1, ops_per_request_max=1, attempt_timeout_s=100.0)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = once(Fault.SILENT_AFTER)
        slow = asyncio.ensure_future(client.put(b"slow", b"v"))
        await asyncio.sleep(0.1)
        for number in range(4):
            await client.put(b"k%d" % number, b"v")
        assert [sequence for _, sequence in identities(cluster)] == [1, 2, 3, 1, 2]
        assert len({session for session, _ in identities(cluster)}) == 2
        assert isinstance((await asyncio.gather(slow, return_exceptions=True))[0], UnknownOutcome)

    play(scenario, limits=limits)


def test_the_node_gives_up_before_the_client_does() -> None:
    """An attempt leaves time for the node's answer, within its patience and within the deadline."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(Fault.SILENT_BEFORE, "get")
        with pytest.raises(DeadlineExceeded):
            await client.get(b"a", timeout=5.0)
        with pytest.raises(DeadlineExceeded):
            await client.get(b"a", timeout=1.0)
        assert [request.timeout_ms for _, request in cluster.requests][:1] == [1500]
        assert [request.timeout_ms for _, request in cluster.requests][-1:] == [750]

    play(scenario)


@pytest.mark.parametrize("error", [InvalidArgument("bad"), NotLeader("no", metadata={"leader": ""})])
def test_a_node_may_refuse_and_the_next_call_works(error: KVError) -> None:
    """Refusals leave nothing behind that hinders the next call."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = once(error)
        results = await asyncio.gather(client.put(b"a", b"1"), return_exceptions=True)
        assert isinstance(results[0], PutReply | InvalidArgument)
        await client.put(b"a", b"2")
        core = client._core
        assert core is not None
        assert not core._requests
        session = core._sessions._slots[1].current
        assert session is not None
        assert session.in_flight == 0

    play(scenario)
