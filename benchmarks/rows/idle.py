"""Rows 8 and 10: what a cluster costs that does nothing, and what memory keys cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

from benchmarks import goals
from benchmarks.goals import ETCD
from benchmarks.proc import cpu_s, rss_mib, rss_without_data_mib
from benchmarks.record import Sample
from benchmarks.rows.base import Family
from benchmarks.systems.base import System, running
from benchmarks.systems.etcd import Etcd
from benchmarks.systems.ringkv import RingKV

SETTLE_S: Final = 5.0
"""After the start or the fill: caches are written, and what was under way ends."""

PARTITIONS: Final = 16
IDLE_WORKS: Final = {"64 partitions": (goals.IDLE_64, 64), "256 partitions": (goals.IDLE_256, 256)}


class Idle(Family):
    """CPU of each node of an idle cluster; etcd's as a measure of what is usual."""

    rows = (8,)
    systems = (*IDLE_WORKS, ETCD)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        work, partitions = IDLE_WORKS.get(system, ("idle, one group", 1))
        made: System = Etcd(folder) if system == ETCD else RingKV(folder, partitions)
        self.bench.note(made.command())
        async with running(made):
            percents = await idle_percent(made, self.options.idle_s)
            metrics = {"cpu_percent": max(percents), "cpu_percent_least": min(percents)}
            yield Sample(8, made.title, work, number, metrics)
        self.bench.discard(folder)


async def idle_percent(system: System, seconds: float) -> list[float]:
    """Return the CPU of each node in percent of a core, over so many seconds."""
    await asyncio.sleep(SETTLE_S)
    pids = system.pids().values()
    began, before = time.monotonic(), [cpu_s(pid) for pid in pids]
    await asyncio.sleep(seconds)
    span_s = time.monotonic() - began
    return [100 * (cpu_s(pid) - first) / span_s for pid, first in zip(pids, before, strict=True)]


class Memory(Family):
    """Resident memory of each node: idle, and with many keys."""

    rows = (10,)
    systems = (goals.RSS_IDLE, goals.RSS_FULL)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        store = RingKV(folder, PARTITIONS)
        async with running(store):
            if system == goals.RSS_FULL:
                await self.bench.fill(store, self.options.keys_memory)
            await asyncio.sleep(SETTLE_S)
            pids = store.pids().values()
            metrics = {
                "rss_mib": max(map(rss_mib, pids)),
                "rss_without_data_mib": max(map(rss_without_data_mib, pids)),
            }
            yield Sample(10, store.title, system, number, metrics)
        self.bench.discard(folder)
