"""The table: what many trials of both kinds showed, row by row. Counts and prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from kv.sim.stock.checks import KINDS
from kv.sim.stock.fault_sets import FaultSet
from kv.sim.stock.trial import Kind, Outcome, run_trial

EXAMPLES_MAX: Final = 3
"""Seeds named in a cell of the table; the records have all."""
HEADERS: Final = (
    "faults",
    "kind",
    "seeds",
    "safety violated",
    *KINDS,
    "no progress",
    "stale reads",
    "first seeds",
)


@dataclass(frozen=True, slots=True)
class Row:
    """All trials of one kind under one fault set. Lists hold seeds."""

    fault_set: str
    title: str
    kind: Kind
    seeds: int
    violations: dict[str, list[int]]
    """Kind of violation to the seeds that showed it; a trial ends with its first."""
    no_progress: list[int]
    stale: list[int]
    """Seeds in which at least one read was stale."""
    reads: int
    stale_reads: int
    acknowledged: int
    faults: int
    events: int
    simulated_s: float

    @property
    def violated(self) -> int:
        """How many seeds violated safety."""
        return sum(len(seeds) for seeds in self.violations.values())

    def record(self) -> dict[str, object]:
        """As one JSON object."""
        return {**asdict(self), "violated": self.violated}

    def cells(self) -> list[str]:
        """As one row under `HEADERS`."""
        first = sorted(seed for seeds in self.violations.values() for seed in seeds)[:EXAMPLES_MAX]
        return [
            f"{self.fault_set}: {self.title}",
            self.kind,
            str(self.seeds),
            str(self.violated),
            *(str(len(self.violations[kind])) for kind in KINDS),
            str(len(self.no_progress)),
            f"{self.stale_reads} of {self.reads} in {len(self.stale)} seeds",
            ", ".join(map(str, first)) or "none",
        ]


def row(faults: FaultSet, kind: Kind, outcomes: Sequence[Outcome]) -> Row:
    """Count the outcomes of one kind under one fault set."""
    return Row(
        fault_set=faults.name,
        title=faults.title,
        kind=kind,
        seeds=len(outcomes),
        violations={name: [o.seed for o in outcomes if o.violation == name] for name in KINDS},
        no_progress=[o.seed for o in outcomes if o.no_progress],
        stale=[o.seed for o in outcomes if o.stale_reads],
        reads=sum(o.reads for o in outcomes),
        stale_reads=sum(o.stale_reads for o in outcomes),
        acknowledged=sum(o.acknowledged for o in outcomes),
        faults=sum(o.faults for o in outcomes),
        events=sum(o.events for o in outcomes),
        simulated_s=round(sum(o.time_s for o in outcomes), 1),
    )


def compare(
    fault_sets: Iterable[FaultSet],
    kinds: Sequence[Kind],
    seeds: Sequence[int],
    minutes: float,
    seen: Callable[[Outcome], None],
) -> Iterator[Row]:
    """Run all trials, `minutes` of faults each, and yield a row as soon as it is complete."""
    for faults in fault_sets:
        for kind in kinds:
            outcomes = []
            for seed in seeds:
                outcomes.append(run_trial(kind, faults, seed, minutes))
                seen(outcomes[-1])
            yield row(faults, kind, outcomes)
