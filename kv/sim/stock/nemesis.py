"""What goes wrong in a trial, and when: one fault about every second, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from kv.sim.stock.events import EventQueue
from kv.sim.stock.fault_sets import FaultSet
from kv.sim.stock.links import Links
from kv.sim.stock.replica import Replica

FAULT_GAP_S: Final = 1.0
CUT_MIN_S, CUT_MAX_S = 0.2, 4.0
SLOW_MIN_S, SLOW_MAX_S = 0.3, 4.0
SLOW_BY_S: Final = (0.05, 0.3, 1.0, 2.5)
DOWN_MIN_S, DOWN_MAX_S = 0.05, 3.0


class Nemesis:
    """The faults of a `FaultSet`, by the names of its public methods."""

    def __init__(
        self,
        faults: FaultSet,
        queue: EventQueue,
        links: Links,
        replicas: Sequence[Replica],
        rng: Random,
        note: Callable[[str], None],
    ) -> None:
        self.inflicted = 0
        self._queue, self._links, self._replicas, self._rng = queue, links, replicas, rng
        self._note = note
        self._calm = False
        self._choices: list[Callable[[], None]] = [getattr(self, name) for name in faults.faults]

    def begin(self) -> None:
        """Let faults happen from now on."""
        self._queue.after(self._rng.expovariate(1 / FAULT_GAP_S), self._strike)

    def end(self) -> None:
        """Mend everything; no more faults."""
        self._calm = self._links.calm = True
        self.heal()
        for link in self._pairs():
            self._links.slow(*link, 0.0)
        for replica in self._replicas:
            if not replica.up:
                self._restart(replica, replica.starts)

    def _strike(self) -> None:
        if self._calm:
            return
        self.inflicted += 1
        self._rng.choice(self._choices)()
        self.begin()

    # ------------------------------------------------------------ the faults

    def slow(self) -> None:
        """One direction becomes slow for a while."""
        source, target = self._pair()
        extra = self._rng.choice(SLOW_BY_S)
        self._note(f"{source} to {target} is slower by {extra} s")
        self._links.slow(source, target, extra)
        end = partial(self._links.slow, source, target, 0.0)
        self._queue.after(self._rng.uniform(SLOW_MIN_S, SLOW_MAX_S), end)

    def stall(self) -> None:
        """One direction goes silent for a while."""
        source, target = self._pair()
        self._note(f"{source} to {target} stalls")
        self._links.stall(source, target)
        self._heal_later()

    def heal(self) -> None:
        """Everything that was silent is heard again."""
        self._note("all links heal")
        self._links.heal()

    def reset(self) -> None:
        """A connection breaks, with what it carried."""
        one, other = self._pair()
        self._note(f"the connection of {one} and {other} breaks")
        self._links.reset(one, other)

    def partition(self) -> None:
        """The replicas fall into two parts; half of the time their connections break at once."""
        numbers = [replica.number for replica in self._replicas]
        self._rng.shuffle(numbers)
        cut = self._rng.randint(1, len(numbers) - 1)
        one, other = sorted(numbers[:cut]), sorted(numbers[cut:])
        breaks = self._rng.random() < 0.5
        self._note(f"{one} and {other} are apart" + (", connections broken" if breaks else ""))
        for a in one:
            for b in other:
                self._links.stall(a, b)
                self._links.stall(b, a)
                if breaks:
                    self._links.reset(a, b)
        self._heal_later()

    def crash(self) -> None:
        """One process dies, sometimes two; their files stay as they are."""
        self._crash_some(power=False)

    def crash_all(self) -> None:
        """All processes die; their files stay as they are."""
        self._crash(self._up(), power=False)

    def power(self) -> None:
        """One machine loses power, sometimes two."""
        self._crash_some(power=True)

    def power_all(self) -> None:
        """All machines lose power."""
        self._crash(self._up(), power=True)

    # ------------------------------------------------------------ details

    def _crash_some(self, *, power: bool) -> None:
        up = self._up()
        self._crash(self._rng.sample(up, min(len(up), self._rng.choice((1, 1, 1, 2)))), power=power)

    def _crash(self, victims: Sequence[Replica], *, power: bool) -> None:
        for replica in victims:
            self._note(f"{replica.number} {'loses power' if power else 'crashes'}")
            replica.crash(power=power)
            self._links.stopped(replica.number)
            delay = self._rng.uniform(DOWN_MIN_S, DOWN_MAX_S)
            self._queue.after(delay, partial(self._restart, replica, replica.starts))

    def _restart(self, replica: Replica, starts: int) -> None:
        if replica.up or replica.starts != starts:
            return
        self._note(f"{replica.number} starts again")
        replica.start()
        self._links.started(replica.number)

    def _heal_later(self) -> None:
        self._queue.after(self._rng.uniform(CUT_MIN_S, CUT_MAX_S), self._links.heal)

    def _up(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica.up]

    def _pair(self) -> tuple[int, int]:
        source, target = self._rng.sample(range(len(self._replicas)), 2)
        return source, target

    def _pairs(self) -> list[tuple[int, int]]:
        everyone = range(len(self._replicas))
        return [(a, b) for a in everyone for b in everyone if a != b]
