"""An explicit batch: many operations, their results in order, one future for all.

The operations of one partition are applied in their order. So those of one partition
that do not fit into one request travel one request after the other, and when one of
these fails the rest of that partition is not sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from kv.client.calls import BatchCall
from kv.client.core import Core
from kv.client.lane import Limits
from kv.client.operations import op_size
from kv.client.route import Route
from kv.client.types import Get, Op, Result
from kv.errors import KVError, Unavailable
from kv.ids import GroupId


def split(positions: Sequence[int], sizes: Sequence[int], limits: Limits) -> list[list[int]]:
    """Cut the positions into pieces that fit into one request each, in order."""
    pieces: list[list[int]] = []
    size = limits.request_bytes_max + 1  # so that the first position opens a piece
    for position in positions:
        if size + sizes[position] > limits.request_bytes_max or len(pieces[-1]) >= limits.ops_per_request_max:
            pieces.append([])
            size = 0
        pieces[-1].append(position)
        size += sizes[position]
    return pieces


class BatchRun:
    """One batch under way."""

    def __init__(
        self, core: Core, ops: Sequence[Op], limits: Limits, read: Route, write: Route, deadline: float
    ) -> None:
        """Send the parts that only read on the route `read`, the others on `write`."""
        self._core = core
        self._ops = ops
        self._limits = limits
        self._read = read
        self._write = write
        self._deadline = deadline
        self._results: list[Result] = [None] * len(ops)
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._alive: set[BatchCall] = set()

    async def run(self, partition_of: Callable[[bytes], GroupId]) -> list[Result]:
        """Send everything and return the results when the last is there."""
        if not self._ops:
            return []
        by_partition: dict[GroupId, list[int]] = {}
        for position, op in enumerate(self._ops):
            by_partition.setdefault(partition_of(op.key), []).append(position)
        self._start(by_partition)
        try:
            await self._future
        finally:
            for call in self._alive:
                call.abandon()
        return self._results

    def _start(self, by_partition: Mapping[GroupId, list[int]]) -> None:
        sizes = list(map(op_size, self._ops))
        chains = []
        for partition, positions in by_partition.items():
            reads = all(isinstance(self._ops[position], Get) for position in positions)
            route = self._read if reads else self._write
            calls: deque[BatchCall] = deque()
            for piece in split(positions, sizes, self._limits):
                size = sum([sizes[position] for position in piece])
                calls.append(self._call(piece, size, route, partition, calls))
            chains.append((route, partition, calls))
            self._alive.update(calls)
        for route, partition, calls in chains:
            self._next(route, partition, calls)

    def _call(
        self, piece: list[int], size: int, route: Route, partition: GroupId, chain: deque[BatchCall]
    ) -> BatchCall:
        def end(error: KVError | None) -> None:
            self._alive.discard(call)
            if error is None:
                self._next(route, partition, chain)
            else:
                self._drop(chain, error)
            if not self._alive and not self._future.done():
                self._future.set_result(None)

        ops = [self._ops[position] for position in piece]
        call = BatchCall(ops, piece, self._results, size, self._deadline, end)
        return call

    def _next(self, route: Route, partition: GroupId, chain: deque[BatchCall]) -> None:
        """Send the next piece of a partition, if there is one."""
        if not chain:
            return
        call = chain.popleft()
        try:
            self._core.submit(route, partition, call)
        except KVError as error:
            call.fail(error)

    def _drop(self, chain: deque[BatchCall], error: KVError) -> None:
        """Fail what comes after a failed piece; it was never sent."""
        rest = Unavailable(
            f"not sent, because an earlier operation of the batch failed with {error.reason}: {error.message}",
            metadata={"cause": error.reason},
        )
        if chain:
            chain.popleft().fail(rest)  # which drops the one after it, and so on
