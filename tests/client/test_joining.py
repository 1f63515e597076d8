"""How the core joins calls into requests, and what may wait, in virtual time over a fake network."""

from __future__ import annotations

import asyncio
import gc

import pytest

from kv.client.aio import AsyncClient
from kv.client.limits import Limits
from kv.client.link import Link
from kv.client.request import Request
from kv.client.types import Get, Put, PutReply
from kv.errors import InvalidArgument, KVError, Overloaded, Unavailable
from tests.client.fakes import FakeCluster, FakeTransport
from tests.client.memory import rows_of
from tests.client.playing import once, play


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


def test_callers_who_were_parted_once_travel_together_again() -> None:
    """Who was answered calls again before those leave who waited meanwhile: two groups do not take turns for ever."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")

        async def caller(number: int) -> None:
            await asyncio.sleep(0 if number == 0 else 0.0001)
            for _ in range(10):
                await client.put(b"k%d" % number, b"v")

        await asyncio.gather(*(caller(number) for number in range(8)))
        assert cluster.partitions[1].batch_sizes[2:] == [1, *[8] * 9, 7]

    play(scenario)


def test_callers_of_several_partitions_travel_together_again() -> None:
    """The same where their answers come in one message: no partition of it goes on before all of them are dealt with."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        keys = [b"k%d" % number for number in range(64)]
        await client.batch([Put(key, b"1") for key in keys])
        before = sum(len(partition.batch_sizes) for partition in cluster.partitions.values())

        async def caller(number: int) -> None:
            await asyncio.sleep(0 if number % 2 == 0 else 0.0001)
            for _ in range(10):
                await client.put(keys[number], b"v")

        await asyncio.gather(*(caller(number) for number in range(64)))
        after = sum(len(partition.batch_sizes) for partition in cluster.partitions.values())
        assert after - before <= 12 * len(cluster.partitions)

    play(scenario, partitions=4)


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


def test_one_half_leaves_while_the_other_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many calls leave in two requests; and as soon as as much waits as is under way, it leaves, whoever else may call."""
    sent: list[tuple[int, int]] = []
    called = 0
    send = Link.send

    def noted(link: Link, request: Request, timeout_ms: int, turn: int, now: float) -> int:
        sent.append((called, request.count))
        return send(link, request, timeout_ms, turn, now)

    async def scenario(client: AsyncClient, _cluster: FakeCluster, _transport: FakeTransport) -> None:
        nonlocal called

        async def get() -> None:
            nonlocal called
            called += 1
            await client.get(b"a")

        await client.get(b"a")
        del sent[:]
        async with asyncio.TaskGroup() as group:
            for _ in range(256):
                group.create_task(get())
        assert sent == [(256, 128), (256, 128)]
        del sent[:]
        called = 0
        async with asyncio.TaskGroup() as group:
            for count in (64, 100):
                for _ in range(count):
                    group.create_task(get())
                await asyncio.sleep(0.0001)
        assert sent[:2] == [(64, 64), (128, 64)]
        assert sum(count for _, count in sent) == 164

    monkeypatch.setattr(Link, "send", noted)
    play(scenario)


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


@pytest.mark.parametrize("together", [10, 80], ids=["most wait", "most are under way"])
def test_a_slow_lane_is_overloaded_by_few(together: int) -> None:
    """How many are too many depends on how fast they are served: a hundred that would take a second are, wherever they are."""
    limits = Limits(ops_per_request_max=together, pipeline_ops_min=1, lane_requests_max=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        transport.delays_s = dict.fromkeys(cluster.addresses, together / 100)  # 100 operations a second
        calls = [asyncio.create_task(client.put(b"k%d" % n, b"v", timeout=60)) for n in range(270)]
        await asyncio.sleep(1.65)
        with pytest.raises(Overloaded) as caught:
            await client.put(b"late", b"v", timeout=1)
        assert int(caught.value.metadata["wait_ms"]) == pytest.approx(1100, rel=0.1)
        await asyncio.sleep(0.8)
        await client.put(b"late", b"v", timeout=2)  # not looked at: a request holds as many
        await asyncio.gather(*calls)

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
        await client.put(b"patient", b"v", timeout=60)
        await asyncio.gather(*calls)

    play(scenario, limits=limits)


THOUSANDS_A_SECOND = Limits(
    ops_per_request_max=200, ops_joined_max=200, pipeline_ops_min=1, lane_requests_max=1
)
"""With an answer in 0.1 s: 2000 operations a second."""


def test_a_queue_that_stands_is_kept_short() -> None:
    """Twice what the cluster does: for `standing_s` everything is taken, then only what need not wait long; the rest at once."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        transport.delays_s = dict.fromkeys(cluster.addresses, 0.1)
        loop = asyncio.get_running_loop()
        started = loop.time()
        done: list[tuple[float, float]] = []
        refused: list[tuple[float, float]] = []

        async def put(number: int) -> None:
            began = loop.time()
            try:
                await client.put(b"k%d" % number, b"v", timeout=5)
            except Overloaded:
                refused.append((began - started, loop.time() - began))
            else:
                done.append((began - started, loop.time() - began))

        async with asyncio.TaskGroup() as group:
            for number in range(32_000):  # 4000 a second
                group.create_task(put(number))
                await asyncio.sleep(1 / 4000)
        assert {took for _, took in refused} == {0.0}
        assert 1.1 < min(at for at, _ in refused) < 1.4, (
            "a hundred wait after a tenth of a second, and a burst has one"
        )
        assert max(took for _, took in done) < 2.0
        late = [(at, took) for at, took in done if at > 3.0]
        assert max(took for _, took in late) < 1.2, "a fifth of 5 s, and the answer"
        assert len(late) == pytest.approx(5.0 * 2000, rel=0.05), "the cluster was busy all the time"

    play(scenario, limits=THOUSANDS_A_SECOND)


def test_a_burst_is_taken_whenever_the_one_before_is_done() -> None:
    """Callers who wait for all before they call again have no queue that stands, however many they are and however often."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        transport.delays_s = dict.fromkeys(cluster.addresses, 0.1)
        for _ in range(5):
            await asyncio.gather(*(client.put(b"k%d" % number, b"v", timeout=5) for number in range(4000)))

    play(scenario, limits=THOUSANDS_A_SECOND)


@pytest.mark.parametrize(
    ("delay_s", "under_way"), [(0.1, 8), (1.0, 2)], ids=["answered soon", "answered late"]
)
def test_what_nodes_are_slow_with_waits_here(delay_s: float, under_way: int) -> None:
    """Beyond `lane_requests_min` no request leaves while what is under way takes longer than `lane_on_wire_s`."""
    limits = Limits(ops_per_request_max=10, ops_joined_max=10, pipeline_ops_min=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.put(b"a", b"1")
        transport.delays_s = dict.fromkeys(cluster.addresses, delay_s)
        calls = [asyncio.create_task(client.put(b"k%d" % n, b"v", timeout=1e3)) for n in range(4000)]
        await asyncio.sleep(30.5 * delay_s)
        sent = [len(rows_of(request.batch)) for _, request in cluster.requests]
        await asyncio.sleep(delay_s)
        assert sum(sent) + 10 * under_way == sum(
            len(rows_of(request.batch)) for _, request in cluster.requests
        )
        await asyncio.gather(*calls)

    play(scenario, limits=limits)


def test_what_a_batch_returned_is_freed_with_its_last_reference() -> None:
    """Nothing of a batch is part of a cycle: its results do not wait for the garbage collector, which would stop the loop."""
    rows, batches = 100, 20

    async def scenario(client: AsyncClient, _: FakeCluster, __: FakeTransport) -> None:
        keys = [b"k%d" % number for number in range(rows)]

        async def load() -> None:
            await client.batch([Put(key, b"v") for key in keys])
            await client.batch([Get(key) for key in keys])

        await load()
        gc.collect()
        gc.disable()
        try:
            for _round in range(batches):
                await load()
            assert gc.collect() < batches * rows
        finally:
            gc.enable()

    play(scenario, partitions=4)


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
