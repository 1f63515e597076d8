"""A scan: the keys of a range over all partitions, merged in key order.

Each partition's share is read at one index: its first page is read at the level of the scan and keeps a snapshot
at the replica that served it, from which the pages after it are read. A partition whose share fits into one page
needs none. If the snapshot or its replica is gone, the scan ends with SNAPSHOT_GONE: it never mixes two indexes.

Here live the bounds of a scan (pure) and `Scan`, the k-way merge of the partitions' pages. Keys are
spread by hash, so every partition has its share of every range and takes part from the beginning.

Memory: each partition has at most one and a half pages here. A page shrinks with the number of
partitions, so that all pages together hold about `scan_items_max` items.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from kv.errors import InvalidArgument, KeyTooLong, KVError, SnapshotGone
from kv.ids import KEY_BYTES_MAX, GroupId, NodeId
from kv.router.dispatch import Router
from kv.router.options import FANNED_OUT, check_read, share_of
from kv.router.retry import ELSEWHERE
from kv.router.routing import single_result
from kv.router.streams import stop_tasks
from kv.v1 import kv_pb2

PAGE_ITEMS_MIN: Final = 8
"""A partition's page is never smaller: below that, round trips cost more than the memory is worth."""

ITEM_OVERHEAD_BYTES: Final = 8
"""What a repeated message costs around an item, at most."""


def scan_bounds(request: kv_pb2.ScanRequest) -> tuple[bytes, bytes]:
    """Return (start, end) of the scan; an empty end is the end of the key space. Raises `InvalidArgument`."""
    start, end = request.start, request.end
    check_read(request.level, request.read)
    if request.level in FANNED_OUT:
        raise InvalidArgument(
            "a scan reads each partition from one replica: QUORUM and ALL are not for scans"
        )
    for name, bound in (("prefix", request.prefix), ("start", start), ("end", end)):
        if len(bound) > KEY_BYTES_MAX:
            raise KeyTooLong(
                f"the {name} has {len(bound)} bytes, a key has at most {KEY_BYTES_MAX}",
                metadata={"key_bytes": len(bound), "key_bytes_max": KEY_BYTES_MAX},
            )
    if request.prefix and (start or end):
        raise InvalidArgument("a scan has either a prefix, or a start and an end")
    if end and start > end:
        raise InvalidArgument("the start of the scan is after its end")
    if request.prefix:
        return request.prefix, prefix_end(request.prefix)
    return start, end


def prefix_end(prefix: bytes) -> bytes:
    """Return the least key above every key that begins with `prefix`; empty if there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b""


def successor(key: bytes) -> bytes:
    """Return the least possible key above `key`; empty if there is none."""
    return key + b"\x00" if len(key) < KEY_BYTES_MAX else prefix_end(key)


def page_items(items_max: int, page_items_max: int, partitions: int, limit: int) -> int:
    """Return how many items to ask of one partition at a time; `limit` 0: the scan has none."""
    share = max(PAGE_ITEMS_MIN, min(page_items_max, items_max // partitions))
    return min(share, limit) if limit else share


class _Cursor:
    """One partition's place in the scan."""

    __slots__ = ("done", "evidence", "fetch", "items", "keep", "next_start", "node", "partition", "snapshot")

    def __init__(self, partition: GroupId, start: bytes, *, keep: bool) -> None:
        self.partition = partition
        self.next_start = start
        self.items: deque[kv_pb2.KeyValue] = deque()
        self.evidence: Sequence[kv_pb2.Evidence] = ()  # of the first page: the others are of the same index
        self.keep = keep  # one page may not be all, so its state is to be kept for the next
        self.snapshot = 0
        self.node: NodeId = ""
        self.done = False
        self.fetch: asyncio.Task[None] | None = None


class _Page:
    """The ScanResponse that is being filled."""

    def __init__(self) -> None:
        self.items: list[kv_pb2.KeyValue] = []
        self.items_bytes = 0
        self._evidence: dict[tuple[int, int], kv_pb2.Evidence] = {}

    def add(self, item: kv_pb2.KeyValue, item_bytes: int) -> None:
        self.items.append(item)
        self.items_bytes += item_bytes

    def fed_by(self, evidence: Sequence[kv_pb2.Evidence]) -> None:
        for proof in evidence:
            self._evidence[proof.partition, proof.index] = proof

    def response(self) -> kv_pb2.ScanResponse:
        return kv_pb2.ScanResponse(items=self.items, evidence=self._evidence.values())


class Scan:
    """One scan over all partitions. `deadline()` gives the deadline of a read that begins now."""

    def __init__(self, router: Router, request: kv_pb2.ScanRequest, deadline: Callable[[], float]) -> None:
        """Raises `InvalidArgument` for bad bounds, `Unavailable` before the first cluster map."""
        start, self._end = scan_bounds(request)
        cluster_map, _ = router.ring()
        config = router.config
        self._router = router
        self._request = request
        self._deadline = deadline
        self._response_bytes_max = config.scan_response_bytes_max
        partitions = cluster_map.partitions
        self._page_items = page_items(
            config.scan_items_max, config.scan_page_items, len(partitions), request.limit
        )
        keep = not 0 < request.limit <= self._page_items
        self._cursors = [_Cursor(partition.id, start, keep=keep) for partition in partitions]
        self._slots = asyncio.Semaphore(config.scan_fetches_max)
        self._page = _Page()

    async def pages(self) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        """Give the pages in key order; at least one, which carries the evidence of an empty range."""
        try:
            async for page in self._merge():
                yield page
        finally:
            await stop_tasks(*(cursor.fetch for cursor in self._cursors if cursor.fetch is not None))

    async def _merge(self) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        heap: list[tuple[bytes, int]] = []
        for cursor in self._cursors:
            self._prefetch(cursor)
        for number, cursor in enumerate(self._cursors):
            await self._push(heap, number, cursor)
        left = self._request.limit or -1
        while heap and left:
            _, number = heapq.heappop(heap)
            cursor = self._cursors[number]
            item = cursor.items.popleft()
            item_bytes = item.ByteSize() + ITEM_OVERHEAD_BYTES
            if self._page.items and self._page.items_bytes + item_bytes > self._response_bytes_max:
                yield self._turn_page()
            self._page.add(item, item_bytes)
            self._page.fed_by(cursor.evidence)
            left -= 1
            if left:
                await self._push(heap, number, cursor)
        yield self._turn_page()

    async def _push(self, heap: list[tuple[bytes, int]], number: int, cursor: _Cursor) -> None:
        """Put the partition's next key on the heap, if it has one; fetch ahead when half of the page is used."""
        while not cursor.items and not cursor.done:
            await self._prefetch(cursor)
        if cursor.items:
            heapq.heappush(heap, (cursor.items[0].key, number))
            if not cursor.done and len(cursor.items) <= self._page_items // 2:
                self._prefetch(cursor)

    def _prefetch(self, cursor: _Cursor) -> asyncio.Task[None]:
        """Return the read of the partition's next page; a failed one stays, for whoever needs that page."""
        if cursor.fetch is None:
            cursor.fetch = asyncio.get_running_loop().create_task(self._fetch(cursor))
        return cursor.fetch

    async def _fetch(self, cursor: _Cursor) -> None:
        async with self._slots:
            response = await self._read(cursor)
            if _is_short(response, self._page_items) and not cursor.keep:
                cursor.keep = (
                    True  # values so large that a page holds less than was asked: nothing of it is used
                )
                response = await self._read(cursor)
        result = single_result(response).range
        assert result.items or not result.more, "a page that has more after it is not empty"
        cursor.items.extend(result.items)
        if not cursor.evidence:
            cursor.evidence = list(response.evidence)
        if not result.items:
            self._page.fed_by(cursor.evidence)  # it proves that there is nothing here
        if result.more:
            cursor.next_start = successor(result.items[-1].key)
        cursor.done = not result.more or not cursor.next_start or not cursor.keep
        if not cursor.done and not cursor.snapshot:
            _pin(cursor, result.snapshot)
        cursor.fetch = None

    async def _read(self, cursor: _Cursor) -> kv_pb2.BatchResponse:
        """Read the partition's next page; from its snapshot, once there is one."""
        request = self._request
        operation = kv_pb2.RangeOperation(
            start=cursor.next_start,
            end=self._end,
            limit=self._page_items,
            keys_only=request.keys_only,
            keep_snapshot=cursor.keep and not cursor.snapshot,
            snapshot=cursor.snapshot,
        )
        batch = kv_pb2.BatchRequest(operations=[kv_pb2.Operation(range=operation)], level=request.level)
        if request.HasField("read"):
            batch.read.CopyFrom(share_of(request.read, cursor.partition))
        try:
            raw = await self._router.request(
                batch, self._deadline(), partition=cursor.partition, node=cursor.node
            )
        except KVError as error:
            if cursor.snapshot and error.reason in ELSEWHERE | {"WRONG_PARTITION"}:
                raise _gone(cursor, error.reason.lower()) from error
            raise
        return kv_pb2.BatchResponse.FromString(raw)

    def _turn_page(self) -> kv_pb2.ScanResponse:
        page, self._page = self._page, _Page()
        return page.response()


def _is_short(response: kv_pb2.BatchResponse, page_items: int) -> bool:
    """Return whether a page that is not the last holds fewer items than were asked for."""
    result = single_result(response).range
    return result.more and len(result.items) < page_items


def _pin(cursor: _Cursor, snapshot: int) -> None:
    """Have the pages that follow read from the snapshot, at the node that has it."""
    if not snapshot or not cursor.evidence:
        raise _gone(cursor, "not kept")
    cursor.snapshot, cursor.node = snapshot, cursor.evidence[0].node


def _gone(cursor: _Cursor, cause: str) -> SnapshotGone:
    node = cursor.node or (cursor.evidence[0].node if cursor.evidence else "")
    return SnapshotGone(
        f"the state of partition {cursor.partition} that the scan reads is no longer kept at node {node}: {cause}",
        metadata={"partition": cursor.partition, "node": node, "cause": cause},
    )
