"""The network of a trial: ordered connections that stall, slow down and break, or single messages that get lost.

Both kinds of replica use the same one. What must not live here: when something breaks (`nemesis`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

from kv.sim.stock.events import EventQueue
from kv.sim.stock.replica import Replica

DELAY_MIN_S, DELAY_MAX_S = 0.0005, 0.01
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.01, 0.5
LOSS = DUPLICATION = LONG_DELAY = 0.05
"""Probabilities for a message of a lossy network."""
LONG_DELAY_MEAN_S = 0.4
ECHO_DELAY_MAX_S = 3.0
"""How much later than the first a doubled message may come."""

Link = tuple[int, int]


class Links:
    """See the file's docstring. `lossy`: messages travel each for itself, and there are no connections."""

    def __init__(self, queue: EventQueue, rng: Random, *, lossy: bool) -> None:
        self.calm = False
        self._queue, self._rng, self._lossy = queue, rng, lossy
        self._replicas: Sequence[Replica] = ()
        self._connections: dict[Link, int] = {}
        """From the ends, lower first, to the number of the connection, while there is one."""
        self._dialled = 0
        self._stalled: dict[Link, list[tuple[int, object]]] = {}
        self._slow: dict[Link, float] = {}
        self._last: dict[Link, float] = {}

    def join(self, replicas: Sequence[Replica]) -> None:
        """Say who is on the network; called once."""
        self._replicas = replicas

    # ------------------------------------------------------------ carrying

    def send(self, source: int, target: int, message: object) -> bool:
        """See `Post`."""
        if self._lossy:
            self._scatter(source, target, message)
            return True
        number = self._connections.get(_ends(source, target))
        if number is None:
            return False
        self._carry(source, target, number, message)
        return True

    def _carry(self, source: int, target: int, number: int, message: object) -> None:
        now = self._queue.now
        when = max(self._last.get((source, target), 0.0), now + self._delay(source, target))
        self._last[source, target] = when
        self._queue.after(when - now, partial(self._arrive, source, target, number, message))

    def _arrive(self, source: int, target: int, number: int, message: object) -> None:
        if self._connections.get(_ends(source, target)) != number:
            return
        held = self._stalled.get((source, target))
        if held is not None:
            held.append((number, message))
            return
        self._hand_over(source, target, message)

    def _scatter(self, source: int, target: int, message: object) -> None:
        rng, copies = self._rng, 1
        if not self.calm:
            copies = 0 if rng.random() < LOSS else 2 if rng.random() < DUPLICATION else 1
        for copy in range(copies):
            delay = self._delay(source, target)
            if not self.calm and rng.random() < LONG_DELAY:
                delay += rng.expovariate(1 / LONG_DELAY_MEAN_S)
            if copy and rng.random() < 0.2:
                delay += rng.uniform(0, ECHO_DELAY_MAX_S)
            self._queue.after(delay, partial(self._drop_off, source, target, message))

    def _drop_off(self, source: int, target: int, message: object) -> None:
        if (source, target) not in self._stalled:
            self._hand_over(source, target, message)

    def _hand_over(self, source: int, target: int, message: object) -> None:
        replica = self._replicas[target]
        if replica.up:
            replica.receive(source, message)
            replica.around.watch(replica)

    def _delay(self, source: int, target: int) -> float:
        return self._rng.uniform(DELAY_MIN_S, DELAY_MAX_S) + self._slow.get((source, target), 0.0)

    # ------------------------------------------------------------ connections

    def started(self, number: int) -> None:
        """A replica's process began."""
        for peer in range(len(self._replicas)):
            if peer == number:
                continue
            if self._lossy:
                self._replicas[number].connection(peer, True)
            else:
                self._queue.after(self._rng.uniform(0.001, 0.2), partial(self._dial, *_ends(number, peer)))

    def stopped(self, number: int) -> None:
        """A replica's process ended."""
        for peer in range(len(self._replicas)):
            if peer != number:
                self.reset(number, peer)

    def reset(self, a: int, b: int) -> None:
        """The connection breaks; what it carried is lost, and both ends notice."""
        ends = _ends(a, b)
        if self._connections.pop(ends, None) is None:
            return
        self._tell(ends, False)
        self._dial_later(ends)

    def _dial_later(self, ends: Link) -> None:
        delay = self._rng.uniform(RECONNECT_MIN_S, RECONNECT_MAX_S)
        self._queue.after(delay, partial(self._dial, *ends))

    def _dial(self, low: int, high: int) -> None:
        ends = (low, high)
        if ends in self._connections or not all(self._replicas[end].up for end in ends):
            return  # who is down dials when it starts
        if ends in self._stalled or (high, low) in self._stalled:
            self._dial_later(ends)
            return
        self._dialled += 1
        self._connections[ends] = self._dialled
        self._last.pop((low, high), None)
        self._last.pop((high, low), None)
        self._tell(ends, True)

    def _tell(self, ends: Link, up: bool) -> None:
        for me, peer in (ends, ends[::-1]):
            replica = self._replicas[me]
            if replica.up:
                replica.connection(peer, up)

    # ------------------------------------------------------------ faults

    def stall(self, source: int, target: int) -> None:
        """Nothing arrives any more in this direction: a stream holds it, single messages are lost."""
        self._stalled.setdefault((source, target), [])

    def heal(self) -> None:
        """Everything arrives again, first what streams held, in order."""
        stalled, self._stalled = self._stalled, {}
        for (source, target), held in stalled.items():
            for number, message in held:
                self._carry(source, target, number, message)

    def slow(self, source: int, target: int, extra_s: float) -> None:
        """Everything takes this much longer in this direction; 0 ends it."""
        self._slow[source, target] = extra_s


def _ends(a: int, b: int) -> Link:
    return (a, b) if a < b else (b, a)
