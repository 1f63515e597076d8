"""The search for a linearization of the calls of one object, in the order of events.

Wing & Gong's search (1993) with Lowe's memoization (2017, "Testing for linearizability"), turned to just-in-time
linearization: events are taken in order, and a set of configurations is carried along, each a state of the object and which
of the pending calls have taken effect. Calls take effect only when a return demands it, so a violation is found at
the first return that no configuration survives, without a look at the rest of the history.

What keeps the set small, each without changing a verdict:

- A pending call is *owed* (must take effect before it returns), *free* (it may, or may vanish) or *used*. Calls of unknown
  outcome are free from the start. An owed call becomes free when the state is one that it leaves unchanged (a read that
  fits, a write of what is there): it could take effect there without a trace. It also becomes free when a blind
  overwrite follows and it always succeeds: it could have come just before.
- *Dominance*: free is better than owed and than used. A configuration is dropped if another one in the same state has
  every pending call in the same or a better condition.
- *Interchange*: of pending calls with the same effect in the same condition the one that ends first is taken.
- *No idle overwrite*: a blind overwrite before the demanded call is tried only if a pending call asks for its value.
- *No early commuter*: calls that commute with the demanded one wait, unless a pending call could tell.
- *Horizon*: a state in which the calls to come say the object cannot be is left (`horizons`).

Sets of pending calls are bit sets in Python integers; a slot (bit) is used again when its call has returned. States are numbered.
Linearizability is local (Herlihy & Wing 1990), so each key is searched alone; that is `linearizable`'s business.
No clock: `expired` is asked every `PATIENCE` configurations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from kv_jepsen.history import OPEN, Call
from kv_jepsen.kinds import ANYWHERE, IMPOSSIBLE, NO_CALLS, RESULT_BYTES, Kind, Kinds, Pending
from kv_jepsen.models import Model, State

PATIENCE = 512
"""Configurations between two questions whether time or memory is over."""

EFFORT = 8
"""A narrow search looks at up to so many configurations for each one it keeps, at each return."""

CONFIGURATION_BYTES = 420
"""What a configuration costs, measured: a tuple, two integers, its step and its share of the tables."""

Trail = tuple["Trail | None", int, int]
"""Steps taken, last first: (the ones before, number of the call, number of the return that demanded it). The first one has
None before it, the number of the entry state for a call, and `ENTRY` for an event."""

ENTRY = -1
"""In place of an event: before all of them."""

Configuration = tuple[int, int, Trail]
"""(owed, free, trail); its state is the key under which it is kept."""

Frontier = dict[int, list[Configuration]]
"""Configurations by state number; no one dominates another."""


class SearchExpired(Exception):
    """Time or memory was over before the answer."""


@dataclass(frozen=True, slots=True)
class Event:
    """The invocation or the return of the call with this number, in the order of the history."""

    call: int
    returns: bool


@dataclass(slots=True)
class Blocked:
    """A return that no configuration survives."""

    call: int
    event: int
    before: Frontier


@dataclass(slots=True)
class _Crossing:
    """How the frontier gets over one return."""

    target: int
    """Bit of the call that returns."""
    kind: Kind
    position: int
    """Index of the return in the history."""
    after: Frontier = field(default_factory=dict)
    """What is beyond the return."""
    seen: Frontier = field(default_factory=dict)
    """What is before it and could still lead beyond."""
    stack: list[tuple[int, Configuration]] = field(default_factory=list)
    """Of `seen`, what was not looked at."""


class Search:
    """One search over the calls of one object.

    Args:
        model: fitted to the calls.
        calls: those that take part, by start.
        entry: states in which the object may be before the first event; the model's first one if empty.
        expired: told how many bytes the search holds, says whether to give up.
        width: keep only so many of the most promising configurations; if that left some out (`narrowed`), a
            linearization that is found holds, and one that is not found means nothing. None keeps all.
        optional: numbers of calls that may vanish although they return: they may have taken effect before the entry.
    """

    def __init__(
        self,
        model: Model,
        calls: Sequence[Call],
        entry: Sequence[State] = (),
        expired: Callable[[int], bool] | None = None,
        width: int | None = None,
        optional: frozenset[int] = frozenset(),
    ) -> None:
        self.calls = calls
        self.kinds = Kinds(model, entry or [model.init()])
        self.kind = [self.kinds.of(call) for call in calls]
        self.events = list(events_of(calls))
        self.pending = Pending()
        certain = [replace(call, end=OPEN) if place in optional else call for place, call in enumerate(calls)]
        self.horizon = model.horizon(certain, [self.kinds.states[state] for state in self.kinds.entry])
        self.frontier: Frontier = {state: [(0, 0, (None, state, ENTRY))] for state in self.kinds.entry}
        self.looked_at = 0
        self.width = width
        self.optional = optional
        self.narrowed = False
        """Whether configurations were left out because of `width`."""
        self.expired = expired or never
        self.entries: list[tuple[int, ...]] = []
        """For each event the states of the configurations before it."""
        self._bits: dict[int, int] = {}
        self._traceless: dict[int, int] = {}
        self._moving: dict[int, int] = {}
        self._possible: dict[tuple[int, int], bool] = {}

    def run(self) -> Blocked | None:
        """Take all events; return the first one that blocks, None if there is a linearization.

        Raises:
            SearchExpired: `expired` said so.
        """
        for number, event in enumerate(self.events):
            self.entries.append(tuple(self.frontier))
            self._traceless.clear()
            self._moving.clear()
            self._possible.clear()
            if not event.returns:
                self._invoke(event.call)
                continue
            before = self.frontier
            self._return(event.call, number)
            if not self.frontier:
                return Blocked(event.call, number, before)
        return None

    def _invoke(self, number: int) -> None:
        call, kind = self.calls[number], self.kind[number]
        bit = self._bits[number] = self.pending.begin(number, kind, call.end)
        may_vanish = call.end == OPEN or number in self.optional
        for state, configurations in self.frontier.items():
            if may_vanish or self.kinds.next(state, kind.number) == state:
                self.frontier[state] = [(owed, free | bit, trail) for owed, free, trail in configurations]
            else:
                self.frontier[state] = [(owed | bit, free, trail) for owed, free, trail in configurations]

    def _return(self, number: int, event: int) -> None:
        """Carry the frontier over a return: every configuration in which the call has taken effect or may vanish."""
        crossing = _Crossing(self._bits.pop(number), self.kind[number], self.calls[number].end)
        for state, configurations in self.frontier.items():
            for configuration in configurations:
                self._reach(crossing, state, configuration)
        patience = None if self.width is None else self.looked_at + EFFORT * self.width
        while crossing.stack:
            if self.looked_at == patience:
                self.narrowed = True
                break
            state, configuration = crossing.stack.pop()
            if any(kept is configuration for kept in crossing.seen[state]):  # otherwise dominated since
                self._count(crossing)
                for following, reached in self._steps(state, configuration, crossing, event):
                    self._reach(crossing, following, reached)
        self.pending.end(crossing.target, crossing.kind)
        self.frontier = crossing.after if self.width is None else self._narrow(crossing.after, self.width)

    def _reach(self, crossing: _Crossing, state: int, configuration: Configuration) -> None:
        """Note a configuration beyond the return if it is there, and one to go on from if it may lead there."""
        owed, free, trail = configuration
        target = crossing.target
        if not owed & target and self._may_be(state, crossing.position):
            added(crossing.after, state, (owed, free & ~target, trail))
        live = owed if crossing.kind.answers else owed | free
        if (
            live & target
            and self._may_be(state, crossing.position - 1)
            and added(crossing.seen, state, configuration)
        ):
            crossing.stack.append((state, configuration))

    def _may_be(self, state: int, position: int) -> bool:
        """Whether the calls to come leave this state possible at this position."""
        if self.horizon is None:
            return True
        possible = self._possible.get((state, position))
        if possible is None:
            possible = self._possible[state, position] = self.horizon.possible(
                self.kinds.states[state], position
            )
        return possible

    def _narrow(self, frontier: Frontier, width: int) -> Frontier:
        """Return `width` configurations, some of each state: half of them the most promising, half of them any.

        The most promising alone are too much alike, and die together.
        """
        if sum(map(len, frontier.values())) <= width:
            return frontier
        self.narrowed = True
        share = max(1, width // len(frontier))
        return {state: _some(there, share) for state, there in frontier.items()}

    def _count(self, crossing: _Crossing) -> None:
        self.looked_at += 1
        if self.looked_at % PATIENCE == 0:
            held = sum(map(len, crossing.after.values())) + sum(map(len, crossing.seen.values()))
            tables = self.kinds.known * RESULT_BYTES + self.kinds.state_bytes
            if self.expired(held * CONFIGURATION_BYTES + tables):
                raise SearchExpired

    def _steps(
        self, state: int, configuration: Configuration, crossing: _Crossing, event: int
    ) -> Iterator[tuple[int, Configuration]]:
        """Yield what one more call taking effect can lead to, on the way to the target."""
        owed, free, trail = configuration
        target, demanded = crossing.target, crossing.kind
        early = demanded.commuting and not (owed | free) & self.pending.lasting
        for number, same in self._candidates(state, owed | free, demanded):
            following = self.kinds.next(state, number)
            kind = self.kinds.kinds[number]
            if following == IMPOSSIBLE or (following == state and not kind.blind):
                continue
            for bit in chosen(same, owed, free):
                if early and bit != target:
                    continue
                rest_owed, rest_free = owed & ~bit, free & ~bit
                if kind.blind:
                    if bit != target and not self._asked(following, rest_owed, rest_free):
                        continue
                    absorbed = rest_owed & self.pending.total & ~target
                    if following == state and not absorbed:
                        continue
                    rest_owed ^= absorbed
                    rest_free |= absorbed
                traceless = rest_owed & self._traceless_in(following)
                yield (
                    following,
                    (
                        rest_owed ^ traceless,
                        rest_free | traceless,
                        (trail, self.pending.calls[bit], event),
                    ),
                )

    def _candidates(
        self, state: int, available: int, demanded: Kind
    ) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield the kinds that may do something useful in `state`, with their pending calls."""
        pending = self.pending
        yield from pending.at(False, state)
        wanted: dict[int, None] = {demanded.affinity: None} if demanded.blind else {}
        for (blind, affinity), kinds in pending.places.items():
            if not blind and any(available & bit for same in kinds.values() for _, bit in same):
                wanted[affinity] = None
        if ANYWHERE in wanted:
            for (blind, _), kinds in pending.places.items():
                if blind:
                    yield from kinds.items()
            return
        for affinity in wanted:
            yield from pending.places.get((True, affinity), NO_CALLS).items()
        yield from pending.places.get((True, ANYWHERE), NO_CALLS).items()

    def _asked(self, state: int, owed: int, free: int) -> bool:
        """Whether a pending call that overwrites nothing blindly can take effect in `state` or be answered by it."""
        return bool(owed & self._traceless_in(state) or (owed | free) & self._moving_in(state))

    def _traceless_in(self, state: int) -> int:
        """Bits of the pending calls that leave `state` as it is."""
        bits = self._traceless.get(state)
        if bits is None:
            bits = 0
            for blind in (False, True):
                for kind, same in self.pending.at(blind, state):
                    if self.kinds.next(state, kind) == state:
                        for _, bit in same:
                            bits |= bit
            self._traceless[state] = bits
        return bits

    def _moving_in(self, state: int) -> int:
        """Bits of the pending calls, blind ones aside, that lead from `state` to another."""
        bits = self._moving.get(state)
        if bits is None:
            bits = 0
            for kind, same in self.pending.at(False, state):
                if self.kinds.next(state, kind) not in (IMPOSSIBLE, state):
                    for _, bit in same:
                        bits |= bit
            self._moving[state] = bits
        return bits


def chosen(same: list[tuple[int, int]], owed: int, free: int) -> Iterator[int]:
    """Yield the bits worth trying of pending calls of one kind: the first owed, and the first free if it ends before that."""
    first_owed = next(((end, bit) for end, bit in same if bit & owed), None)
    first_free = next(((end, bit) for end, bit in same if bit & free), None)
    if first_owed is not None:
        yield first_owed[1]
    if first_free is not None and (first_owed is None or first_free[0] < first_owed[0]):
        yield first_free[1]


def added(frontier: Frontier, state: int, configuration: Configuration) -> bool:
    """Add a configuration unless another dominates it; drop those it dominates."""
    there = frontier.get(state)
    if there is None:
        frontier[state] = [configuration]
        return True
    owed, free, _ = configuration
    for other_owed, other_free, _ in there:
        if not free & ~other_free and not (owed ^ other_owed) & ~other_free:
            return False
    frontier[state] = [kept for kept in there if kept[1] & ~free or (kept[0] ^ owed) & ~free]
    frontier[state].append(configuration)
    return True


def events_of(calls: Sequence[Call]) -> Iterator[Event]:
    """Yield invocations and returns in the order of the history; a call of unknown outcome has no return."""
    marks = [(call.start, number, False) for number, call in enumerate(calls)]
    marks += [(call.end, number, True) for number, call in enumerate(calls) if call.end != OPEN]
    for _, number, returns in sorted(marks):
        yield Event(number, returns)


def _some(there: list[Configuration], share: int) -> list[Configuration]:
    """Return up to `share` of the configurations of a state."""
    if len(there) <= share:
        return there
    best = sorted(there, key=_promise)
    half = share // 2
    rest = best[share - half :]
    return best[: share - half] + (rest[:: -(-len(rest) // half)] if half else [])


def _promise(configuration: Configuration) -> int:
    """Fewest owed and most free calls: smaller is more promising."""
    return configuration[0].bit_count() - configuration[1].bit_count()


def never(held_bytes: int) -> bool:
    """Give no search up."""
    del held_bytes
    return False
