"""What the answers of the whole history say about the state at one moment: lookahead for the search.

A configuration that stands in another state there is lost, though it might go on for long; and where answers contradict each
other outright, no search is needed. The argument is that of zones (Gibbons & Korach, "Testing shared memories", 1997): if a
state can come about only once, one call that saw it has returned, and another that will see it has not begun, then the object
is in that state now.

Moments are positions: `p` is the time between the operation of index p and the next. Calls without an end may never have
happened and say nothing, but they may bring states about.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from kv_jepsen.history import OPEN, Call, Value


@dataclass(frozen=True, slots=True)
class Horizon:
    """What is known without a search.

    Attributes:
        possible: from (state, position) to whether the object may be in it then.
        contradiction: calls that cannot all have happened as they say; empty if none are found.
    """

    possible: Callable[[Value, int], bool]
    contradiction: tuple[Call, ...] = ()


@dataclass(slots=True)
class Zone:
    """When something was seen, by whom: until the last invocation, from the first return."""

    first: Call
    last: Call

    @staticmethod
    def of(call: Call) -> Zone:
        """One call saw it."""
        return Zone(call, call)

    def see(self, call: Call) -> None:
        """One more call saw it."""
        if call.end < self.first.end:
            self.first = call
        if call.start > self.last.start:
            self.last = call


@dataclass(frozen=True, slots=True)
class Calendar:
    """Which zones cover a position."""

    bounds: tuple[int, ...]
    inside: tuple[tuple[Value, ...], ...]
    """For each bound the names of the zones that cover the positions from it on, up to the next bound."""

    def at(self, position: int) -> tuple[Value, ...]:
        """Return the names of the zones that cover a position."""
        place = bisect_right(self.bounds, position) - 1
        return self.inside[place] if place >= 0 else ()

    def overlap(self) -> tuple[Value, ...]:
        """Return two names that cover one position; none if no two do."""
        return next((names[:2] for names in self.inside if len(names) > 1), ())


def calendar_of(zones: Iterable[tuple[Value, Zone]]) -> Calendar:
    """Return the calendar of the zones that cover something: from the first end to just before the last start."""
    changes: dict[int, list[tuple[Value, bool]]] = {}
    for name, zone in zones:
        if zone.first.end < zone.last.start:
            changes.setdefault(zone.first.end, []).append((name, True))
            changes.setdefault(zone.last.start, []).append((name, False))
    covering: dict[Value, None] = {}
    inside: list[tuple[Value, ...]] = []
    bounds = tuple(sorted(changes))
    for bound in bounds:
        for name, begins in changes[bound]:
            if begins:
                covering[name] = None
            else:
                del covering[name]
        inside.append(tuple(covering))
    return Calendar(bounds, tuple(inside))


def _overlapping(zones: dict[Value, Zone], calendar: Calendar) -> tuple[Call, ...]:
    """Return the calls of two zones of which only one can be."""
    return tuple(call for name in calendar.overlap() for call in (zones[name].first, zones[name].last))


def of_register(
    seen: Sequence[tuple[Value, Call]], made: Sequence[tuple[Value, Call]], entry: Sequence[Value]
) -> Horizon | None:
    """Return the horizon of an object whose states are values.

    Args:
        seen: values with the calls that certainly saw them: read, expected, or wrote them.
        made: values with the calls that made them, or may have; zones are of values made once.
        entry: what it may have been at first.
    """
    times = Counter([*entry, *(value for value, _ in made)])
    once = {value for value, number in times.items() if number == 1}
    zones: dict[Value, Zone] = {}
    for value, call in seen:
        if value in once and call.end != OPEN:
            zones.setdefault(value, Zone.of(call)).see(call)
    calendar = calendar_of(zones.items())
    contradiction = (
        _overlapping(zones, calendar)
        or _inside_another(seen, zones, calendar)
        or overwritten(seen, made, entry)
    )
    if not calendar.bounds and not contradiction:
        return None

    def possible(state: Value, position: int) -> bool:
        return all(state == value for value in calendar.at(position))

    return Horizon(possible, contradiction)


def overwritten(
    seen: Sequence[tuple[Value, Call]], made: Sequence[tuple[Value, Call]], entry: Sequence[Value]
) -> tuple[Call, ...]:
    """Return calls of which one saw a value that was gone, however often it had been made; none if there are none.

    A value is gone for a call if every call that could have made it had ended when another one began that certainly saw, or
    made, another value, and this one had ended when the call began. A value that nobody made is gone for all. Arguments are those
    of `of_register`.
    """
    makers = {value: _Makers() for value in entry}
    for value, call in sorted(made, key=lambda one: one[1].start):
        makers.setdefault(value, _Makers()).add(call)
    others = _Others([one for one in seen if one[1].end != OPEN])
    for value, call in seen:
        if call.end == OPEN:
            continue
        if value not in makers:
            return (call,)
        end, maker = makers[value].latest(call.end)
        other = others.latest(call.start, value)
        if other is not None and end < other.start:
            return (other, call) if maker is None else (maker, other, call)
    return ()


@dataclass(slots=True)
class _Makers:
    """The calls that make one value, by start, each with the one of those until it that ends last."""

    starts: list[int] = field(default_factory=list)
    last: list[Call] = field(default_factory=list)

    def add(self, call: Call) -> None:
        """One more, that begins later."""
        self.starts.append(call.start)
        self.last.append(call if not self.last or call.end > self.last[-1].end else self.last[-1])

    def latest(self, before: int) -> tuple[int, Call | None]:
        """Return when the last of those that began before a position ends, and which it is; the value was there at first if none did."""
        place = bisect_left(self.starts, before)
        return (self.last[place - 1].end, self.last[place - 1]) if place else (-1, None)


_Saw: TypeAlias = tuple[Value, Call]
"""A value, and a call that certainly saw it."""


def _latest_two(best: _Saw | None, second: _Saw | None, one: _Saw) -> tuple[_Saw, _Saw | None]:
    """Return, with one more, who began last, and who began last of those that saw another value than that."""
    if best is None:
        return one, None
    if one[1].start > best[1].start:
        return one, second if best[0] == one[0] else best
    if one[0] != best[0] and (second is None or one[1].start > second[1].start):
        return best, one
    return best, second


class _Others:
    """Who saw what, by end: of those until each the one that began last, and the one that did of those who saw another value."""

    def __init__(self, seen: Sequence[_Saw]) -> None:
        self._ends: list[int] = []
        self._last: list[tuple[_Saw, _Saw | None]] = []
        best: _Saw | None = None
        second: _Saw | None = None
        for one in sorted(seen, key=lambda one: one[1].end):
            best, second = _latest_two(best, second, one)
            self._ends.append(one[1].end)
            self._last.append((best, second))

    def latest(self, before: int, value: Value) -> Call | None:
        """Return the call that began last of those that ended before a position and saw another value."""
        place = bisect_left(self._ends, before)
        if not place:
            return None
        best, second = self._last[place - 1]
        if best[0] != value:
            return best[1]
        return None if second is None else second[1]


def _inside_another(
    seen: Iterable[tuple[Value, Call]], zones: dict[Value, Zone], calendar: Calendar
) -> tuple[Call, ...]:
    """Return a call that saw one value while another was there all the time, with the calls that say so."""
    for value, call in seen:
        for name in calendar.at(call.start):
            zone = zones[name]
            if name != value and call.end < zone.last.start:
                return zone.first, call, zone.last
    return ()


@dataclass(slots=True)
class _Bounds:
    """Sizes that were seen: at least so much after a return, at most so much before an invocation."""

    ends: list[tuple[int, int]] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    calls: list[tuple[Call, int, int]] = field(default_factory=list)

    def see(self, call: Call, least: int, most: int) -> None:
        """One more call saw it: at least `least` after it, at most `most` before it."""
        self.ends.append((call.end, least))
        self.starts.append((call.start, most))
        self.calls.append((call, least, most))

    def settle(self) -> None:
        """Make the sizes running maxima of what has ended, running minima of what has not begun."""
        self.ends.sort()
        self.starts.sort()
        most = -1
        for place, (position, size) in enumerate(self.ends):
            most = max(most, size)
            self.ends[place] = (position, most)
        least = OPEN
        for place in range(len(self.starts) - 1, -1, -1):
            position, size = self.starts[place]
            least = min(least, size)
            self.starts[place] = (position, least)

    def at(self, position: int) -> tuple[int, int]:
        """Return the least and the greatest size possible at a position."""
        ended = bisect_right(self.ends, (position, OPEN))
        begun = bisect_left(self.starts, (position + 1, -1))
        least = self.ends[ended - 1][1] if ended else -1
        return least, self.starts[begun][1] if begun < len(self.starts) else OPEN

    def contradiction(self) -> tuple[Call, ...]:
        """Return a call that saw less than another one that had ended before it began, after that one."""
        for call, _, most in self.calls:
            if self.at(call.start - 1)[0] > most:
                before = max((one for one in self.calls if one[0].end < call.start), key=lambda one: one[1])
                return before[0], call
        return ()


def of_growing(seen: Iterable[tuple[Call, int, int]], size: Callable[[Value], int]) -> Horizon:
    """Return the horizon of an object whose size never shrinks.

    Args:
        seen: calls with the least size after their return, and the greatest before their invocation.
        size: of a state.
    """
    bounds = _Bounds()
    for call, least, most in seen:
        if call.end != OPEN:
            bounds.see(call, least, most)
    bounds.settle()

    def possible(state: Value, position: int) -> bool:
        least, most = bounds.at(position)
        return least <= size(state) <= most

    return Horizon(possible, bounds.contradiction())


def of_strings(
    results: Sequence[tuple[str, Call]],
    begun: Iterable[str],
    appended: Iterable[str],
    puts: Sequence[tuple[str, Call]] = (),
) -> Horizon | None:
    """Return the horizon of a string that is put anew or appended to.

    Args:
        results: what gets returned.
        begun: strings with which it may have begun to grow: those put, and what it may have been at first. A result that
            can continue two of them says nothing.
        appended: what may have been appended.
        puts: strings with the calls that certainly put them.
    """
    known = list(_with_origin(results, Counter(begun), frozenset(appended)))
    zones: dict[Value, Zone] = {}
    grown: dict[Value, _Bounds] = {}
    for origin, text, call in known:
        zones.setdefault(origin, Zone.of(call)).see(call)
        grown.setdefault(origin, _Bounds()).see(call, len(text), len(text))
    for bounds in grown.values():
        bounds.settle()
    calendar = calendar_of(zones.items())

    def possible(state: Value, position: int) -> bool:
        return all(
            isinstance(state, str)
            and state.startswith(str(origin))
            and _between(len(state), grown[origin], position)
            for origin in calendar.at(position)
        )

    shrunk = next((calls for bounds in grown.values() if (calls := bounds.contradiction())), ())
    seen = [*((origin, call) for origin, _, call in known), *puts]
    contradiction = (
        _overlapping(zones, calendar) or _forked(known) or shrunk or _inside_another(seen, zones, calendar)
    )
    return Horizon(possible, contradiction) if calendar.bounds or contradiction else None


def _with_origin(
    results: Sequence[tuple[str, Call]], begun: Counter[str], appended: frozenset[str]
) -> Iterable[tuple[str, str, Call]]:
    """Yield the results that can have grown from one beginning only, with that."""
    lengths = sorted({len(text) for text in begun})
    steps = sorted({len(text) for text in appended})

    def grows(text: str, length: int) -> bool:
        return len(text) == length or any(text[length : length + step] in appended for step in steps)

    for text, call in results:
        origins = [
            text[:length]
            for length in lengths
            if length <= len(text) and text[:length] in begun and grows(text, length)
        ]
        if call.end != OPEN and len(origins) == 1 and begun[origins[0]] == 1:
            yield origins[0], text, call


def _forked(known: Sequence[tuple[str, str, Call]]) -> tuple[Call, ...]:
    """Return two results that grew from the same beginning, of which none continues the other."""
    latest: dict[str, tuple[str, Call]] = {}
    for origin, text, call in sorted(known, key=lambda one: len(one[1])):
        shorter = latest.get(origin)
        if shorter is not None and not text.startswith(shorter[0]):
            return shorter[1], call
        latest[origin] = text, call
    return ()


def _between(size: int, bounds: _Bounds, position: int) -> bool:
    least, most = bounds.at(position)
    return least <= size <= most
