"""What callers are told at the end: after deadlines, refusals, cancelling and closing. In virtual time over a fake network."""

from __future__ import annotations

import asyncio

import pytest

from kv.client.aio import AsyncClient
from kv.client.limits import Limits
from kv.client.types import Put, PutReply
from kv.errors import (
    DeadlineExceeded,
    DiskFull,
    Internal,
    InvalidArgument,
    KVError,
    NotLeader,
    Unavailable,
    UnknownOutcome,
)
from kv.ids import NodeId
from kv.v1 import kv_pb2
from tests.client.fakes import FakeCluster, FakeTransport, Fault
from tests.client.playing import always, identities, once, play


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
