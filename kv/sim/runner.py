"""Runs of many seeds: totals, progress, and the words for a violation.

Here lives what `kv sim` does besides printing. Wall time comes as an argument; each seed is a `World` of
its own.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kv.errors import InvalidArgument
from kv.sim.faults import Fault
from kv.sim.properties import PROPERTIES
from kv.sim.schedule import MIXES
from kv.sim.setup import Setup, setup_of
from kv.sim.world import Mutant, Report, World

SEEDS_OF_A_LIST_MAX = 1_000_000
TOLD_EACH_S = 1.0
"""Of wall time: how often a run tells how far it is."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person who runs it asked for; None: as the seed draws it."""

    nodes: int | None = None
    minutes_each: float | None = None
    mixes: tuple[str, ...] | None = None
    schedule: tuple[Fault, ...] | None = None
    schedule_file: str | None = None
    seconds: float | None = None
    """Of wall time, after which no seed begins."""
    mutant: Mutant | None = None
    """What is left out of the code; none is drawn."""

    def setup(self, seed: int) -> Setup:
        """The circumstances of a seed."""
        duration_s = None if self.minutes_each is None else self.minutes_each * 60
        return setup_of(seed).but(nodes=self.nodes, duration_s=duration_s, mixes=self.mixes)

    def replay(self, seed: int) -> str:
        """The command that runs this seed again."""
        words = [f"kv sim --seed {seed}"]
        if self.nodes is not None:
            words.append(f"--nodes {self.nodes}")
        if self.minutes_each is not None:
            words.append(f"--minutes-each {self.minutes_each:g}")
        if self.mixes is not None:
            words.append(f"--faults {','.join(self.mixes)}")
        if self.schedule_file is not None:
            words.append(f"--schedule {self.schedule_file}")
        return " ".join(words)


@dataclass(slots=True)
class Totals:
    """What all runs so far covered."""

    seeds: int = 0
    simulated_s: float = 0.0
    wall_s: float = 0.0
    events: int = 0
    commits: int = 0
    reads: int = 0
    stale_reads: int = 0
    writes: int = 0
    unknown: int = 0
    elections: int = 0
    snapshots: int = 0
    checkpoints: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report) -> None:
        """Count a finished run."""
        self.seeds += 1
        self._add(report)

    def merge(self, other: Totals) -> None:
        """Count what another process has run; its wall time is not added."""
        self.seeds += other.seeds
        self._add(other)

    def _add(self, found: Report | Totals) -> None:
        for name in (
            "simulated_s",
            "events",
            "commits",
            "reads",
            "stale_reads",
            "writes",
            "unknown",
            "elections",
            "snapshots",
            "checkpoints",
        ):
            setattr(self, name, getattr(self, name) + getattr(found, name))
        self.faults.update(found.faults)

    def line(self) -> str:
        """One line for people."""
        speed = self.simulated_s / self.wall_s if self.wall_s else 0.0
        return (
            f"{self.wall_s:6.1f} s: {self.seeds} seeds, simulated {self.simulated_s:.0f} s ({speed:.0f} x), "
            f"{self.events} events, {sum(self.faults.values())} faults, {self.commits} commits, "
            f"{self.reads + self.stale_reads} reads checked"
        )

    def fields(self) -> dict[str, object]:
        """The same for programs."""
        numbers: dict[str, object] = {
            name: getattr(self, name) for name in self.__slots__ if name != "faults"
        }
        return {**numbers, "faults": dict(sorted(self.faults.items()))}


def run_seeds(
    seeds: Iterable[int],
    wishes: Wishes,
    *,
    wall: Callable[[], float],
    tell: Callable[[Totals], None],
) -> tuple[Totals, Report | None]:
    """Run seeds until they end, or the time is over, or one fails.

    `tell` is called about each `TOLD_EACH_S`. Returns the totals and the report that holds a violation.
    """
    began, told = wall(), wall()
    totals = Totals()

    def look(world: World) -> None:
        nonlocal told
        now = wall()
        if now - told >= TOLD_EACH_S:
            told = now
            running = Totals(**{name: getattr(totals, name) for name in Totals.__slots__})
            running.faults = totals.faults.copy()
            running.add(world.progress())
            running.seeds, running.wall_s = totals.seeds, now - began
            tell(running)

    collecting = gc.isenabled()
    gc.disable()  # a run makes few cycles, and the collector would be a tenth of the time
    gc.freeze()  # after each run it looks at what the run left, not at all modules
    try:
        for seed in seeds:
            if wishes.seconds is not None and wall() - began >= wishes.seconds:
                break
            world = World(
                seed, setup=wishes.setup(seed), schedule=wishes.schedule, mutant=wishes.mutant, on_look=look
            )
            report = world.run()
            totals.add(report)
            totals.wall_s = wall() - began
            del world
            gc.collect()
            if report.violation is not None:
                return totals, report
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return totals, None


def describe(report: Report, replay: str) -> list[str]:
    """The lines that tell of a violation."""
    violation = report.violation
    assert violation is not None, "only a violation is described"
    return [
        f"seed {report.seed} violates {violation.name}: {PROPERTIES[violation.name]}",
        f"  at {violation.at_s:.4f} s: {violation.detail}",
        f"  last events of {', '.join(violation.nodes) or 'the cluster'}:",
        *(f"  {line}" for line in violation.last_events),
        f"replay: {replay}",
    ]


def parse_seeds(text: str) -> Sequence[int]:
    """Read `A:B` (A included, B not); raises `InvalidArgument`."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise InvalidArgument(f"{text!r} is not A:B with two numbers, the second greater")
    if int(end) - int(first) > SEEDS_OF_A_LIST_MAX:
        raise InvalidArgument(f"at most {SEEDS_OF_A_LIST_MAX} seeds at once")
    return range(int(first), int(end))


def parse_mixes(text: str) -> tuple[str, ...]:
    """Read `network,disk`; `none` is no faults. Raises `InvalidArgument`."""
    names = tuple(filter(None, text.split(",")))
    strangers = [name for name in names if name not in MIXES]
    if strangers or not names:
        raise InvalidArgument(f"{text!r} names no faults: give some of {', '.join(MIXES)}")
    return names
