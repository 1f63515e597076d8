"""From the steps of a search to a linearization: where the calls that vanished without a trace have their place.

The search leaves out calls that change nothing where they are put; here they are put back, so that the order can be drawn,
and checked by whoever does not trust the search.
"""

from __future__ import annotations

from dataclasses import dataclass

from kv_jepsen.search import Search, Trail


@dataclass(frozen=True, slots=True)
class Placed:
    """A call (by its number in the search) at its place, and the number of the state after it."""

    call: int
    state: int


@dataclass(frozen=True, slots=True)
class _Gap:
    """The time between two steps: from (return) event `begin` to (return) event `end`, in `state`."""

    begin: int
    end: int
    state: int
    blind: bool
    """Whether the step that ends it overwrites blindly."""


def placed(search: Search, trail: Trail, until: int) -> list[Placed]:
    """Return all calls that have taken effect before the end of event `until`, in order.

    Args:
        search: that made the trail.
        trail: of one of its configurations.
        until: number of the event before which the configuration stood; the number of all events at the end.
    """
    steps, gaps = _walk(search, trail, until)
    used = {call for call, _ in steps}
    filled: list[list[tuple[bool, int]]] = [[] for _ in gaps]
    spans = _spans(search)
    for call, (start, end) in spans.items():
        if call not in used and call not in search.optional and end < until:
            place, absorbed = _gap_for(search, call, start, end, gaps)
            filled[place].append((absorbed, call))
    order: list[Placed] = []
    for number, gap in enumerate(gaps):
        order += [Placed(call, gap.state) for _, call in sorted(filled[number])]
        if number < len(steps):
            order.append(Placed(*steps[number]))
    return order


def _walk(search: Search, trail: Trail, until: int) -> tuple[list[tuple[int, int]], list[_Gap]]:
    """Return the steps (call, state after) and the gaps before, between and after them."""
    taken: list[tuple[int, int]] = []
    before, number, event = trail
    while before is not None:
        taken.append((number, event))
        before, number, event = before
    state, begin = number, event
    steps: list[tuple[int, int]] = []
    gaps: list[_Gap] = []
    for call, event in reversed(taken):
        kind = search.kind[call]
        gaps.append(_Gap(begin, event, state, kind.blind))
        state, begin = search.kinds.next(state, kind.number), event
        steps.append((call, state))
    gaps.append(_Gap(begin, until, state, blind=False))
    return steps, gaps


def _spans(search: Search) -> dict[int, tuple[int, int]]:
    """Return the events of invocation and return of each call that returned, by start."""
    starts: dict[int, int] = {}
    spans: dict[int, tuple[int, int]] = {}
    for number, event in enumerate(search.events):
        if event.returns:
            spans[event.call] = (starts[event.call], number)
        else:
            starts[event.call] = number
    return dict(sorted(spans.items()))


def _gap_for(search: Search, call: int, start: int, end: int, gaps: list[_Gap]) -> tuple[int, bool]:
    """Return the first gap in which the call leaves no trace, and whether because an overwrite follows."""
    kind = search.kind[call]
    for number, gap in enumerate(gaps):
        if start < gap.end and end >= gap.begin and search.kinds.next(gap.state, kind.number) == gap.state:
            return number, False
        if kind.total and gap.blind and start < gap.end <= end:
            return number, True
    raise AssertionError(f"call {call} has vanished where it leaves a trace: the search is wrong")
