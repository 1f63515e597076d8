"""The public methods of `AsyncClient`, in virtual time over a fake network."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

import pytest

from kv.client.aio import AsyncClient
from kv.client.limits import Limits
from kv.client.types import Compare, Delete, DeleteReply, Get, Item, Put, PutReply, ReadLevel
from kv.errors import (
    Conflict,
    CrossPartition,
    DeadlineExceeded,
    DiskFull,
    InvalidArgument,
    KeyEmpty,
    KeyTooLong,
    KVError,
    SnapshotGone,
    Unavailable,
    ValueTooLarge,
)
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX
from tests.client.fakes import FakeCluster, FakeTransport
from tests.client.memory import rows_of
from tests.client.playing import play
from tests.client.virtual import run_virtual


def test_keys_live_and_die() -> None:
    """put, get and delete do what they say, with revisions, versions and evidence."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        assert await client.get(b"a") is None
        written = await client.put(b"a", b"1")
        item = await client.get(b"a")
        assert item is not None
        assert item[:5] == (b"a", b"1", written.revision, written.revision, 1)
        assert item.evidence is not None
        assert item.evidence.level is ReadLevel.LINEARIZABLE
        assert item.evidence.partition == 1
        assert item.evidence.index > written.evidence.index
        assert written.evidence.level is None
        removed = await client.delete(b"a")
        assert removed.deleted
        assert not (await client.delete(b"a")).deleted
        assert await client.get(b"a", level="stale") is None

    play(scenario)


def test_conditions_hold_or_conflict() -> None:
    """A condition that does not hold raises Conflict, definite, and nothing is written."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        with pytest.raises(Conflict):
            await client.put(b"a", b"1", if_present=True)
        first = await client.put(b"a", b"1", if_absent=True)
        with pytest.raises(Conflict) as caught:
            await client.put(b"a", b"2", if_absent=True)
        assert caught.value.definite
        assert caught.value.metadata["revision"] == str(first.revision)
        await client.put(b"a", b"2", if_revision=first.revision)
        with pytest.raises(Conflict):
            await client.delete(b"a", if_value=b"1")
        assert (await client.delete(b"a", if_value=b"2")).deleted

    play(scenario)


def test_compare_and_set() -> None:
    """It writes only over the expected value; None expects no key."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.compare_and_set(b"a", None, b"1")
        await client.compare_and_set(b"a", b"1", b"2")
        for wrong in (None, b"1"):
            with pytest.raises(Conflict):
                await client.compare_and_set(b"a", wrong, b"3")

    play(scenario)


def test_batch_results_are_in_order() -> None:
    """Over several partitions each operation has its own result, in its place; failures are returned."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        puts = await client.batch([Put(b"k%d" % i, b"%d" % i) for i in range(20)])
        assert all(isinstance(reply, PutReply) for reply in puts)
        results = await client.batch(
            [Get(b"k7"), Put(b"k7", b"x", if_absent=True), Delete(b"k8"), Get(b"k8"), Get(b"k9")]
        )
        assert cast(Item, results[0]).value == b"7"
        assert isinstance(results[1], Conflict)
        assert isinstance(results[2], DeleteReply)
        assert results[3] is None
        assert cast(Item, results[4]).value == b"9"
        assert await client.batch([]) == []

    play(scenario, partitions=4)


def test_a_large_batch_keeps_the_order_of_each_partition() -> None:
    """A batch beyond one request is sent piece after piece, so that the last put of a key wins."""
    limits = Limits(ops_per_request_max=3, pipeline_ops_min=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.batch([Put(b"a", b"%d" % number) for number in range(10)])
        assert [value for _, value in cluster.partitions[1].applied] == [b"%d" % n for n in range(10)]
        assert cluster.partitions[1].batch_sizes == [1, 3, 3, 3, 1]

    play(scenario, limits=limits)


def test_a_failed_piece_stops_its_partition() -> None:
    """What comes after a failed piece is not sent, and says so, definitely."""
    limits = Limits(ops_per_request_max=2, pipeline_ops_min=1)

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = lambda _node, request: (
            DiskFull("no room") if any(op.put.value == b"2" for op in rows_of(request.batch)) else None
        )
        results = await client.batch([Put(b"a", b"%d" % number) for number in range(6)], timeout=1.0)
        assert [type(result) for result in results[:2]] == [PutReply, PutReply]
        assert [type(result) for result in results[2:]] == [DeadlineExceeded] * 2 + [Unavailable] * 2
        assert all(cast(KVError, result).definite for result in results[2:])
        assert [value for _, value in cluster.partitions[1].applied] == [b"0", b"1"]

    play(scenario, limits=limits)


def test_transactions() -> None:
    """A transaction applies one of its lists, by its compares."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        compare = [Compare(b"{u}/a", exists=False)]
        then = [Put(b"{u}/a", b"1"), Put(b"{u}/b", b"2")]
        assert (await client.txn(compare, then, [Get(b"{u}/b")])).succeeded
        reply = await client.txn(compare, then, [Get(b"{u}/b")])
        assert not reply.succeeded
        assert [cast(Item, result).value for result in reply.results] == [b"2"]

    play(scenario, partitions=4)


def test_transactions_over_partitions_are_refused_unsent() -> None:
    """Keys of two partitions raise CrossPartition before anything is sent."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        with pytest.raises(CrossPartition):
            await client.txn(then=[Put(b"k%d" % i, b"v") for i in range(8)])
        for bad in ([Put(b"a", b"1", if_absent=True)], []):
            with pytest.raises(InvalidArgument):
                await client.txn(then=bad)
        assert cluster.requests == []

    play(scenario, partitions=4)


def test_scan_goes_over_all_partitions_in_order() -> None:
    """A scan gives the keys of the range once and in order, with and without bounds."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        keys = [b"k%02d" % number for number in range(20)]
        await client.batch([Put(key, b"v") for key in [*keys, b"other"]])
        assert [item.key async for item in client.scan(b"k")] == keys
        assert [item.key async for item in client.scan(start=b"k05", end=b"k08")] == keys[5:8]
        assert [item.key async for item in client.scan(b"k", limit=3)] == keys[:3]
        assert [len(page) async for page in client.scan_pages(b"k", limit=3)] == [2, 1]

    play(scenario, partitions=4)


def test_a_broken_scan_goes_on_if_asked_to() -> None:
    """A scan that loses its node after each page still gives each key once, if its caller takes several indexes."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        keys = [b"k%02d" % number for number in range(9)]
        await client.batch([Put(key, b"v") for key in keys])
        transport.scan_cut_after = 1
        assert [item.key async for item in client.scan(b"k", limit=9, resume=True)] == keys
        transport.scan_cut_after = 0
        with pytest.raises(DeadlineExceeded, match="the scan broke"):
            await anext(client.scan(b"k", timeout=1.0))

    play(scenario, partitions=2)


def test_a_broken_scan_ends() -> None:
    """After the first item a scan never goes on at another index unasked: it says that its state is gone."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        await client.batch([Put(b"k%02d" % number, b"v") for number in range(9)])
        transport.scan_cut_after = 1
        pages = client.scan_pages(b"k")
        assert [item.key for item in await anext(pages)] == [b"k00", b"k01"]
        with pytest.raises(SnapshotGone, match="UNAVAILABLE: the scan broke") as caught:
            await anext(pages)
        assert caught.value.definite
        assert caught.value.metadata["cause"] == "UNAVAILABLE"

    play(scenario, partitions=2)


def test_map_and_status() -> None:
    """cluster_map asks anew each time; status names the node that was asked."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        assert (await client.cluster_map()) == cluster.map
        await client.cluster_map()
        assert transport.maps_asked == 2
        assert (await client.status("n2")).id == "n2"
        cluster.down.add("n1")
        assert (await client.status()).id == "n2"
        with pytest.raises(Unavailable):
            await client.status("n1")
        with pytest.raises(InvalidArgument, match="no node 'n9'"):
            await client.status("n9")
        cluster.down.update(cluster.addresses)
        with pytest.raises(DeadlineExceeded):
            await client.cluster_map(timeout=1.0)

    play(scenario)


def test_bad_arguments_are_refused_unsent() -> None:
    """Text instead of bytes is a TypeError; bad keys, values, levels and timeouts are definite errors."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        text = cast(bytes, "text")
        for wrong in (client.get(text), client.put(text, b""), client.put(b"a", text), client.delete(text)):
            with pytest.raises(TypeError, match="must be bytes, not str"):
                await wrong
        with pytest.raises(TypeError, match="prefix must be bytes"):
            await anext(client.scan(text))
        with pytest.raises(KeyEmpty):
            await client.get(b"")
        with pytest.raises(KeyTooLong):
            await client.get(b"k" * (KEY_BYTES_MAX + 1))
        with pytest.raises(ValueTooLarge):
            await client.put(b"a", b"v" * (VALUE_BYTES_MAX + 1))
        with pytest.raises(InvalidArgument, match="at most one"):
            await client.put(b"a", b"1", if_absent=True, if_value=b"")
        with pytest.raises(InvalidArgument, match="no read level"):
            await client.get(b"a", level="eventual")
        for timeout in (0.0, -1.0, 1e9, float("nan")):
            with pytest.raises(InvalidArgument, match="timeout"):
                await client.get(b"a", timeout=timeout)
        assert cluster.requests == []

    play(scenario)


def test_bad_clients_are_refused() -> None:
    """A client that could never work is refused when it is made."""
    with pytest.raises(InvalidArgument, match="use from_url"):
        AsyncClient("kv://a:1")
    with pytest.raises(InvalidArgument, match="not host:port"):
        AsyncClient(["a"])
    with pytest.raises(InvalidArgument, match="timeout"):
        AsyncClient(["a:1"], timeout=0.0)
    with pytest.raises(InvalidArgument, match="must begin with kv://"):
        AsyncClient.from_url("a:1")


def test_a_client_whose_loop_runs_is_refused_to_another_thread() -> None:
    """That its loop runs is not enough: it must be the caller's."""
    client = AsyncClient(["n1:7001"], transport=FakeTransport(FakeCluster()))

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="belongs to the event loop of its first call"):
            await client.get(b"a")

    async def use() -> None:
        await client.get(b"a")
        thread = threading.Thread(target=lambda: ended.append(asyncio.run(elsewhere())))
        thread.start()
        thread.join()
        await client.get(b"a")

    ended: list[None] = []
    run_virtual(use)
    assert ended == [None]


def test_a_client_belongs_to_one_loop() -> None:
    """Using it from a second event loop is refused with what to do."""
    client = AsyncClient(["n1:7001"], transport=FakeTransport(FakeCluster()))

    async def use() -> None:
        await client.get(b"a")

    run_virtual(use)
    with pytest.raises(RuntimeError, match="belongs to the event loop of its first call"):
        run_virtual(use)


def test_closing_an_unused_client_does_nothing() -> None:
    """A client that was never used closes without a network."""

    async def main() -> None:
        client = AsyncClient.from_url("kv://n1:7001")
        await client.close()
        with pytest.raises(Unavailable, match="closed"):
            await client.cluster_map()

    asyncio.run(main())
