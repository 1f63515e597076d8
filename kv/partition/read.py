"""Reads: what a batch that only reads answers, from a state that stands still meanwhile.

Here live the gets and range pages that do not go through the log. Pure: at which index and with
which promise the state may be read is decided in `kv.partition.partition`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from kv.partition.batch import GET, RANGE, REFUSED, Batch, Operation
from kv.partition.machine import RESULT_BYTES_MAX, RESULT_TOO_LARGE_PART
from kv.partition.record import get_part, item_of, result_part
from kv.v1 import kv_pb2

ITEM_OVERHEAD_BYTES: Final = 64
"""Counted for each item of a page besides its key and value: revisions, version, framing."""


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
    parts: list[bytes] = []
    result_bytes = 0
    for operation in batch.operations:
        part = _read(state, operation, limits)
        if operation[0] != REFUSED:
            if result_bytes + len(part) > RESULT_BYTES_MAX:
                part = RESULT_TOO_LARGE_PART
            else:
                result_bytes += len(part)
        parts.append(part)
    return b"".join(parts)


def _read(state: ReadView, operation: Operation, limits: PageLimits) -> bytes:
    kind = operation[0]
    if kind == GET:
        return get_part(operation[1], state.get(operation[1]))
    if kind == RANGE:
        return _page(state, operation, limits)
    assert kind == REFUSED, f"operation {kind} is no read"
    part: bytes = operation[1]
    return part


def _page(state: ReadView, operation: Operation, limits: PageLimits) -> bytes:
    _, start, end, limit, keys_only = operation
    items_max = min(limit or limits.scan_page_items, limits.scan_page_items)
    result = kv_pb2.RangeResult()
    page_bytes = 0
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
        page_bytes += item_bytes
    return result_part(kv_pb2.OperationResult(range=result))
