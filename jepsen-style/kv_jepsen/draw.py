"""Random schedules from a seed, and the arithmetic of who is cut from whom. Pure; randomness is a parameter.

A schedule is a row of spells: a fault, some seconds of it, its end, some seconds of calm. The end of the run is calm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final, TypeAlias

from kv_jepsen.schedule import BadSchedule, Fault, fault

Nodes: TypeAlias = Sequence[str]
Drawn: TypeAlias = list[Fault]
Draw: TypeAlias = Callable[[Random, Nodes, float, float], Drawn]
"""(randomness, nodes, from second, to second) to the faults of one spell, its end among them."""

WARM_UP_S: Final = 2.0
"""Before the first fault."""
FAULT_S: Final = (4.0, 8.0)
"""How long a spell lasts: past an election, short enough for several in a minute."""
CALM_S: Final = (2.0, 4.0)
"""Between two spells."""
COOL_DOWN_S: Final = 4.0
"""At the end without a fault, so that recovery is seen."""


def draw_schedule(rng: Random, nodes: Nodes, families: Sequence[str], seconds: float) -> Drawn:
    """Return a schedule of about `seconds`, which takes the families in turn, in random order.

    Raises:
        BadSchedule: an unknown family, or too few nodes for one.
    """
    unknown = [family for family in families if family not in FAMILIES]
    if unknown:
        raise BadSchedule(f"there is no family of faults {unknown[0]!r}: give of {', '.join(FAMILIES)}")
    if len(nodes) < 2 and families:
        raise BadSchedule("faults need two nodes at least: they leave nobody else")
    drawn: Drawn = []
    at = WARM_UP_S
    order: list[str] = []
    while families and at + FAULT_S[0] + COOL_DOWN_S <= max(seconds, WARM_UP_S + FAULT_S[0] + COOL_DOWN_S):
        order = order or rng.sample(list(families), len(families))
        end = at + round(rng.uniform(*FAULT_S), 1)
        drawn += FAMILIES[order.pop()](rng, nodes, at, end)
        at = end + round(rng.uniform(*CALM_S), 1)
    last = max((one.at_s for one in drawn), default=0.0)
    drawn.append(fault(max(last, round(seconds - COOL_DOWN_S, 1)), "calm", "*"))
    # To the millisecond, as in the file: what is run is what is read back.
    exact = [replace(one, at_s=round(one.at_s, 3)) for one in drawn]
    return sorted(exact, key=lambda one: one.at_s)


def blocked(split: Sequence[Sequence[str]], nodes: Nodes) -> list[tuple[str, str]]:
    """Return the one-way links between the groups; `*` in a group stands for the nodes that no group names."""
    named = {host for group in split for host in group}
    rest = [node for node in nodes if node not in named]
    whole = [[host for name in group for host in (rest if name == "*" else [name])] for group in split]
    return [
        (source, end)
        for here, ones in enumerate(whole)
        for there, others in enumerate(whole)
        if here != there
        for source in ones
        for end in others
        if source != end
    ]


def _partition(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    shape = rng.choice(list(SHAPES.values()))
    return [*shape(rng, nodes, at), fault(end, "heal", "*")]


def _halves(rng: Random, nodes: Nodes, at: float) -> Drawn:
    mixed = rng.sample(list(nodes), len(nodes))
    middle = len(mixed) // 2
    return [fault(at, "partition", f"{','.join(mixed[:middle])}/{','.join(mixed[middle:])}")]


def _one(rng: Random, nodes: Nodes, at: float) -> Drawn:
    return [fault(at, "partition", f"{rng.choice(list(nodes))}/*")]


def _leader(rng: Random, nodes: Nodes, at: float) -> Drawn:
    del rng, nodes
    return [fault(at, "partition", "leader:1/*")]


def _ring(rng: Random, nodes: Nodes, at: float) -> Drawn:
    """Each node reaches a majority, no two the same one: on a circle, far ones do not reach each other."""
    circle = rng.sample(list(nodes), len(nodes))
    reach = (len(circle) // 2 + 1) // 2  # so many on either side, and itself, are a majority
    far = [
        (one, other)
        for place, one in enumerate(circle)
        for step, other in enumerate(circle[place + 1 :], 1)
        if min(step, len(circle) - step) > reach
    ]
    if not far:  # three nodes: a chain is the nearest thing
        far = [(circle[0], circle[-1])]
    return [fault(at, "cut", f"{one}-{other}") for one, other in far]


def _bridge(rng: Random, nodes: Nodes, at: float) -> Drawn:
    """Two halves that only one node reaches both."""
    mixed = rng.sample(list(nodes), len(nodes))
    middle = len(mixed) // 2
    return [
        fault(at, "cut", f"{one}-{other}") for one in mixed[:middle] for other in mixed[middle + 1 :]
    ] or [fault(at, "cut", f"{mixed[0]}-{mixed[-1]}")]


def _one_way(rng: Random, nodes: Nodes, at: float) -> Drawn:
    deaf = rng.choice(list(nodes))
    outward = rng.random() < 0.5
    others = [node for node in nodes if node != deaf]
    return [fault(at, "cut", f"{deaf}>{other}" if outward else f"{other}>{deaf}") for other in others]


SHAPES: Final[Mapping[str, Callable[[Random, Nodes, float], Drawn]]] = {
    "halves": _halves,
    "one": _one,
    "leader": _leader,
    "ring": _ring,
    "bridge": _bridge,
    "one_way": _one_way,
}
"""Shapes of partitions, each also a family of its own name."""


def _shape(name: str) -> Draw:
    def drawn(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
        return [*SHAPES[name](rng, nodes, at), fault(end, "heal", "*")]

    return drawn


def _victims(rng: Random, nodes: Nodes) -> list[str]:
    """One node, a majority, or all."""
    many = rng.choice([1, 1, len(nodes) // 2 + 1, len(nodes)])
    return rng.sample(list(nodes), many)


def _kill(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    victims = _victims(rng, nodes)
    return [fault(at, "crash", node) for node in victims] + [fault(end, "start", node) for node in victims]


def _kill_leader(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    del rng, nodes
    return [fault(at, "crash", "leader:1"), fault(end, "start", "*")]


def _pause(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    victims = _victims(rng, nodes)
    return [fault(at, "pause", node) for node in victims] + [fault(end, "resume", node) for node in victims]


def _pause_leader(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    del rng, nodes
    return [fault(at, "pause", "leader:1"), fault(end, "resume", "*")]


def _storm(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    """Restart after restart, of one node after the other."""
    drawn: Drawn = []
    while at < end:
        node = rng.choice(list(nodes))
        back = round(at + rng.uniform(0.2, 1.0), 1)
        drawn += [fault(at, "crash", node), fault(back, "start", node)]
        at = back + 0.1
    return drawn


def _slow(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    one, other = rng.sample(list(nodes), 2)
    return [
        fault(at, "slow", f"{one}-{other}", seconds=f"{rng.uniform(0.05, 0.5):.2f}"),
        fault(end, "heal", "*"),
    ]


def _reset(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    times = [round(at + (end - at) * part / 4, 1) for part in range(4)]
    return [fault(when, "reset", "-".join(rng.sample(list(nodes), 2))) for when in times]


def _weather(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    del nodes
    loss, delay = f"{rng.uniform(0.01, 0.1):.2f}", f"{rng.uniform(0.01, 0.1):.2f}"
    return [fault(at, "weather", "*", loss=loss, long_delay=delay), fault(end, "weather", "*")]


def _router(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    """What clients ask of a node does not get to the others, while it votes and replicates with them."""
    node = rng.choice(list(nodes))
    cut = [fault(at, "cut", f"router:{node}-{other}") for other in nodes if other != node]
    return [*cut, fault(end, "heal", "*")]


def _loss(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    """Packets are lost, and nothing else: what network namespaces can do, too."""
    del nodes
    return [
        fault(at, "weather", "*", loss=f"{rng.uniform(0.02, 0.3):.2f}"),
        fault(end, "weather", "*"),
    ]


def _power(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    """Slow syncs, so that much is not on the disks when power fails, of one, a majority or all."""
    victims = _victims(rng, nodes)
    slow = [fault(at, "slow_sync", "*", seconds=f"{rng.uniform(0.01, 0.2):.2f}")]
    cut = [fault(round(at + 1.0, 1), "crash", node, power="yes") for node in victims]
    back = [fault(round(at + 1.5, 1), "start", node) for node in victims]
    return [*slow, *cut, *back, fault(end, "slow_sync", "*", seconds="0")]


def _disk(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    """A disk that is slow, or full, or fails a sync once: then its node ends itself."""
    node = rng.choice(list(nodes))
    match rng.choice(["slow_sync", "fill", "fail_sync"]):
        case "slow_sync":
            slow = f"{rng.uniform(0.05, 0.8):.2f}"
            return [
                fault(at, "slow_sync", node, seconds=slow),
                fault(end, "slow_sync", node, seconds="0"),
            ]
        case "fill":
            return [fault(at, "fill", node), fault(end, "free", node)]
        case _:
            return [fault(at, "fail_sync", node), fault(end, "start", node)]


def _flip(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    node = rng.choice(list(nodes))
    return [fault(at, "flip", node), fault(end, "start", node)]


def _clock(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    """A wall clock that is wrong for a while."""
    node, seconds = rng.choice(list(nodes)), rng.choice([-1, 1]) * round(10 ** rng.uniform(0, 6), 1)
    return [
        fault(at, "clock_jump", node, seconds=f"{seconds}"),
        fault(end, "clock_jump", node, seconds=f"{-seconds}"),
    ]


def _skew(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    """Clocks of very different rates: more than a lease may be given for."""
    rates = [fault(at, "clock_rate", node, rate=f"{rng.uniform(0.5, 2.0):.2f}") for node in nodes]
    return [*rates, fault(end, "clock_rate", "*", rate="1")]


def _together(rng: Random, nodes: Nodes, at: float, end: float) -> Drawn:
    """A partition, and meanwhile kills or pauses."""
    first, second = _partition(rng, nodes, at, end), rng.choice([_kill, _pause, _kill_leader, _pause_leader])
    later = round(at + rng.uniform(0.5, (end - at) / 2), 1)
    return [*first, *second(rng, nodes, later, end)]


FAMILIES: Final[Mapping[str, Draw]] = {
    "partition": _partition,
    **{name: _shape(name) for name in SHAPES},
    "kill": _kill,
    "kill_leader": _kill_leader,
    "pause": _pause,
    "pause_leader": _pause_leader,
    "storm": _storm,
    "slow": _slow,
    "reset": _reset,
    "weather": _weather,
    "loss": _loss,
    "together": _together,
    "router": _router,
    "power": _power,
    "disk": _disk,
    "flip": _flip,
    "clock": _clock,
    "skew": _skew,
}
"""Families of faults by the name that `--faults` takes."""
