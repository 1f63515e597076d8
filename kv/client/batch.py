"""An explicit batch: many operations, their results in order, one future for all.

The operations of one partition are applied in their order. So those of one partition
that do not fit into one request travel one request after the other, and when one of
these fails the rest of that partition is not sent.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from kv.client.calls import BatchCall
from kv.client.core import Core
from kv.client.limits import Limits
from kv.client.operations import fresh, op_size
from kv.client.route import Route
from kv.client.rows import Rows
from kv.client.types import Result
from kv.errors import KVError, Unavailable
from kv.ids import GroupId


def split(positions: Sequence[int], rows: Rows, limits: Limits) -> Iterator[tuple[Sequence[int], Rows]]:
    """Cut the rows into pieces that fit into one request each, in order; with each piece its positions."""
    bytes_max, ops_max = limits.request_bytes_max, limits.ops_per_request_max
    if len(rows) <= ops_max and rows.size() <= bytes_max:
        yield positions, rows
        return
    first = size = 0
    for place, op in enumerate(rows.ops):
        size += op_size(op)
        if place > first and (size > bytes_max or place - first >= ops_max):
            yield positions[first:place], rows.pick(range(first, place))
            first, size = place, op_size(op)
    yield positions[first:], rows.pick(range(first, len(rows)))


_Chain: TypeAlias = tuple[Route, GroupId, deque[BatchCall]]


class BatchRun:
    """One batch under way."""

    def __init__(
        self, core: Core, rows: Rows, limits: Limits, read: Route, write: Route, deadline: float
    ) -> None:
        """Send the parts that only read on the route `read`, the others on `write`."""
        self._core = core
        self._rows = rows
        self._limits = limits
        self._read = read
        self._write = write
        self._deadline = deadline
        self._results: list[Result] = [None] * len(rows)
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls: list[BatchCall] = []
        self._waiting = 0
        """Calls that have not ended."""
        self._behind: dict[BatchCall, _Chain] = {}
        """Of a call that others of its partition follow: where it goes, and they."""

    async def run(self, partitions_of: Callable[[Iterable[bytes]], list[GroupId]]) -> list[Result]:
        """Send everything and return the results when the last is there."""
        if not self._rows:
            return []
        self._start(_by_partition(partitions_of(self._rows.keys)))
        try:
            await self._future
        finally:
            if self._waiting:
                for call in self._calls:
                    call.abandon()
            # Each call refers to this run: as a cycle, all results would stay until the garbage collector comes by.
            self._calls.clear()
            self._behind.clear()
        return self._results

    def _start(self, by_partition: Mapping[GroupId, Sequence[int]]) -> None:
        limits, results, deadline, ended = self._limits, self._results, self._deadline, self._ended
        first: list[tuple[Route, GroupId, BatchCall]] = []
        for partition, positions in by_partition.items():
            rows = self._rows.pick(positions)
            route = self._read if rows.reads else self._write
            call = BatchCall(rows, positions, results, deadline, ended)
            if call.count > limits.ops_per_request_max or call.size > limits.request_bytes_max:
                chain = deque(
                    BatchCall(piece, places, results, deadline, ended)
                    for places, piece in split(positions, rows, limits)
                )
                self._calls.extend(chain)
                call = chain.popleft()
                self._behind[call] = (route, partition, chain)
            else:
                self._calls.append(call)
            first.append((route, partition, call))
        self._waiting = len(self._calls)
        for route, partition, call in first:
            self._submit(route, partition, call)

    def _submit(self, route: Route, partition: GroupId, call: BatchCall) -> None:
        try:
            self._core.submit(route, partition, call)
        except KVError as error:
            call.fail(error)

    def _ended(self, call: BatchCall, error: KVError | None) -> None:
        self._waiting -= 1
        if self._behind:
            behind = self._behind.pop(call, None)
            if behind is not None:
                self._go_on(behind, error)
        if not self._waiting and not self._future.done():
            self._future.set_result(None)

    def _go_on(self, behind: _Chain, error: KVError | None) -> None:
        """Send the next piece of a partition, if there is one; after a failure none, they were never sent."""
        route, partition, chain = behind
        if error is not None:
            text = f"not sent, because an earlier operation of the batch failed with {error.reason}: {error.message}"
            rest = Unavailable(text, metadata={"cause": error.reason})
            for call in chain:  # they are behind nobody any more, so that none of them comes here again
                call.fail(fresh(rest))
        elif chain:
            call = chain.popleft()
            self._behind[call] = behind
            self._submit(route, partition, call)


def _by_partition(partitions: Sequence[GroupId]) -> Mapping[GroupId, Sequence[int]]:
    """Return the positions of each partition, in the order in which the partitions are first named."""
    if partitions.count(partitions[0]) == len(partitions):
        return {partitions[0]: range(len(partitions))}
    positions: defaultdict[GroupId, list[int]] = defaultdict(list)
    for position, partition in enumerate(partitions):
        positions[partition].append(position)
    return positions
