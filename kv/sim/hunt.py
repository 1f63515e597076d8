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
from kv.sim.mutation import Mutation
from kv.sim.scripted import Stage
from kv.sim.world import Report, World

BUDGET_S: Final = 300.0
"""A mutant that is not caught within this is a hole in the simulator."""
SEED_STRIDE: Final = 10_000
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
                work=how.work,
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
            first = (number + 1) * SEED_STRIDE
            catches.append(hunt(one, range(first, first + SEED_STRIDE), wall=wall, budget_s=budget_s))
        yield Row(one, catches)


def document(found: Sequence[Row], runs: int) -> Iterator[str]:
    """The lines of the page about the mutants."""
    yield from INTRODUCTION.format(count=len(found), runs=runs).splitlines()
    yield ""
    yield f"| {' | '.join(HEADERS)} |"
    yield f"|{'---|' * len(HEADERS)}"
    for row in found:
        yield f"| {' | '.join(row.cells())} |"
    yield from CLOSING.splitlines()


INTRODUCTION: Final = """\
# Mutants

A simulator that finds nothing proves nothing until it is shown that it would find something. Each of these
{count} builds leaves out one safety rule of the guard (`kv/raft/DESIGN.md`) or one duty of the paths of writes, reads and
outcome queries; in all else it is the code that ships. `kv sim --mutant NAME` hunts one and exits with 0 when a property was
violated, `kv sim --list-mutants` names them. This page is written by `kv sim --mutant-table FILE`:
{runs} hunts for each, from different seeds, 300 seconds at most each. Seconds are of wall time on a shared machine.

- `random`: the faults are drawn from the seed, in circumstances that suit the mutant (`kv/sim/mutants.py`, `kv/sim/level_mutants.py`).
- `scripted`: a given schedule of faults (the seed still draws delays, clients and limits), or a scene in which each
  Raft message is let go by hand (`kv/sim/scripted.py`, `kv/sim/read_scenes.py`), because drawn faults would find it late or hardly ever.
  The same scripts end well with all rules in force (`tests/sim/test_mutants.py`). The judges are those of every run.
- `liveness`: nothing wrong is ever answered; what is lost is calm or progress.
"""

CLOSING: Final = """
## Rules without a mutant

- Rule 18 (`send_once`), rule 19 (`snapshot_heartbeats`) and rule 20 are for calm and cost, not for safety: an
  entry that is sent twice meets rule 3; a follower that hears nothing while a snapshot travels stands for election,
  which pre-vote answers.
- Rule 17 (`hints`) is for speed here. Without it the guard repairs a log one entry for each round trip (the core
  alone: one for each heartbeat), and a replica has no more entries that conflict than its partition has commands in
  flight. A hunt of a minute for what it would break found nothing; `tests/raft/test_calm_rules.py` shows the speed.
- On a leader a read waits until its index is applied (part of rule 14). A leader applies what is committed in the same
  turn (256 entries at most), and the round that confirms it takes longer, so the wait is not seen: a hunt of a minute
  found nothing. It is needed where more than that is committed at once; the replica asserts it. On a follower the
  same wait is seen: `follower-read-before-applied`.
- Rule 13 (`entry_limits`) keeps what correct replicas never send out of the core. No schedule of faults makes a
  correct replica send it; `tests/raft/test_rules.py` and the fuzz targets do.
- Rule 12 (nothing raises into the core) has no switch: it is where the errors of every other mutant end, as
  `no-replica-stops`.
- Appends wait for the term and vote of their sender (part of rule 7). The vote requests that won the election
  waited for the same record, so no leader can send an append before it: the wait costs nothing and is kept as a
  second lock. It is not needed for safety.
- A SESSION read is checked twice: the replica waits for the index that it was sent, and the client refuses an answer from
  before it. `session-token-ignored` asks the replica without our client; `session-forgets` takes both checks away,
  because the client does not know the index then.
- A proof that rests on a lease is not kept as a proof of age. While clocks keep to their assumption it would be true
  all the same, so no run can tell; that the evidence of such reads says LEASE is judged (`evidence-is-true`).
- Leadership transfer does not exist yet. A vote that a leader asks for passes rules 16 and 23, and nobody sends
  one yet.

## What the names mean

A mutant that is `no-replica-stops` was caught by an assertion of production code, or by its refusal to start
from what it finds on its disk. The run ends there, so what clients would have seen without that check is not known.
"""
