"""Scans: bounds, order over partitions, pages, evidence and limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import (
    DeadlineExceeded,
    InvalidArgument,
    KeyTooLong,
    KVError,
    NoLeader,
    SnapshotGone,
    Unavailable,
)
from kv.ids import KEY_BYTES_MAX
from kv.router.limits import RouterConfig
from kv.router.scan import (
    ITEM_OVERHEAD_BYTES,
    PAGE_ITEMS_MIN,
    Scan,
    page_items,
    prefix_end,
    scan_bounds,
    successor,
)
from kv.v1 import kv_pb2
from tests.router.world import Inbox, VirtualWorld, batch, put

KEYS = st.binary(min_size=1, max_size=3)


def fill(world: VirtualWorld, items: dict[bytes, bytes]) -> None:
    """Write the items through a router."""
    for key, value in items.items():
        inbox, router, request = Inbox(), world.routers["n1"], batch(put(key, value))
        router.execute(request, request.SerializeToString(), router.deadline(0), inbox)
        assert inbox.ok


def scan(world: VirtualWorld, **fields: Any) -> list[kv_pb2.ScanResponse]:  # noqa: ANN401 - fields of the message
    """Run a scan to its end, in a loop of its own."""

    async def run() -> list[kv_pb2.ScanResponse]:
        router = world.routers["n1"]
        scanned = Scan(router, kv_pb2.ScanRequest(**fields), lambda: router.deadline(0))
        return [page async for page in scanned.pages()]

    return asyncio.run(run())


def items_of(pages: list[kv_pb2.ScanResponse]) -> list[tuple[bytes, bytes]]:
    """Return the items of all pages."""
    return [(item.key, item.value) for page in pages for item in page.items]


@given(st.dictionaries(KEYS, st.binary(max_size=3), max_size=60), st.tuples(KEYS, KEYS), st.integers(0, 70))
def test_a_scan_is_the_sorted_range_of_all_partitions(
    items: dict[bytes, bytes], bounds: tuple[bytes, bytes], limit: int
) -> None:
    """Whatever the partitions hold, the pages together are the sorted range, up to the limit."""
    world = VirtualWorld(nodes=1, replication_factor=1, partitions=5, config=RouterConfig(scan_items_max=1))
    fill(world, items)
    start, end = sorted(bounds)
    expected = sorted((key, value) for key, value in items.items() if start <= key < end)
    assert items_of(scan(world, start=start, end=end)) == expected
    assert items_of(scan(world, limit=limit)) == sorted(items.items())[: limit or None]


@given(st.binary(min_size=1, max_size=4), st.lists(st.binary(min_size=1, max_size=6), max_size=30))
def test_the_end_of_a_prefix_holds_exactly_its_keys(prefix: bytes, keys: list[bytes]) -> None:
    """A key is in [prefix, prefix_end) if and only if it begins with the prefix."""
    end = prefix_end(prefix)
    for key in keys:
        assert (key >= prefix and (not end or key < end)) == key.startswith(prefix)


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=2, max_size=20, unique=True))
def test_nothing_fits_between_a_key_and_its_successor(keys: list[bytes]) -> None:
    """The next page begins right after the last key."""
    for low, high in pairwise(sorted(keys)):
        assert low < successor(low) <= high


def test_the_successor_of_the_longest_key_is_a_key() -> None:
    """At the length limit the successor is no longer than a key may be, and skips no key."""
    longest = b"a" * KEY_BYTES_MAX
    assert successor(longest) == b"a" * (KEY_BYTES_MAX - 1) + b"b"
    assert successor(b"\xff" * KEY_BYTES_MAX) == b""


def test_a_scan_passes_over_keys_of_the_greatest_length() -> None:
    """Pages that end at a key of 480 bytes are continued."""
    items = {b"k" * (KEY_BYTES_MAX - 1) + bytes([n]): b"v" for n in range(40)}
    items[b"\xff" * KEY_BYTES_MAX] = b"last"
    world = VirtualWorld(nodes=1, replication_factor=1, partitions=2, config=RouterConfig(scan_items_max=1))
    fill(world, items)
    assert items_of(scan(world)) == sorted(items.items())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prefix": b"a", "start": b"a"}, InvalidArgument),
        ({"prefix": b"a", "end": b"a"}, InvalidArgument),
        ({"start": b"b", "end": b"a"}, InvalidArgument),
        ({"start": b"x" * (KEY_BYTES_MAX + 1)}, KeyTooLong),
        ({"prefix": b"x" * (KEY_BYTES_MAX + 1)}, KeyTooLong),
        ({"level": 9}, InvalidArgument),
        ({"level": kv_pb2.READ_LEVEL_QUORUM}, InvalidArgument),
        ({"level": kv_pb2.READ_LEVEL_ALL}, InvalidArgument),
        ({"level": kv_pb2.READ_LEVEL_BOUNDED}, InvalidArgument),
        ({"read": kv_pb2.ReadOptions(node="a b")}, InvalidArgument),
    ],
)
def test_bad_bounds_are_refused(fields: dict[str, Any], expected: type[KVError]) -> None:
    """Contradictory, reversed and overlong bounds, and levels that no scan has, are definite errors."""
    with pytest.raises(expected):
        scan_bounds(kv_pb2.ScanRequest(**fields))


def test_equal_bounds_are_an_empty_range() -> None:
    """[k, k) is a range that happens to be empty, not an error."""
    world = VirtualWorld(nodes=1, replication_factor=1)
    fill(world, {b"k": b"v"})
    assert items_of(scan(world, start=b"k", end=b"k")) == []


@pytest.mark.parametrize("partitions", [1, 16, 256, 4096])
def test_pages_shrink_with_the_number_of_partitions(partitions: int) -> None:
    """All partitions' pages together stay near the bound, and none is below the least size."""
    share = page_items(16_384, 1_000, partitions, 0)
    assert PAGE_ITEMS_MIN - 1 < share <= 1_000
    assert share * partitions <= max(16_384, PAGE_ITEMS_MIN * partitions)
    assert page_items(16_384, 1_000, partitions, 3) == 3


def test_responses_are_bounded_and_a_large_item_travels_alone() -> None:
    """No page is larger than scan_response_bytes_max unless it holds one item."""
    world = VirtualWorld(nodes=1, replication_factor=1, config=RouterConfig(scan_response_bytes_max=500))
    items = {b"k%02d" % n: b"x" * (900 if n == 7 else 100) for n in range(20)}
    fill(world, items)
    pages = scan(world)
    assert items_of(pages) == sorted(items.items())
    for page in pages:
        assert len(page.items) == 1 or sum(i.ByteSize() + ITEM_OVERHEAD_BYTES for i in page.items) <= 500


def test_every_partition_proves_its_share_even_of_nothing() -> None:
    """An empty range still gives one page, with the evidence of each partition."""
    world = VirtualWorld(nodes=1, replication_factor=1, partitions=4)
    [page] = scan(world, prefix=b"nothing")
    assert sorted(proof.partition for proof in page.evidence) == [1, 2, 3, 4]
    assert not page.items


def test_the_evidence_of_a_page_is_of_the_reads_that_fed_it() -> None:
    """Each item of a page comes from a partition that the page's evidence names."""
    world = VirtualWorld(
        nodes=1, replication_factor=1, partitions=4, config=RouterConfig(scan_response_bytes_max=200)
    )
    fill(world, {b"k%02d" % n: b"v" * 20 for n in range(40)})
    for page in scan(world):
        proven = {proof.partition for proof in page.evidence}
        assert {world.ring.partition_of(item.key) for item in page.items} <= proven


def test_keys_only_leaves_the_values_out() -> None:
    """The flag reaches the partitions."""
    world = VirtualWorld(nodes=1, replication_factor=1)
    fill(world, {b"a": b"1", b"b": b"2"})
    assert items_of(scan(world, keys_only=True)) == [(b"a", b""), (b"b", b"")]


def test_a_stale_scan_needs_no_leader() -> None:
    """The level reaches the partitions."""
    world = VirtualWorld()
    fill(world, {b"a": b"1"})
    world.lead(None)
    assert items_of(scan(world, level=kv_pb2.READ_LEVEL_STALE)) == [(b"a", b"1")]


def test_a_partition_that_fails_ends_the_scan_definite() -> None:
    """A scan never leaves a partition's share out silently."""
    world = VirtualWorld(nodes=1, replication_factor=1, partitions=4)
    world.groups[3].refusals = [KVError("broken")]

    with pytest.raises(KVError, match="broken"):
        scan(world)


def test_fetches_of_one_scan_are_bounded() -> None:
    """At most scan_fetches_max pages are asked for at the same time."""

    async def run() -> int:
        world = VirtualWorld(
            nodes=1, replication_factor=1, partitions=20, config=RouterConfig(scan_fetches_max=3)
        )
        for group in world.groups.values():
            group.hold_replies = True
        router = world.routers["n1"]
        pages = Scan(router, kv_pb2.ScanRequest(), lambda: router.deadline(0)).pages()
        task = asyncio.ensure_future(anext(pages))
        most = 0
        while not task.done():
            await asyncio.sleep(0)
            most = max(most, router.in_flight)
            for group in world.groups.values():
                group.release()
        await task
        await pages.aclose()
        return most

    assert asyncio.run(run()) == 3


def test_a_read_of_a_scan_ends_at_its_deadline() -> None:
    """A partition without a leader ends the scan at the deadline, definite."""

    async def run() -> None:
        world = VirtualWorld(partitions=2)
        world.lead(None)
        router = world.routers["n1"]
        pages = Scan(router, kv_pb2.ScanRequest(), lambda: router.deadline(300)).pages()
        task = asyncio.ensure_future(anext(pages))
        while not task.done():
            await asyncio.sleep(0)
            world.time.advance(0.05)
        with pytest.raises((NoLeader, DeadlineExceeded, Unavailable)) as caught:
            await task
        assert caught.value.definite

    asyncio.run(run())


SMALL_PAGES = RouterConfig(scan_items_max=1, scan_response_bytes_max=200)


def pages_between(
    world: VirtualWorld,
    between: Callable[[int], None],
    router: str = "n1",
    **fields: Any,  # noqa: ANN401
) -> list[kv_pb2.ScanResponse]:
    """Run a scan and call `between(number)` after each page."""

    async def run() -> list[kv_pb2.ScanResponse]:
        at = world.routers[router]
        pages: list[kv_pb2.ScanResponse] = []
        async for page in Scan(at, kv_pb2.ScanRequest(**fields), lambda: at.deadline(0)).pages():
            pages.append(page)
            between(len(pages))
        return pages

    return asyncio.run(run())


def test_a_scan_sees_each_partition_at_one_index_whatever_is_written_meanwhile() -> None:
    """Writes between pages are not seen; each partition's evidence states one index on all pages."""
    world = VirtualWorld(partitions=2, config=SMALL_PAGES)
    world.lead("n1")
    items = {b"k%03d" % n: b"old" for n in range(120)}
    fill(world, items)

    def write(number: int) -> None:
        fill(
            world,
            {b"k%03d" % n: b"new" for n in range(0, 120, 7)} | {b"k%03d+%d" % (number, number): b"more"},
        )

    pages = pages_between(world, write)
    assert items_of(pages) == sorted(items.items())
    indexes: dict[int, set[int]] = {}
    for page in pages:
        for proof in page.evidence:
            indexes.setdefault(proof.partition, set()).add(proof.index)
    assert len(indexes) == 2
    assert all(len(seen) == 1 for seen in indexes.values())


def test_a_scan_stays_with_the_replica_of_its_first_page_though_that_leads_no_more() -> None:
    """The index was proved when the snapshot was made; a new leader changes nothing."""
    world = VirtualWorld(partitions=1, config=SMALL_PAGES)
    world.lead("n3")
    items = {b"k%03d" % n: b"v" for n in range(60)}
    fill(world, items)
    group, before = world.groups[1], len(world.groups[1].submitted)
    pages = pages_between(world, lambda number: world.lead("n2" if number % 2 else None))
    assert items_of(pages) == sorted(items.items())
    served = [node for node, _ in group.submitted[before:]]
    assert len(served) > 3
    assert set(served) == {"n3"}


def test_a_scan_whose_node_is_gone_ends_with_snapshot_gone() -> None:
    """No other replica has that state: the scan says so instead of mixing two."""
    world = VirtualWorld(partitions=1, config=SMALL_PAGES)
    world.lead("n3")
    fill(world, {b"k%03d" % n: b"v" for n in range(60)})

    async def run() -> None:
        router = world.routers["n1"]
        pages = Scan(router, kv_pb2.ScanRequest(), lambda: router.deadline(0)).pages()
        await anext(pages)
        world.nodes["n1"].forwarders["n3"].mode = "down"
        task = asyncio.ensure_future(_rest(pages))
        while not task.done():
            await asyncio.sleep(0)
            world.time.advance(0.01)
        with pytest.raises(SnapshotGone) as caught:
            await task
        assert caught.value.metadata == {"partition": "1", "node": "n3", "cause": "unavailable"}

    asyncio.run(run())


async def _rest(pages: AsyncGenerator[kv_pb2.ScanResponse, None]) -> int:
    return len([page async for page in pages])


def test_a_snapshot_that_was_dropped_ends_the_scan() -> None:
    """The replica's SNAPSHOT_GONE reaches the caller with its cause; so does one that was never kept."""
    world = VirtualWorld(nodes=1, replication_factor=1, partitions=1, config=SMALL_PAGES)
    fill(world, {b"k%03d" % n: b"v" for n in range(60)})
    replica = world.nodes["n1"].replicas[1]
    with pytest.raises(SnapshotGone) as caught:
        pages_between(world, lambda _: replica.snapshots.clear())
    assert caught.value.metadata["cause"] == "idle"
    replica.keeps_snapshots = False
    with pytest.raises(SnapshotGone) as caught:
        scan(world)
    assert caught.value.metadata["cause"] == "not kept"


def test_a_share_that_fits_one_page_needs_no_snapshot() -> None:
    """Neither a small range nor a limit below the page leaves a state behind at the replica."""
    world = VirtualWorld(nodes=1, replication_factor=1, partitions=1, config=SMALL_PAGES)
    fill(world, {b"k%03d" % n: b"v" for n in range(60)})
    replica = world.nodes["n1"].replicas[1]
    assert len(items_of(scan(world, limit=PAGE_ITEMS_MIN))) == PAGE_ITEMS_MIN
    assert len(items_of(scan(world, end=b"k005"))) == 5
    assert not replica.snapshots
    assert len(items_of(scan(world, limit=PAGE_ITEMS_MIN + 1))) == PAGE_ITEMS_MIN + 1
    assert len(replica.snapshots) == 1


def test_a_limited_scan_of_large_values_keeps_one_index_too() -> None:
    """When values make a page shorter than was asked, the share is read again from the start, with a snapshot."""
    world = VirtualWorld(nodes=1, replication_factor=1, partitions=1)
    items = {b"k%d" % n: bytes([n]) * 100_000 for n in range(6)}
    fill(world, items)
    group = world.groups[1]
    before = len(group.submitted)
    assert items_of(scan(world, limit=5)) == sorted(items.items())[:5]
    sent = [kv_pb2.BatchRequest.FromString(raw).operations[0].range for _, raw in group.submitted[before:]]
    assert [(each.keep_snapshot, bool(each.snapshot)) for each in sent[:3]] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_a_scan_takes_a_level_and_options() -> None:
    """A bounded scan of the own replica, a session scan with each partition's own bound."""
    world = VirtualWorld(partitions=2)
    world.lead("n1")
    fill(world, {b"k%d" % n: b"v" for n in range(20)})
    after = [kv_pb2.PartitionIndex(partition=p, index=g.index) for p, g in world.groups.items()]
    for level, read in (
        (kv_pb2.READ_LEVEL_BOUNDED, kv_pb2.ReadOptions(max_age_ms=1)),
        (kv_pb2.READ_LEVEL_SESSION, kv_pb2.ReadOptions(after=after)),
        (kv_pb2.READ_LEVEL_LINEARIZABLE, kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LOCAL)),
    ):
        [page] = pages_between(world, lambda _: None, "n2", level=level, read=read)
        assert len(page.items) == 20
        assert {(proof.node, proof.level) for proof in page.evidence} == {("n2", level)}
    for group in world.groups.values():
        for _, raw in group.submitted:
            bounds = kv_pb2.BatchRequest.FromString(raw).read.after
            assert all(pair.partition == group.partition for pair in bounds)
