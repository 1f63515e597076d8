"""What every family of rows shares: its bench, and how the runner calls it.

A family measures one system in one round at a time; the runner chooses which. Each call starts the system anew in a
folder of its own and ends it, so that no system costs the other CPU, memory or disk, and each round begins alike. A
family that keeps a filled store from round to round says so.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from benchmarks import h2load
from benchmarks.h2load_text import H2Load
from benchmarks.options import Options
from benchmarks.processes import output_of
from benchmarks.record import Sample
from benchmarks.systems.base import System
from benchmarks.worker import Order

MARGIN_S: Final = 60.0
FILL_MARGIN_S: Final = 3600.0
FILL_TASKS: Final = 16
REASONS_SHOWN: Final = 3
REQUESTS_TRIED: Final = 500
"""By h2load, to find how many fill a slice."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a worker says."""

    metrics: Mapping[str, float]
    series: Sequence[float] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """Which calls failed, if any did."""
        shown = list(self.reasons.items())[:REASONS_SHOWN]
        return "; ".join(f"{count} failed: {reason}" for reason, count in shown)

    def sample(self, row: int, system: System, work: str, number: int) -> Sample:
        """Return it as a sample."""
        return Sample(row, system.title, work, number, self.metrics, note=self.note)


@dataclass(slots=True)
class Bench:
    """Where a family works: its options, a scratch folder on the disk, and where commands are noted for the report."""

    options: Options
    folder: Path
    note: Callable[[str], None]
    _made: int = 0

    def scratch(self) -> Path:
        """Return a new folder."""
        self._made += 1
        made = self.folder / f"s{self._made}"
        made.mkdir(parents=True)
        return made

    @staticmethod
    def discard(folder: Path) -> None:
        """Remove a folder that `scratch` gave: rounds would fill the disk."""
        shutil.rmtree(folder)

    async def by_h2load(
        self, address: str, method: str, messages: Sequence[bytes], shape: h2load.Shape
    ) -> H2Load:
        """Put the load of h2load on a method for the time of a slice."""
        options = self.options
        extent = h2load.Time(options.seconds, options.warmup_s)
        self.note_h2load(address, method, shape, extent)
        return await h2load.run(self.scratch(), address, method, messages, shape, extent)

    async def by_h2load_awaited(
        self, address: str, method: str, messages: Sequence[bytes], shape: h2load.Shape
    ) -> H2Load:
        """Do the same with a number of requests that takes about as long, none of which is cancelled."""
        first = h2load.Number(REQUESTS_TRIED)
        trial = await h2load.run(self.scratch(), address, method, messages, shape, first)
        extent = h2load.Number(max(REQUESTS_TRIED, int(trial.per_s * self.options.seconds)))
        self.note_h2load(address, method, shape, extent)
        return await h2load.run(self.scratch(), address, method, messages, shape, extent)

    def note_h2load(
        self, address: str, method: str, shape: h2load.Shape, extent: h2load.Time | h2load.Number
    ) -> None:
        """Note how h2load is called."""
        words = h2load.command(address, method, Path("BODY"), shape, extent)
        self.note(f"{shape.processes} x {shlex.join(['h2load', *words[1:]])}")

    async def load(self, system: System, kind: str, **more: float) -> Loaded:
        """Put the load of one worker on `system`; `more` are fields of `Order`."""
        options = self.options
        given: dict[str, float] = {
            "keys": options.keys,
            "seconds": options.seconds,
            "warmup_s": options.warmup_s,
        }
        given |= more
        order = Order(system.client, kind, tuple(system.addresses), **given)  # type: ignore[arg-type]
        return await self.work(order)

    async def work(self, order: Order) -> Loaded:
        """Run one worker to its end."""
        command = [sys.executable, "-m", "benchmarks.worker", order.text()]
        if order.kind != "fill":
            self.note(shlex.join(["python", *command[1:]]))
        limit_s = FILL_MARGIN_S if order.kind == "fill" else order.warmup_s + order.seconds + MARGIN_S
        text = await output_of(command, limit_s)
        found = json.loads(text.splitlines()[-1])
        return Loaded(found["metrics"], found["series"], found["reasons"])

    async def fill(self, system: System, keys: int) -> None:
        """Write every key once."""
        await self.load(system, "fill", keys=keys, tasks=FILL_TASKS)


class Family(ABC):
    """Rows that share their systems."""

    rows: ClassVar[tuple[int, ...]]
    systems: ClassVar[tuple[str, ...]]
    rounds_max: ClassVar[int | None] = None
    """Fewer rounds than the run has, for what takes long."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.options = bench.options
        self.kept = contextlib.ExitStack()
        """What lives from round to round."""

    def wants(self, row: int) -> bool:
        """Return whether the run has this row."""
        return row in self.options.rows

    @abstractmethod
    def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """Give the samples of `system` in round `number`, from 0."""

    def close(self) -> None:
        """Let go of what was kept between rounds. May be called twice."""
        self.kept.close()
