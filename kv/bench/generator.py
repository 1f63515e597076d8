"""Runs the operations of one process: in a closed loop as fast as they are answered, or when they are due.

This is the hot path: what it does beside the operation itself is in every figure (docs/bench.md says how much).
The clock is an argument; what an operation is and when it is due come from `kv.bench.workload`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from kv.bench.arrivals import NS_PER_S
from kv.bench.plan import Share
from kv.bench.tally import Tally, ending_of
from kv.bench.workload import Pick, Target
from kv.errors import KVError

TIMER_NS_MIN: Final = NS_PER_S // 1000
"""A shorter wait is no timer in uvloop but a pass of its loop, and many of them take a processor from the nodes."""

BURST_MAX: Final = 64
"""Operations that are begun in one turn of the event loop, when many are due: answers must get their turn too."""


class Generator:
    """One run of one share.

    The measured time begins at `start_ns` of the clock (ns, monotonic); the warm-up runs before it, from
    `begin_ns` on. What begins or is due after its end is not begun; what has begun is awaited.
    """

    def __init__(
        self,
        share: Share,
        targets: Sequence[Target],
        pick: Pick,
        tally: Tally,
        *,
        clock: Callable[[], int],
        start_ns: int,
    ) -> None:
        self._share = share
        self._targets = targets
        self._pick = pick
        self._tally = tally
        self._clock = clock
        self.begin_ns = start_ns - round(share.plan.warmup_s * NS_PER_S)
        self._start_ns = start_ns
        self._left = share.count
        self._end_ns = None if share.count is not None else start_ns + round(share.plan.duration_s * NS_PER_S)
        self.outstanding = 0
        """Operations that have begun and not ended."""

    async def run(self, arrivals: Iterator[int]) -> None:
        """Run to the end; `arrivals` (ns since the beginning) are for an open loop only."""
        await self._sleep_until(self.begin_ns)
        if self._share.plan.open_loop:
            await self._open(arrivals)
        else:
            await self._closed()

    async def _closed(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._share.tasks):
                group.create_task(self._task(self._targets[number % len(self._targets)]))

    async def _task(self, target: Target) -> None:
        while True:
            began_ns = self._clock()
            if not self._may_begin(began_ns):
                return
            if not await self._one(target, began_ns):
                # An error may come without a wait for anything; the other tasks must get their turn.
                await asyncio.sleep(0)

    def _may_begin(self, at_ns: int) -> bool:
        """Whether an operation of that time belongs to the run; takes it off what is left."""
        if self._end_ns is not None:
            return at_ns < self._end_ns
        if at_ns >= self._start_ns:
            assert self._left is not None, "a run has an end or a number of operations"
            if self._left == 0:
                return False
            self._left -= 1
        return True

    async def _open(self, arrivals: Iterator[int]) -> None:
        begun = 0
        outstanding_max, targets = self._share.outstanding_max, self._targets
        async with asyncio.TaskGroup() as group:
            for begun, after_ns in enumerate(arrivals):
                due_ns = self.begin_ns + after_ns
                if not self._may_begin(due_ns):
                    break
                if due_ns > self._clock():
                    await self._sleep_until(due_ns)
                elif begun % BURST_MAX == 0:
                    await asyncio.sleep(0)
                if self.outstanding < outstanding_max:
                    self.outstanding += 1
                    group.create_task(self._due(targets[begun % len(targets)], due_ns))
                elif due_ns >= self._start_ns:
                    self._tally.dropped(due_ns - self._start_ns)

    async def _due(self, target: Target, due_ns: int) -> None:
        if due_ns >= self._start_ns:
            self._tally.lag.record(self._clock() - due_ns)
        try:
            await self._one(target, due_ns)
        finally:
            self.outstanding -= 1

    async def _one(self, target: Target, from_ns: int) -> bool:
        """Run one operation, whose latency counts from `from_ns`; return whether it succeeded."""
        work = self._pick()
        ending = work.done
        try:
            items = await work.run(target)
        except KVError as error:
            ending, items = ending_of(ending.operation, error), 0
        ended_ns = self._clock()
        start_ns = self._start_ns
        if ended_ns >= start_ns:
            latency_ns = ended_ns - from_ns if from_ns >= start_ns else None
            self._tally.ended(ended_ns - start_ns, ending, items, latency_ns)
        return not ending.reason

    async def _sleep_until(self, at_ns: int) -> None:
        """Sleep, by timers of the event loop: it may be late by a millisecond, which counts as latency.

        Never early: uvloop's timers count in whole milliseconds and fire up to one before their time. An operation
        of the measured time that began then would be one of the warm-up, more than were asked for.
        """
        while (wait_ns := at_ns - self._clock()) > 0:  # noqa: ASYNC110  # time is what is waited for
            await asyncio.sleep(max(wait_ns, TIMER_NS_MIN) / NS_PER_S)
