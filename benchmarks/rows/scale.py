"""Row 9: whether the throughput of row 2 stays, with more partitions, with more keys, and over time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from benchmarks import goals
from benchmarks.clients import FILL_OPERATIONS
from benchmarks.record import Sample
from benchmarks.rows.base import Bench, Family, Loaded
from benchmarks.systems.base import running
from benchmarks.systems.ringkv import RingKV

KEYS_FEW: Final = 10_000
WINDOW_S_MAX: Final = 60.0
"""Of a long load: its first minute, and its last."""

PARTITIONS: Final = {goals.SCALE_4: 4, goals.SCALE_64: 64}


class Partitions(Family):
    """64 partitions against 4."""

    rows = (9,)
    systems = tuple(PARTITIONS)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        store = RingKV(folder, PARTITIONS[system])
        async with running(store):
            yield (await put_batches(self, store, self.options.keys)).sample(9, store, system, number)
        self.bench.discard(folder)


class Keys(Family):
    """Many keys against few. The stores are filled once and started again for each round: filling takes minutes."""

    rows = (9,)
    systems = (goals.SCALE_FEW, goals.SCALE_MANY)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._stores: dict[str, RingKV] = {}

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        keys = KEYS_FEW if system == goals.SCALE_FEW else self.options.keys_many
        store = self._stores.get(system) or await self._filled(system, keys)
        async with running(store):
            yield (await put_batches(self, store, keys, listed=False)).sample(9, store, system, number)

    async def _filled(self, system: str, keys: int) -> RingKV:
        store = RingKV(self.bench.scratch(), self.options.partitions)
        async with running(store):
            await self.bench.fill(store, keys)
        self.kept.callback(self.bench.discard, store.cluster.directory)
        self._stores[system] = store
        return store


class Soak(Family):
    """A long load: its first minute against its last, and then its store against a fresh one.

    The speed of a shared machine may change by half within the hour, and the two minutes are far apart. So, when the load
    is over, the old store and a fresh one of the same keys take turns: what differs there is age alone.
    """

    rows = (9,)
    systems = ("long load",)
    rounds_max = 1

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        del system
        folder = self.bench.scratch()
        store = RingKV(folder, self.options.partitions)
        async with running(store):
            loaded = await put_batches(self, store, self.options.keys, 60 * self.options.minutes)
            for work, rate in zip((goals.SOAK_FIRST, goals.SOAK_LAST), windows(loaded.series), strict=True):
                yield Sample(9, store.title, work, number, {"per_s": rate}, note=loaded.note)
            metrics = {name: loaded.metrics[name] for name in ("per_s", "p50_ms", "p99_ms")}
            yield Sample(9, store.title, "put in batches, the long load", number, metrics, loaded.series)
            async for sample in self._against_fresh(store):
                yield sample
        self.bench.discard(folder)

    async def _against_fresh(self, old: RingKV) -> AsyncGenerator[Sample, None]:
        """Load `old` and a new store in turns; who is first in one round is second in the next."""
        keys = self.options.keys
        folder = self.bench.scratch()
        fresh = RingKV(folder, self.options.partitions)
        async with running(fresh):
            await self.bench.fill(fresh, keys)
            pair = [(goals.SOAK_OLD, old), (goals.SOAK_FRESH, fresh)]
            for number in range(self.options.rounds):
                for work, store in pair:
                    yield (await put_batches(self, store, keys)).sample(9, store, work, number)
                pair.reverse()
        self.bench.discard(folder)


def windows(series: Sequence[float]) -> tuple[float, float]:
    """Return the mean rates of the first and of the last window: a minute, or half of a shorter load."""
    size = max(1, min(int(WINDOW_S_MAX), len(series) // 2))
    return sum(series[:size]) / size, sum(series[-size:]) / size


async def put_batches(
    family: Family, store: RingKV, keys: int, seconds: float | None = None, *, listed: bool = True
) -> Loaded:
    """Put the load of row 2 on a store."""
    options = family.options
    return await family.bench.load(
        store,
        "put",
        tasks=options.batches_in_flight,
        batch=FILL_OPERATIONS,
        keys=keys,
        seconds=seconds or options.seconds,
        listed=listed,
    )
