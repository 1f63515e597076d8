"""Random schedules: spells of faults, each followed by a calm in which progress is expected. Pure.

Here lives the drawing of faults for a cluster from a random source; what they are is in `kv.sim.faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from kv.sim.faults import POINTS, Fault, fault

SPELL_MIN_S: Final = 6.0
SPELL_MAX_S: Final = 20.0
CALM_S: Final = 8.0
"""Without faults; the cluster must make progress and converge within it."""
FIRST_S: Final = 3.0
"""The cluster elects its leaders and learns its map before the first spell."""
BETWEEN_MEAN_S: Final = 2.0
"""Mean time between two faults of a spell: the default fault rate."""
LASTS_MEAN_S: Final = 3.0

WILD_RATES: Final = (0.5, 0.9, 1.1, 2.0, 5.0)
"""Clocks that break every assumption: nothing but a lease may rely on their rate."""
SOBER_RATES: Final = (0.8, 0.9, 1.1, 1.2)
"""Clocks within what `SOBER_DRIFT_MAX` allows: leases must hold."""
SOBER_DRIFT_MAX: Final = 0.2

MIXES: Final = ("network", "disk", "process", "clock")
"""The families that a run may draw from; a seed takes some or all."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a random schedule is drawn for."""

    nodes: tuple[str, ...]
    clients: tuple[str, ...]
    partitions: int
    scale: float = 1.0
    """All times of this file are multiplied by it."""
    mixes: tuple[str, ...] = MIXES
    rates: tuple[float, ...] = WILD_RATES
    """At which clocks may run."""
    flips_max: int = 0
    """Nodes whose disk may be damaged: less than half, since a damaged one stays away."""


class _Spell:
    """One spell while it is drawn."""

    def __init__(self, rng: Random, plan: Plan, end: float) -> None:
        self.rng, self.plan, self.end = rng, plan, end
        self.faults: list[Fault] = []

    def add(self, at: float, kind: str, target: str, **arguments: str) -> None:
        self.faults.append(fault(round(min(at, self.end), 3), kind, target, **arguments))

    def lasts(self, at: float) -> float:
        return at + self.rng.expovariate(1 / LASTS_MEAN_S) * self.plan.scale

    def node(self) -> str:
        """A node, or whoever leads some partition at that time."""
        if self.rng.random() < 0.4:
            return f"leader:{self.rng.randint(1, self.plan.partitions)}"
        return self.rng.choice(self.plan.nodes)

    def named(self) -> str:
        return self.rng.choice(self.plan.nodes)

    def link(self) -> str:
        hosts = list(self.plan.nodes)
        if self.plan.clients and (len(hosts) == 1 or self.rng.random() < 0.15):
            one, other = self.rng.choice(self.plan.clients), self.rng.choice(hosts)
        else:
            one, other = self.rng.sample(hosts, 2)
        return f"{one}{self.rng.choice('>>-')}{other}"


def generate(rng: Random, plan: Plan, duration_s: float) -> list[Fault]:
    """Return a schedule that ends with a calm at or before `duration_s` seconds."""
    faults: list[Fault] = []
    now, flips, scale = FIRST_S * plan.scale, 0, plan.scale
    while now + (SPELL_MIN_S + CALM_S) * scale <= duration_s:
        length = min(rng.uniform(SPELL_MIN_S, SPELL_MAX_S) * scale, duration_s - CALM_S * scale - now)
        spell = _Spell(rng, plan, now + length)
        at = now
        while (at := at + rng.expovariate(1 / BETWEEN_MEAN_S) * scale) < spell.end:
            draw = rng.choice(_FAMILIES[rng.choice(plan.mixes)])
            if draw is _flip:
                if flips >= plan.flips_max or rng.random() < 0.7:
                    continue
                flips += 1
            draw(spell, at)
        now = spell.end
        faults += sorted(spell.faults, key=lambda one: one.at_s)
        faults.append(fault(round(now, 3), "calm", "*"))
        now += CALM_S * scale
    return faults


def _cut(spell: _Spell, at: float) -> None:
    spell.add(at, "cut", spell.link())
    if spell.rng.random() < 0.5:
        spell.add(at + spell.rng.uniform(0, 0.5), "cut", spell.link())
    spell.add(spell.lasts(at), "heal", "*")


def _split(spell: _Spell, at: float) -> None:
    nodes = list(spell.plan.nodes)
    spell.rng.shuffle(nodes)
    shapes: list[Callable[[], str]] = [
        lambda: f"{nodes[0]}/*",
        lambda: f"leader:{spell.rng.randint(1, spell.plan.partitions)}/*",
        lambda: f"{','.join(nodes[: len(nodes) // 2])}/{','.join(nodes[len(nodes) // 2 :])}",
        # a bridge: the one that is named nowhere reaches both sides
        lambda: f"{','.join(nodes[: len(nodes) // 2])}/{','.join(nodes[len(nodes) // 2 + 1 :])}",
    ]
    usable = shapes if len(nodes) > 2 else shapes[:2]
    spell.add(at, "partition", spell.rng.choice(usable)())
    spell.add(spell.lasts(at), "heal", "*")


def _ring(spell: _Spell, at: float) -> None:
    """Each node reaches its two neighbours only: of five, each sees another majority."""
    nodes = spell.plan.nodes
    for i, one in enumerate(nodes):
        for j in range(i + 2, len(nodes)):
            if (j + 1) % len(nodes) != i:
                spell.add(at, "cut", f"{one}-{nodes[j]}")
    spell.add(spell.lasts(at), "heal", "*")


def _slow(spell: _Spell, at: float) -> None:
    spell.add(at, "slow", spell.link(), seconds=f"{spell.rng.uniform(0.02, 0.8):.3f}")


def _reset(spell: _Spell, at: float) -> None:
    spell.add(at, "reset", spell.link().replace(">", "-"))


def _weather(spell: _Spell, at: float) -> None:
    rng = spell.rng
    chances = {name: f"{rng.choice((0, 0.02, 0.1, 0.3)):g}" for name in ("loss", "duplication", "long_delay")}
    spell.add(at, "weather", "*", **chances)
    spell.add(spell.lasts(at), "weather", "*")


def _slow_sync(spell: _Spell, at: float) -> None:
    node = spell.named()
    spell.add(at, "slow_sync", node, seconds=f"{spell.rng.uniform(0.005, 0.5):.3f}")
    spell.add(spell.lasts(at), "slow_sync", node, seconds="0")


def _fail_sync(spell: _Spell, at: float) -> None:
    node = spell.named()
    spell.add(at, "fail_sync", node)
    spell.add(spell.lasts(at), "start", node)


def _fill(spell: _Spell, at: float) -> None:
    node = spell.named()
    spell.add(at, "fill", node)
    spell.add(spell.lasts(at), "free", node)


def _flip(spell: _Spell, at: float) -> None:
    node = spell.named()
    spell.add(at, "flip", node)
    spell.add(at + 0.5, "start", node)


def _power(spell: _Spell) -> str:
    return spell.rng.choice(("yes", "no"))


def _crash(spell: _Spell, at: float) -> None:
    spell.add(at, "crash", spell.node(), power=_power(spell))
    spell.add(spell.lasts(at), "start", "*")


def _crash_all(spell: _Spell, at: float) -> None:
    spell.add(at, "crash", "*", power=_power(spell))
    for node in spell.plan.nodes:
        spell.add(spell.lasts(at), "start", node)


def _crash_at(spell: _Spell, at: float) -> None:
    point, count = spell.rng.choice(POINTS), str(spell.rng.choice((1, 1, 2, 5, 20)))
    where = spell.node()
    if point.startswith("in_") or point.endswith("install"):  # rarely reached: whoever comes there first
        where, count = "*", "1"
    spell.add(at, "crash_at", where, point=point, count=count, power=_power(spell))
    spell.add(spell.lasts(at), "start", "*")


def _pause(spell: _Spell, at: float) -> None:
    node = spell.named()
    spell.add(at, "pause", node)
    spell.add(spell.lasts(at), "resume", node)


def _clock_rate(spell: _Spell, at: float) -> None:
    node = spell.named()
    spell.add(at, "clock_rate", node, rate=f"{spell.rng.choice(spell.plan.rates):g}")
    spell.add(spell.lasts(at), "clock_rate", node, rate="1")


def _clock_jump(spell: _Spell, at: float) -> None:
    seconds = spell.rng.choice((-3600, -10, -1, 1, 10, 100, 3600))
    spell.add(at, "clock_jump", spell.named(), seconds=str(seconds))


_Draw = Callable[[_Spell, float], None]
_FAMILIES: Final[dict[str, Sequence[_Draw]]] = {
    "network": (_cut, _split, _ring, _slow, _reset, _weather, _split),
    "disk": (_slow_sync, _fail_sync, _fill, _flip, _slow_sync),
    "process": (_crash, _crash, _crash_at, _crash_at, _crash_at, _pause, _crash_all),
    "clock": (_clock_rate, _clock_jump),
}
