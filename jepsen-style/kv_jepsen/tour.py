"""A tour: runs one after another that together meet every workload, every read level and every family of faults. Pure.

Each run takes the next workload and the next few families, both in random order, again and again; so a short tour meets
some of everything, a long one all of it several times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final, TypeVar

RUN_S: Final = 45.0
"""Of load of one run: some five faults."""
FAMILIES_A_RUN: Final = 4
PARTS: Final = frozenset({"halves", "one", "leader", "ring", "bridge", "one_way"})
"""Families that `partition` draws from: not taken by themselves."""
SEED_MAX: Final = 1 << 32

DELAYING: Final = frozenset({"slow", "weather"})
"""Families that delay: network namespaces can only where there are TUN devices."""

_Card = TypeVar("_Card")


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of a tour.

    Attributes:
        workload: of its clients.
        cut: how its network is cut.
        families: of its faults.
        levels: of its reads; `*` for all that the target has.
        options: of the target.
        seed: of the run.
    """

    workload: str
    cut: str
    families: tuple[str, ...]
    levels: tuple[str, ...]
    options: tuple[str, ...]
    seed: int


def tour(
    rng: Random,
    workloads: Sequence[str],
    families: Sequence[str],
    cuts: Sequence[str],
    target: str,
    *,
    late: bool = False,
) -> Iterator[Leg]:
    """Yield runs, without end; `late`: whether namespaces can delay here."""
    works, faults = _dealt(rng, workloads), _dealt(rng, [one for one in families if one not in PARTS])
    for number in count():
        cut = cuts[number % len(cuts)]
        hand = dict.fromkeys(next(faults) for _ in range(min(FAMILIES_A_RUN, len(families))))
        drawn = tuple(one for one in hand if late or cut == "proxy" or one not in DELAYING)
        # Not with the same turns as the cuts. A bound is by the replica's clock: with a wrong one it promises less.
        levels = ("*",) if number // len(cuts) % 2 == 0 and "skew" not in drawn else ("linearizable",)
        yield Leg(next(works), cut, drawn, levels, _options(target, drawn, number), rng.randrange(SEED_MAX))


def _options(target: str, families: Sequence[str], number: int) -> tuple[str, ...]:
    if target != "ringkv":
        return ()
    reads = ("reads=own",) if number % 3 == 0 else ()
    # Leases are promised for clocks that are at most 5 % apart; without them every promise holds for any clocks.
    return (*reads, "lease-ms=0") if "skew" in families else reads


def _dealt(rng: Random, cards: Sequence[_Card]) -> Iterator[_Card]:
    """Deal all cards in random order, again and again."""
    while cards:
        yield from rng.sample(list(cards), len(cards))
