"""The smallest part of a history that is not linearizable, for people to look at.

A part begins at some event, in any state that the search had reached there, with the calls then pending as optional ones (they
may have taken effect before), and ends with a return. If a part has no linearization, nothing outside it is needed to
explain it. Around the place where the search gave up a part is doubled until it fails by itself; then its end is moved
forward as far as it still fails, and its beginning too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kv_jepsen.history import OPEN, Call
from kv_jepsen.search import Blocked, Search, SearchExpired
from kv_jepsen.trails import placed
from kv_jepsen.verdict import Failure, Step

PARTIALS_MAX = 3
"""So many of the longest partial linearizations are shown."""

EFFORT_MAX = 4_000
"""A part whose search looks at more configurations counts as not failing: it would not be small."""

EFFORT_SUM_MAX = 20_000
"""When all parts together have taken more, the smallest one found until then is shown."""

FIRST_HALF = 8
"""Events before and after the place where the search gave up, in the first part that is tried."""


def failure_of(search: Search, blocked: Blocked, shown: Sequence[Call]) -> Failure:
    """Return the smallest failing part found around the place where the search gave up.

    Args:
        search: the complete search that found it.
        blocked: what it found. The reason may come later, since the search looks ahead.
        shown: the calls as they were recorded; those of the search may have been simplified.
    """
    finder = _Finder(search)
    begin, end = finder.smallest(blocked.event)
    by_id = {call.id: call for call in shown}
    part = Part.of(search, begin, end)
    return Failure(
        window=tuple(by_id[call.id] for call in part.calls),
        blocked=by_id[search.calls[search.events[end].call].id],
        entry_states=tuple(search.kinds.model.described(search.kinds.states[state]) for state in part.entry),
        partials=_longest(part, by_id),
        complete=finder.found,
    )


class _Finder:
    """Tries parts of one search, with so much effort and no more."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.spent = 0
        self.found = True
        """Whether the part returned fails by itself."""

    def smallest(self, place: int) -> tuple[int, int]:
        """Return beginning and end of the part to show; if no failing one is soon found, what is just before `place`."""
        last = len(self.search.events) - 1
        half = FIRST_HALF
        begin, end = max(0, place - half), min(last, place + half)
        while not self.fails(begin, end):
            if (begin == 0 and end == last) or self.spent > EFFORT_SUM_MAX:
                self.found = False
                return max(0, place - FIRST_HALF), place
            half *= 2
            begin, end = max(0, place - half), min(last, place + half)
        end = _first(end, lambda earlier: self.fails(begin, earlier), begin)
        return -_first(-begin, lambda negative: self.fails(-negative, end), -end), end

    def fails(self, begin: int, end: int) -> bool:
        """Whether the part has no linearization, and that is soon found."""
        part = Part.of(self.search, begin, end)
        if not part.entry or self.spent > EFFORT_SUM_MAX:
            return False
        try:
            search, blocked = part.searched(ahead=True)
        except SearchExpired:
            self.spent += EFFORT_MAX
            return False
        self.spent += search.looked_at
        return blocked is not None


def _first(good: int, fails: Callable[[int], bool], bad: int) -> int:
    """Return the smallest number found that fails, between `bad`, which does not, and `good`, which does."""
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fails(middle) else (good, middle)
    return good


@dataclass(frozen=True, slots=True)
class Part:
    """Events from `begin` to `end` of a search, as a problem of its own."""

    search: Search
    calls: tuple[Call, ...]
    optional: frozenset[int]
    entry: tuple[int, ...]
    """Numbers of the states in which it may begin."""

    @staticmethod
    def of(search: Search, begin: int, end: int) -> Part:
        """Return the part; what returns after its end is open in it."""
        pending: dict[int, None] = {}
        for event in search.events[:begin]:
            if event.returns:
                del pending[event.call]
            else:
                pending[event.call] = None
        inside = search.events[begin : end + 1]
        numbers = [*pending, *(event.call for event in inside if not event.returns)]
        returned = {event.call for event in inside if event.returns}
        return Part(
            search,
            tuple(_until(search.calls[number], number in returned) for number in numbers),
            frozenset(place for place, number in enumerate(numbers) if number in pending),
            search.entries[begin] if begin < len(search.entries) else (),
        )

    def searched(self, ahead: bool) -> tuple[Search, Blocked | None]:
        """Search the part, looking ahead or not.

        Raises:
            SearchExpired: it took more than `EFFORT_MAX`.
        """
        states = [self.search.kinds.states[state] for state in self.entry]
        part = Search(self.search.kinds.model, self.calls, states, optional=self.optional)
        part.expired = lambda _: part.looked_at > EFFORT_MAX
        if not ahead:
            part.horizon = None
        return part, part.run()


def _until(call: Call, returned: bool) -> Call:
    return call if returned or call.end == OPEN else replace(call, end=OPEN)


def _longest(part: Part, by_id: dict[int, Call]) -> tuple[tuple[Step, ...], ...]:
    """Return the longest linearizations that lead up to the return that blocks the part; none if they are hard to find."""
    try:
        search, blocked = part.searched(ahead=False)
    except SearchExpired:
        return ()
    if blocked is None:
        return ()
    described, states = search.kinds.model.described, search.kinds.states
    orders: dict[tuple[int, ...], tuple[Step, ...]] = {}
    for configurations in blocked.before.values():
        for _, _, trail in configurations:
            order = placed(search, trail, blocked.event)
            orders[tuple(step.call for step in order)] = tuple(
                Step(by_id[search.calls[step.call].id], described(states[step.state])) for step in order
            )
    return tuple(sorted(orders.values(), key=len, reverse=True)[:PARTIALS_MAX])
