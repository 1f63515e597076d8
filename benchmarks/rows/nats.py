"""Row 5: put with 512 tasks, against JetStream's key-value bucket."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from benchmarks import goals
from benchmarks.goals import NATS, RINGKV
from benchmarks.record import Sample
from benchmarks.rows.base import Family
from benchmarks.systems.base import System, running
from benchmarks.systems.nats import Nats
from benchmarks.systems.ringkv import RingKV

TASKS: Final = 512


class NatsRow(Family):
    """ringkv and NATS."""

    rows = (5,)
    systems = (RINGKV, NATS)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        made: System = RingKV(folder, self.options.partitions_beside) if system == RINGKV else Nats(folder)
        self.bench.note(made.command())
        async with running(made):
            loaded = await self.bench.load(made, "put", tasks=TASKS)
            yield loaded.sample(5, made, goals.PUT_512, number)
        self.bench.discard(folder)
