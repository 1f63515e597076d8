"""The hunt for a mutant: seeds in its circumstances until a property is violated, and the table of all.

Here live the runs and what is told of them. Wall time comes as an argument.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from kv.sim.faults import parse_schedule
from kv.sim.mutants import Mutation
from kv.sim.scripted import Stage
from kv.sim.world import Report, World

BUDGET_S: Final = 300.0
"""A mutant that is not caught within this is a hole in the simulator."""
SEED_STRIDE: Final = 1000
"""The runs of a table begin at different seeds: no run may need more."""


@dataclass(frozen=True, slots=True)
class Catch:
    """How a hunt ended; `property` is None if nothing was noticed."""

    mutant: str
    property: str | None
    detail: str
    seed: int
    seeds: int
    """Seeds that were run, the last one included."""
    seconds: float
    """Of wall time."""


def hunt(
    mutant: Mutation,
    seeds: Iterable[int],
    *,
    wall: Callable[[], float],
    budget_s: float = BUDGET_S,
    tell: Callable[[str], None] | None = None,
) -> Catch:
    """Run seeds until the mutant is caught, the seeds end, or `budget_s` of wall time are over."""
    began = wall()
    count, last = 0, -1
    for seed in seeds:
        if wall() - began >= budget_s:
            break
        count, last = count + 1, seed
        report = run(mutant, seed, stop=lambda: wall() - began >= budget_s)
        violation = report.violation
        if violation is not None:
            return Catch(mutant.name, violation.name, violation.detail, seed, count, wall() - began)
        if tell is not None:
            tell(f"{mutant.name}: seed {seed} noticed nothing, {wall() - began:.0f} s")
    return Catch(mutant.name, None, "", last, count, wall() - began)


def run(mutant: Mutation, seed: int, *, stop: Callable[[], bool] = lambda: False) -> Report:
    """Run one seed of a mutant in its circumstances; `stop` is asked each simulated second."""
    how = mutant.hunt
    stage = None if how.scene is None else Stage(mutant, how.scene)
    watch = None if how.watch is None else how.watch()

    def look(world: World) -> None:
        if stage is not None:
            stage.look(world)
        if watch is not None:
            watch(world)
        if stop():
            world.loop.stop()

    collecting = gc.isenabled()
    gc.disable()  # see `run_seeds`
    try:
        with mutant.around():
            text = how.schedule if stage is None else f"{how.setup.duration_s - SCENE_END_S} calm *"
            return World(
                seed,
                setup=how.setup,
                schedule=None if text is None else parse_schedule(text),
                mutant=mutant if stage is None else stage,
                on_look=look,
            ).run()
    finally:
        gc.collect()
        if collecting:
            gc.enable()


SCENE_END_S: Final = 20.0
"""The scene is over so long before the end of its run: everything heals, and must converge."""


# ------------------------------------------------------------ the table


@dataclass(frozen=True, slots=True)
class Row:
    """What several hunts for one mutant came to."""

    mutant: Mutation
    catches: Sequence[Catch]

    @property
    def caught(self) -> int:
        """Hunts that ended with a violation."""
        return sum(one.property is not None for one in self.catches)

    def cells(self) -> list[str]:
        """For a table of Markdown."""
        names = sorted({one.property for one in self.catches if one.property is not None})
        seeds = median(one.seeds for one in self.catches)
        seconds = median(one.seconds for one in self.catches)
        return [
            f"`{self.mutant.name}`",
            self.mutant.kind,
            self.mutant.breaks,
            ", ".join(names) or "not caught",
            f"{self.caught} of {len(self.catches)}",
            f"{seeds:g}",
            f"{seconds:.1f}",
        ]


HEADERS: Final = ("mutant", "kind", "what is broken", "caught by", "caught", "median seeds", "median seconds")


def rows(
    mutants: Sequence[Mutation], runs: int, *, wall: Callable[[], float], budget_s: float = BUDGET_S
) -> Iterator[Row]:
    """Hunt each mutant `runs` times, each time from other seeds."""
    for one in mutants:
        catches = []
        for number in range(runs):
            first = number * SEED_STRIDE + 1
            catches.append(hunt(one, range(first, first + SEED_STRIDE), wall=wall, budget_s=budget_s))
        yield Row(one, catches)


def markdown(found: Iterable[Row]) -> Iterator[str]:
    """The lines of the table."""
    yield f"| {' | '.join(HEADERS)} |"
    yield f"|{'---|' * len(HEADERS)}"
    for row in found:
        yield f"| {' | '.join(row.cells())} |"
