"""Row 13: twice as much as the cluster can do, in an open loop.

First the best rate of closed loops in two load processes; then as many in open loops, each at the rate of both before,
whatever becomes of the calls before. One process alone would find its own best rate, not the cluster's.
Refusals are definite if nothing was applied. Latencies count from the moment at which a call was to begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from benchmarks import goals
from benchmarks.clients import FILL_OPERATIONS
from benchmarks.proc import rss_mib
from benchmarks.record import Sample
from benchmarks.rows.base import Family, Loaded
from benchmarks.systems.base import running
from benchmarks.systems.ringkv import RingKV

PEAK_FACTOR: Final = 16
"""The peak is looked for with so many times the calls in flight of row 2: nothing may be left to gain there."""

FLOOD_FACTOR: Final = 2
GENERATORS: Final = 2
SLICES: Final = 3
"""The flood lasts so many times a plain slice: queues take time to fill."""

LOOK_S: Final = 0.25


class Overload(Family):
    """Batches of 128 puts: single ones would overload the generator, not the cluster."""

    rows = (13,)
    systems = (goals.FLOOD,)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        store = RingKV(folder, self.options.partitions)
        async with running(store):
            await self.bench.fill(store, self.options.keys)
            peak = await self._peak(store)
            yield Sample(13, store.title, goals.PEAK, number, {**peak, "rss_mib": largest_mib(store)})
            calls_per_s = FLOOD_FACTOR * peak["per_s"] / GENERATORS / FILL_OPERATIONS
            parts, rss = await self._flood(store, calls_per_s)
            metrics = {**merged([part.metrics for part in parts]), "rss_mib": rss}
            notes = " / ".join(part.note for part in parts if part.note)
            yield Sample(13, store.title, system, number, metrics, note=notes)
        self.bench.discard(folder)

    async def _peak(self, store: RingKV) -> dict[str, float]:
        tasks = PEAK_FACTOR * self.options.batches_in_flight // GENERATORS
        loads = (self.bench.load(store, "put", tasks=tasks, batch=FILL_OPERATIONS) for _ in range(GENERATORS))
        return merged([loaded.metrics for loaded in await asyncio.gather(*loads)])

    async def _flood(self, store: RingKV, calls_per_s: float) -> tuple[list[Loaded], float]:
        """Return what each generator saw, and the most memory that a node had meanwhile."""
        seconds = SLICES * self.options.seconds
        greatest = largest_mib(store)
        loads = [
            asyncio.create_task(
                self.bench.load(store, "put", batch=FILL_OPERATIONS, calls_per_s=calls_per_s, seconds=seconds)
            )
            for _ in range(GENERATORS)
        ]
        try:
            while not all(load.done() for load in loads):
                await asyncio.wait(loads, timeout=LOOK_S)
                greatest = max(greatest, largest_mib(store))
            return [load.result() for load in loads], greatest
        finally:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)


def largest_mib(store: RingKV) -> float:
    """Return the resident MiB of the largest node."""
    return max(map(rss_mib, store.pids().values()))


def merged(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics of generators that ran together: rates add up, of latencies the worst counts."""
    names = dict.fromkeys(name for part in parts for name in part)
    found = {
        name: sum(part.get(name, 0.0) for part in parts)
        if name.endswith("_per_s") or name == "per_s"
        else max(part.get(name, 0.0) for part in parts)
        for name in names
        if name != "definite_share"
    }
    failed = found["refused_per_s"] + found["unknown_per_s"]
    return {**found, "definite_share": found["refused_per_s"] / failed if failed else 1.0}
