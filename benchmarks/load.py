"""Closed and open loops over one operation, and what they count. The same loops for every system.

No system is known here (`clients` makes the operations). Every loop is bounded: a closed one by its tasks, an open one by
`OUTSTANDING_MAX`, beyond which arrivals are counted as dropped by the generator, and not as refused by the store.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.stats import quantile

OUTSTANDING_MAX: Final = 4096
"""Operations of an open loop that have no end yet."""

LATENCIES_MAX: Final = 4_000_000
"""More are not kept; counting goes on."""

DRAIN_S: Final = 15.0
"""An open loop waits so long for what is under way at its end."""

DUE_PER_WAKE_MAX: Final = 1024
"""Operations that an open loop starts before it lets the others run: one call, if it has more."""

LATE_MAX_S: Final = 1.0
"""An arrival that the loop could not begin for so long is dropped: beginning it would only make all later ones late."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Of one call: operations that were done, that were refused for certain, and those nobody knows of."""

    done: int = 0
    definite: int = 0
    indefinite: int = 0
    reason: str = ""


Operation = Callable[[], Awaitable[object]]
Answered = Callable[[object], Counted | None]
"""Says what came of a call that returned: None if all of it was done, which must cost the loop nothing."""

Refused = Callable[[Exception], Counted]
"""Says what came of a call that raised; raises what is no answer of the system."""


@dataclass(slots=True)
class Tally:
    """What happened in the measured time, which begins at `begin` and ends at `until` (of `time.perf_counter`).

    `operations` are those of one call.
    """

    begin: float
    until: float
    operations: int = 1
    done: int = 0
    definite: int = 0
    indefinite: int = 0
    dropped: int = 0
    seconds: Counter[int] = field(default_factory=Counter)
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    refused_s: array[float] = field(default_factory=lambda: array("d"))
    told_s: array[float] = field(default_factory=lambda: array("d"))
    """As `refused_s`, from the moment of the call: without the time by which the generator was late."""
    reasons: Counter[str] = field(default_factory=Counter)

    def add_done(self, began: float, ended: float) -> None:
        """Count one call of which everything was done, by the moment of its end."""
        if self.begin <= ended < self.until:
            self.done += self.operations
            self.seconds[int(ended - self.begin)] += self.operations
            if len(self.latencies_s) < LATENCIES_MAX:
                self.latencies_s.append(ended - began)

    def add(self, counted: Counted, began: float, called: float, ended: float) -> None:
        """Count one call of which something was refused; it was to begin at `began`, and did at `called`."""
        if not self.begin <= ended < self.until:
            return
        self.done += counted.done
        self.definite += counted.definite
        self.indefinite += counted.indefinite
        self.seconds[int(ended - self.begin)] += counted.done
        if len(self.refused_s) < LATENCIES_MAX:
            self.refused_s.append(ended - began)
            self.told_s.append(ended - called)
        self.reasons[counted.reason] += counted.definite + counted.indefinite

    def metrics(self) -> dict[str, float]:
        """Return rates per second, latencies in milliseconds, and counts."""
        span_s = self.until - self.begin
        failed = self.definite + self.indefinite
        found = {
            "per_s": self.done / span_s,
            "refused_per_s": self.definite / span_s,
            "unknown_per_s": self.indefinite / span_s,
            "dropped_per_s": self.dropped / span_s,
            "definite_share": self.definite / failed if failed else 1.0,
        }
        for name, values in (("", self.latencies_s), ("refused_", self.refused_s), ("told_", self.told_s)):
            if values:
                ordered = sorted(values)
                for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
                    found[f"{name}{label}_ms"] = 1000 * quantile(ordered, share)
        return found

    def series(self) -> list[float]:
        """Return the operations of each whole second."""
        return [float(self.seconds[second]) for second in range(int(self.until - self.begin))]


async def closed_loop(
    operation: Operation,
    answered: Answered,
    refused: Refused,
    *,
    operations: int = 1,
    tasks: int,
    warmup_s: float,
    seconds: float,
) -> Tally:
    """Let `tasks` tasks call `operation` one after the other, each awaiting its own; the warm-up does not count."""
    begin = time.perf_counter() + warmup_s
    tally = Tally(begin, begin + seconds, operations)

    async def loop() -> None:
        clock, until, add_done = time.perf_counter, tally.until, tally.add_done
        while (began := clock()) < until:
            try:
                counted = answered(await operation())
            except Exception as error:  # noqa: BLE001 - `refused` raises what it does not know
                counted = refused(error)
            if counted is None:
                add_done(began, clock())
            else:
                tally.add(counted, began, began, clock())

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(loop())
    return tally


async def open_loop(
    operation: Operation,
    answered: Answered,
    refused: Refused,
    *,
    operations: int = 1,
    calls_per_s: float,
    warmup_s: float,
    seconds: float,
) -> Tally:
    """Begin calls at a constant rate, whatever becomes of those before.

    A latency counts from the moment at which the call was to begin, so that a generator that is late does not hide the
    wait (coordinated omission). A process that cannot begin as many as are due drops them after `LATE_MAX_S`.
    """
    begin = time.perf_counter() + warmup_s
    tally = Tally(begin, begin + seconds, operations)
    alive: set[asyncio.Task[None]] = set()
    start, number = time.perf_counter(), 0
    per_wake = max(1, DUE_PER_WAKE_MAX // operations)
    while (now := time.perf_counter()) < tally.until:
        due = min(int((now - start) * calls_per_s) - number, per_wake)
        for _ in range(due):
            intended = start + number / calls_per_s
            number += 1
            if len(alive) >= OUTSTANDING_MAX or now - intended > LATE_MAX_S:
                tally.dropped += operations if intended >= begin else 0
                continue
            task = asyncio.create_task(_one(tally, intended, operation, answered, refused))
            alive.add(task)
            task.add_done_callback(alive.discard)
        await asyncio.sleep(0 if due == per_wake else 1 / max(calls_per_s, 1000))
    await _drain(alive)
    return tally


async def _one(
    tally: Tally, intended: float, operation: Operation, answered: Answered, refused: Refused
) -> None:
    """Make one call, and count it from the moment at which it was to begin."""
    called = time.perf_counter()
    try:
        counted = answered(await operation())
    except Exception as error:  # noqa: BLE001 - `refused` raises what it does not know
        counted = refused(error)
    if counted is None:
        tally.add_done(intended, time.perf_counter())
    else:
        tally.add(counted, intended, called, time.perf_counter())


async def _drain(alive: set[asyncio.Task[None]]) -> None:
    """Wait for the last ones, and look at each: a loop that broke must not pass for one that measured."""
    if not alive:
        return
    done, late = await asyncio.wait(set(alive), timeout=DRAIN_S)
    for task in late:
        task.cancel()
    for task in done:
        task.result()
