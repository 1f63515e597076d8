"""Scans: bounds, order over partitions, pages, evidence and limits."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import DeadlineExceeded, InvalidArgument, KeyTooLong, KVError, NoLeader, Unavailable
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
    ],
)
def test_bad_bounds_are_refused(fields: dict[str, Any], expected: type[KVError]) -> None:
    """Contradictory, reversed and overlong bounds and unknown levels are definite errors."""
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
