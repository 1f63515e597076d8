"""Reads: what a batch that only reads answers, from a state that stands still meanwhile.

Here live the gets and range pages that do not go through the log. Pure: at which index and with
which promise the state may be read is decided in `kv.partition.partition`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kv.partition.batch import GET, GET_MANY, PAGE, RANGE, REFUSED, Batch, Operation
from kv.partition.machine import RESULT_BYTES_MAX, RESULT_TOO_LARGE_PART
from kv.partition.record import HEADER_BYTES, get_part, item_of, mod_revision_of, result_part, unpack_history
from kv.v1 import kv_pb2

ITEM_OVERHEAD_BYTES: Final = 64
"""Counted for each item of a page besides its key and value: revisions, version, framing."""

ROW_OVERHEAD_BYTES: Final = 16
"""Counted for each row of a `GetManyResult` besides its record, whose header is longer than the row's numbers."""

_NO_RECORD: Final = bytes(HEADER_BYTES)
"""Stands in for what is missing: revision 0 and no value."""


class ReadView(Protocol):
    """The keys of the partition, to read."""

    def get(self, key: bytes) -> bytes | None:
        """Return the record of `key`, or None."""

    def range(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, record) for start <= key < end in order; an empty `end` is no end."""


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Bounds of one page of a range; a page holds at least one item all the same."""

    scan_page_items: int
    scan_page_bytes: int


def read_batch(state: ReadView, batch: Batch, limits: PageLimits) -> bytes:
    """Return the serialized results of a batch that only reads, of bounded size."""
    return read_results(state, batch, limits)[0]


def read_results(state: ReadView, batch: Batch, limits: PageLimits) -> tuple[bytes, int]:
    """Return the serialized results of a batch that only reads, and the highest mod_revision among what it found."""
    parts: list[bytes] = []
    result_bytes = revision = 0
    for operation in batch.operations:
        kind = operation[0]
        if kind == GET:
            record = state.get(operation[1])
            part, found = get_part(operation[1], record), mod_revision_of(record)
        elif kind == GET_MANY:
            part, found = _get_many(state, operation[1], RESULT_BYTES_MAX - result_bytes)
        else:
            part, found = _read(state, operation, limits)
        if kind != REFUSED:
            if result_bytes + len(part) > RESULT_BYTES_MAX:
                part, found = RESULT_TOO_LARGE_PART, 0
            else:
                result_bytes += len(part)
        revision = max(revision, found)
        parts.append(part)
    return b"".join(parts), revision


def _get_many(state: ReadView, keys: Sequence[bytes], bytes_max: int) -> tuple[bytes, int]:
    """Return the part with the first rows that fit into `bytes_max`, and the highest mod_revision in it.

    No Python for each column of a row: `zip` and `Struct` turn the headers around.
    """
    records = [record or _NO_RECORD for record in map(state.get, keys)]
    if sum(map(len, records)) + ROW_OVERHEAD_BYTES * len(records) > bytes_max:
        records = records[: _fitting(records, bytes_max)]
        if not records:
            return RESULT_TOO_LARGE_PART, 0
    created, modified, versions = zip(*map(unpack_history, records), strict=True)
    result = kv_pb2.OperationResult()
    many = result.get_many  # in its place from the start: given to the constructor it would be copied
    many.values.extend([record[HEADER_BYTES:] for record in records])
    many.create_revisions.extend(created)
    many.mod_revisions.extend(modified)
    many.versions.extend(versions)
    return result_part(result), max(modified)


def _fitting(records: Sequence[bytes], bytes_max: int) -> int:
    """Return how many records fit."""
    for count, record in enumerate(records):
        bytes_max -= len(record) + ROW_OVERHEAD_BYTES
        if bytes_max < 0:
            return count
    return len(records)


def read_page(
    state: ReadView, operation: Operation, limits: PageLimits, snapshot: Callable[[], int]
) -> tuple[bytes, int, bool]:
    """Return a page's serialized result, the highest mod_revision in it, and whether more follows.

    `snapshot` gives the id for the pages that follow; it is asked only if there are some.
    """
    result, revision = _page(state, operation, limits)
    if result.more:
        result.snapshot = snapshot()
    part = result_part(kv_pb2.OperationResult(range=result))
    if len(part) > RESULT_BYTES_MAX:
        return RESULT_TOO_LARGE_PART, 0, False
    return part, revision, result.more


def _read(state: ReadView, operation: Operation, limits: PageLimits) -> tuple[bytes, int]:
    """Return the part of an operation that is no get, and the highest mod_revision in it."""
    kind = operation[0]
    if kind in (RANGE, PAGE):
        result, revision = _page(state, operation, limits)
        return result_part(kv_pb2.OperationResult(range=result)), revision
    assert kind == REFUSED, f"operation {kind} is no read"
    return operation[1], 0


def _page(state: ReadView, operation: Operation, limits: PageLimits) -> tuple[kv_pb2.RangeResult, int]:
    _, start, end, limit, keys_only = operation[:5]
    items_max = min(limit or limits.scan_page_items, limits.scan_page_items)
    result = kv_pb2.RangeResult()
    page_bytes = revision = 0
    for key, record in state.range(start, end):
        item_bytes = len(key) + ITEM_OVERHEAD_BYTES + (0 if keys_only else len(record))
        full = len(result.items) >= items_max or page_bytes + item_bytes > limits.scan_page_bytes
        if full and result.items:
            result.more = True
            break
        item = item_of(key, record)
        if keys_only:
            item.ClearField("value")
        result.items.append(item)
        revision = max(revision, item.mod_revision)
        page_bytes += item_bytes
    return result, revision
