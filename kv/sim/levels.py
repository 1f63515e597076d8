"""The read levels side by side: what each returned that a linearizable read could not, from actual runs.

Here live the runs, the counting, and the page that shows them; `kv.sim.promises` judges each read by its own
promise meanwhile. Two parts:

- all levels in one cluster under all faults, clocks within the assumption of leases: LINEARIZABLE and LEASE must stay
  linearizable, every other level is expected to show a history in which it is not;
- LEASE with a clock that runs away: the history in which it breaks, which is why its assumption is stated.

Wall time comes as an argument.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from kv.client import AsyncClient
from kv.client.levels import Level
from kv.client.types import ReadLevel
from kv.errors import KVError
from kv.sim.faults import parse_schedule
from kv.sim.promises import Promises
from kv.sim.setup import Setup
from kv.sim.workload import PREFERENCES, Pace, keys_of
from kv.sim.world import Report, Task, World

STRONG: Final = (ReadLevel.LINEARIZABLE, ReadLevel.LEASE)
WEAKER: Final = tuple(level for level in ReadLevel if level not in STRONG)
SEEDS_MAX: Final = 1000
"""A comparison ends with as many seeds, whether every weaker level has shown itself or not."""

WRITERS: Final = 2
"""Clients that write; besides them each level has a client of its own, since a session sees what its client saw."""
TAGS_READ: Final = 3
"""Few keys, so that what is read was just written."""
MAX_AGE_MS: Final = 200
"""Of BOUNDED reads."""

SIDE_BY_SIDE: Final = Setup(
    nodes=3,
    partitions=1,
    scale=1,
    duration_s=30.0,
    clients=WRITERS + len(ReadLevel),
    pace=Pace(think_mean_s=0.08, tasks=1),
    sober_clocks=True,
)
"""One busy partition in production's own times, under every family of faults."""

RUNAWAY: Final = """\
4    clock_rate leader:1 rate=0.1
4.5  partition  leader:1,c2,c5/*
8    heal       *
9    calm       *
"""
"""The leader's clock runs at a tenth, and it is cut off with a writer and the reader by LEASE: its lease outlives it."""


class Writer:
    """One task that puts unique values into few keys."""

    def __init__(
        self, name: str, client: AsyncClient, promises: Promises, rng: Random, think_s: float
    ) -> None:
        self._name, self._client, self._promises, self._rng, self._think_s = (
            name,
            client,
            promises,
            rng,
            think_s,
        )
        self._made = 0

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._think_s))
            self._made += 1
            key, value = any_key(self._rng), b"%s-%d" % (self._name.encode(), self._made)
            begun = self._promises.begin(self._name)
            try:
                reply = await self._client.put(key, value, timeout=2)
            except KVError as error:
                self._promises.failed(begun, [value], error)
            else:
                self._promises.wrote(begun, key, value, reply.revision, reply.version, reply.evidence)


class Reader:
    """One task that reads at one level, wherever its client finds a replica."""

    def __init__(
        self, name: str, level: Level, client: AsyncClient, promises: Promises, rng: Random, think_s: float
    ) -> None:
        self._name, self._level, self._client = name, level, client
        self._promises, self._rng, self._think_s = promises, rng, think_s

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._think_s))
            key, prefer = any_key(self._rng), self._rng.choice(PREFERENCES)
            begun = self._promises.begin(self._name)
            try:
                found = await self._client.read(key, level=self._level, prefer=prefer, timeout=2)
            except KVError:
                continue
            max_age_s = self._level.max_age_ms / 1000
            self._promises.read(begun, key, found.item, self._level.kind, found.evidence, max_age_s)


def any_key(rng: Random) -> bytes:
    """Return one of the few keys."""
    return rng.choice(keys_of(rng.randrange(TAGS_READ)))


def readers_and_writers(world: World) -> list[Task]:
    """The workload: some clients write, and one client reads at each level."""
    rng, think_s = Random(world.seed), world.setup.pace.think_mean_s
    tasks: list[Task] = []
    for host in world.clients[:WRITERS]:
        client, own = world.make_client(host), Random(rng.random())
        tasks.append(Writer(f"{host.name}.0", client, world.promises, own, think_s))
    for host, kind in zip(world.clients[WRITERS:], ReadLevel, strict=True):
        level = Level(kind, max_age_ms=MAX_AGE_MS if kind is ReadLevel.BOUNDED else 0)
        client, own = world.make_client(host), Random(rng.random())
        tasks.append(Reader(f"{host.name}.0", level, client, world.promises, own, think_s))
    return tasks


@dataclass(slots=True)
class Comparison:
    """What the runs showed; one entry for each level's name."""

    seeds: int = 0
    simulated_s: float = 0.0
    faults: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    weaker: Counter[str] = field(default_factory=Counter)
    """Reads that returned what no linearizable read could have returned."""
    examples: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The first of them: seed and history in words."""
    broken: Report | None = None
    """A run in which a level broke its own promise."""

    @property
    def complete(self) -> bool:
        """Whether each weaker level has shown itself."""
        return all(level.name in self.examples for level in WEAKER)


@dataclass(frozen=True, slots=True)
class Runaway:
    """How LEASE broke outside of its assumption."""

    seed: int
    seeds: int
    """That were run until it did."""
    property: str
    history: str


def compare(
    seeds: Iterable[int],
    *,
    wall: Callable[[], float],
    seconds: float,
    tell: Callable[[str], None] | None = None,
) -> Comparison:
    """Run seeds until every weaker level has shown itself, a promise is broken, or the time is over."""
    found, began = Comparison(), wall()
    for seed in seeds:
        if found.complete or found.seeds >= SEEDS_MAX or wall() - began >= seconds:
            break
        world = World(seed, setup=SIDE_BY_SIDE, work=readers_and_writers)
        report = world.run()
        _add(found, world, report)
        if report.violation is not None:
            found.broken = report
            break
        if tell is not None:
            shown = ", ".join(f"{name} {count}" for name, count in sorted(found.weaker.items()))
            tell(
                f"{found.seeds} seeds, {sum(found.reads.values())} reads; not linearizable: {shown or 'none'}"
            )
    return found


def _add(found: Comparison, world: World, report: Report) -> None:
    promises = world.promises
    found.seeds += 1
    found.simulated_s += report.simulated_s
    found.faults += report.faults.total()
    found.reads.update(promises.levels)
    found.weaker.update(promises.weaker)
    for name, example in promises.examples.items():
        found.examples.setdefault(name, (report.seed, example))


def run_away(seeds: Iterable[int], *, wall: Callable[[], float], seconds: float) -> Runaway | None:
    """Run seeds with a clock outside of the assumption until a LEASE read is found that is not linearizable."""
    began = wall()
    for count, seed in enumerate(seeds, 1):
        world = World(seed, setup=SIDE_BY_SIDE, schedule=parse_schedule(RUNAWAY), work=readers_and_writers)
        violation = world.run().violation
        history = world.promises.examples.get(ReadLevel.LEASE.name)
        if violation is not None and history is not None:
            return Runaway(seed, count, violation.name, history)
        if wall() - began >= seconds or count >= SEEDS_MAX:
            break
    return None


# ---------------------------------------------------------------- the page

HEAD: Final = """\
# Read levels, observed

Made by `kv sim --levels FILE`: one cluster of three nodes in the simulator, production's own code and timers, clients that read at
every level at once, under random faults of the network, disks, processes and clocks (within 20 % of their rate).
Each read was held against the committed log: its own promise held each time, and a read counts as *not linearizable* if it
returned what no linearizable read that began at that moment could have returned.
"""


def page(found: Comparison, runaway: Runaway | None, first_seed: int) -> str:
    """Return the page about a comparison and the runaway clock."""
    lines = [
        HEAD,
        f"From seed {first_seed} on: {found.seeds} seeds, {found.simulated_s:.0f} simulated seconds, {found.faults} faults.\n",
    ]
    lines += ["| level | reads | not linearizable | of all |", "|---|---:|---:|---:|"]
    lines += [_row(found, level) for level in (*STRONG, *WEAKER)]
    lines += ["", "## The first history of each weaker level", ""]
    lines += [line for level in WEAKER for line in _example(found, level)]
    lines += _runaway(runaway)
    return "\n".join(lines) + "\n"


def _row(found: Comparison, level: ReadLevel) -> str:
    reads, weaker = found.reads[level.name], found.weaker[level.name]
    share = f"{weaker / reads:.2%}" if reads else "-"
    return f"| {level.name} | {reads} | {weaker} | {share} |"


def _example(found: Comparison, level: ReadLevel) -> Sequence[str]:
    if level.name not in found.examples:
        return [f"- **{level.name}**: none was met in these runs."]
    seed, history = found.examples[level.name]
    return [f"- **{level.name}** (seed {seed}): {history}."]


def _runaway(runaway: Runaway | None) -> Sequence[str]:
    lines = ["", "## LEASE when a clock runs away", "", "The schedule:", ""]
    lines += [f"    {line}" for line in RUNAWAY.splitlines()]
    if runaway is None:
        return [*lines, "", "No violation was met in these runs."]
    told = f"Seed {runaway.seed} (of {runaway.seeds} that were run) violates `{runaway.property}`:"
    return [*lines, "", told, "", f"    {runaway.history}"]
