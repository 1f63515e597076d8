"""A schedule as spells - a fault, and what ends it - so that faults can be left out whole. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kv_jepsen.periods import ENDED_BY, EVERYWHERE
from kv_jepsen.schedule import Fault

_ENDS = frozenset({*ENDED_BY.values(), "calm"})


@dataclass(frozen=True, slots=True)
class Spell:
    """One fault.

    Attributes:
        place: of its line in the schedule.
        fault: what is done.
    """

    place: int
    fault: Fault


def spells(schedule: Sequence[Fault]) -> list[Spell]:
    """The faults of a schedule, without what only ends them."""
    return [Spell(place, one) for place, one in enumerate(schedule) if not _only_ends(one)]


def _only_ends(one: Fault) -> bool:
    """Whether a line ends faults and begins none; so does slowness of 0 s, weather without loss, a clock of rate 1."""
    match one.kind:
        case "slow" | "slow_sync":
            return one.number("seconds") == 0
        case "clock_rate":
            return one.number("rate") == 1
        case "weather":
            return not any(one.number(name) for name in ("loss", "duplication", "long_delay"))
        case _:
            return one.kind in _ENDS


def schedule_of(whole: Sequence[Fault], kept: Collection[Spell]) -> list[Fault]:
    """The schedule of some of its faults: with every end of one of them, and the ends of all."""
    places = {spell.place for spell in kept}
    faults = [spell.fault for spell in kept]
    return [
        one
        for place, one in enumerate(whole)
        if place in places
        or one.kind == "calm"
        or (_only_ends(one) and any(_ends(one, other) for other in faults if other.at_s <= one.at_s))
    ]


def _ends(end: Fault, begun: Fault) -> bool:
    """Whether a line may end a fault; of hosts named by their role nobody knows which they are, so it may."""
    if end.kind == begun.kind:
        return True
    if ENDED_BY.get(begun.kind) != end.kind:
        return False
    named = {end.target, begun.target}
    return len(named) == 1 or bool(named & {*EVERYWHERE}) or any(":" in name for name in named)
