"""A linearization of a register whose values were each made once, in one pass and without a search. Pure.

Where every value that somebody saw was made by one call, who wrote what each call saw is known. A value with those who saw it, and the values
that compare-and-set made of it one after another, is a block that nothing can come into. Blocks are ordered by
their zones (Gibbons & Korach, "Testing shared memories", 1997): one must be before another if one of its calls
ended before a call of the other began, and if no two blocks must each be before the other, the sides of the zones tell an order.

What comes out is a proposal: `linearizable` replays it before it believes it. So histories that fit no such order cost one pass and are searched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate

from kv_jepsen.history import OPEN, Call, Value
from kv_jepsen.model import UNKNOWN, two

FIRST = -1
"""Before every position."""
ROUNDS_MAX = 4
"""So often blocks are ordered anew, after refused calls that found no place between them were put into some."""
HOUSES_MAX = 32
"""Blocks that are tried for such a call."""


@dataclass(slots=True)
class _Held:
    """A value that the register held: who made it (None: it was there at first), saw it, and replaced it on condition."""

    maker: Call | None
    seen: list[Call] = field(default_factory=list)
    next: Call | None = None


class _Unfit(Exception):
    """The history is not of this kind."""


def order_by_blocks(calls: Sequence[Call], first: Value) -> list[Call] | None:
    """Return an order of the calls that have taken effect; None if a value that somebody saw was made twice, or nothing fits.

    Args:
        calls: reads, writes and compare-and-sets that take part; a refused one has the output False.
        first: the value before the first call.
    """
    try:
        held = _held(calls, first)
        blocks = [_block(value, held) for value, one in held.items() if _begins(one)]
    except _Unfit:
        return None
    seen = {call.id for block in blocks for call in block}
    blocks += [[call] for call in calls if call.f == "write" and call.end != OPEN and call.id not in seen]
    refused = [call for call in calls if _refused(call)]
    first_block = held.get(first)
    for _ in range(ROUNDS_MAX):
        blocks.sort(key=lambda block: _place(block, first_block))
        order = [call for block in blocks for call in block]
        gaps, homeless = _gaps(order, refused, first)
        if not homeless:
            return _merged(order, gaps)
        if not all(_housed(call, blocks) for call in homeless):
            return None
        housed = {call.id for call in homeless}
        refused = [call for call in refused if call.id not in housed]
    return None


def _refused(call: Call) -> bool:
    return call.f == "cas" and call.output is False


def _replaces(call: Call) -> bool:
    """Whether it is a compare-and-set that may have changed the value."""
    return call.f == "cas" and call.output is not False


def _begins(held: _Held) -> bool:
    """Whether a block begins with the value: it was written, or there at first."""
    return held.maker is None or held.maker.f == "write"


def _held(calls: Sequence[Call], first: Value) -> dict[Value, _Held]:
    """Return the values that somebody saw, with whom they concern. Raises `_Unfit` if one has not one maker."""
    values = _Values(_makers(calls, first))
    for call in calls:
        if call.f == "read":
            values.hold(call.output).seen.append(call)
        elif _replaces(call) and call.output is not UNKNOWN:
            values.replace(call)
    return values.held


def _makers(calls: Sequence[Call], first: Value) -> dict[Value, list[Call | None]]:
    """Who may have made each value; None stands for its having been there at first."""
    makers: dict[Value, list[Call | None]] = {first: [None]}
    for call in calls:
        if call.f == "write" or _replaces(call):
            makers.setdefault(call.input if call.f == "write" else two(call.input)[1], []).append(call)
    return makers


@dataclass(slots=True)
class _Values:
    """The values that somebody saw."""

    makers: dict[Value, list[Call | None]]
    held: dict[Value, _Held] = field(default_factory=dict)

    def hold(self, value: Value) -> _Held:
        """Somebody saw it, so the one that made it has happened."""
        if value not in self.held:
            by = self.makers.get(value, [])
            if len(by) != 1:
                raise _Unfit
            (maker,) = by
            self.held[value] = _Held(maker)
            if maker is not None and maker.f == "cas":
                self.replace(maker)
        return self.held[value]

    def replace(self, call: Call) -> None:
        """A compare-and-set has happened: it saw what it expected, and nothing else came after that."""
        one = self.hold(two(call.input)[0])
        if one.next is not None and one.next.id != call.id:
            raise _Unfit
        one.next = call


def _block(value: Value, held: dict[Value, _Held]) -> list[Call]:
    """The calls of a block in order. Raises `_Unfit` if it comes back to a value."""
    begun = held[value]
    block = [] if begun.maker is None else [begun.maker]
    passed: set[Value] = set()
    one: _Held | None = begun
    while one is not None:
        if value in passed:
            raise _Unfit
        passed.add(value)
        block += sorted(one.seen, key=lambda call: call.start)
        if one.next is None:
            break
        block.append(one.next)
        value = two(one.next.input)[1]
        one = held.get(value)
    return block


def _place(block: Sequence[Call], first: _Held | None) -> int:
    """Where a block stands among the others: the nearer side of its zone; the one of the first value is before all."""
    if not block or (first is not None and block[0] in (*first.seen[:1], first.next)):
        return FIRST
    return min(_zone(block))


def _gaps(
    order: Sequence[Call], refused: Sequence[Call], first: Value
) -> tuple[list[list[Call]], list[Call]]:
    """Put each refused compare-and-set before a call where its time allows it and another value was there; those without a place."""
    begun = list(accumulate((call.start for call in order), max))
    ending = list(accumulate((call.end for call in reversed(order)), min))[::-1]
    states = [first]
    for call in order:
        states.append(_after(states[-1], call))
    gaps: list[list[Call]] = [[] for _ in states]
    homeless: list[Call] = []
    ended: list[tuple[int, int]] = []
    least = 0
    for call in refused:
        while ended and ended[0][0] < call.start:
            least = max(least, heappop(ended)[1])
        expected = two(call.input)[0]
        low, high = max(least, bisect_right(ending, call.start)), bisect_right(begun, call.end)
        gap = next((one for one in range(low, high + 1) if states[one] != expected), None)
        if gap is None:
            homeless.append(call)
        else:
            gaps[gap].append(call)
            heappush(ended, (call.end, gap))
    return gaps, homeless


def _merged(order: Sequence[Call], gaps: Sequence[Sequence[Call]]) -> list[Call]:
    """The order with what is in the gaps, the last of which is behind it."""
    return [*(one for gap, call in zip(gaps, order, strict=False) for one in (*gap, call)), *gaps[-1]]


def _housed(refused: Call, blocks: Sequence[list[Call]]) -> bool:
    """Put a refused compare-and-set into a block of other values that it may be in without a conflict; whether there is one."""
    expected = two(refused.input)[0]
    near = [
        block
        for block in blocks
        if block and block[0].start < refused.end and max(_zone(block)) > refused.start
    ]
    zones = [(block, *_zone(block)) for block in blocks if block]
    for block in near[:HOUSES_MAX]:
        if any(
            _after(None, call) == expected or (call.f == "read" and call.output == expected) for call in block
        ):
            continue
        end, start = _zone([*block, refused])
        if any(end < s and e < start for other, e, s in zones if other is not block):
            continue
        place = max((number for number, call in enumerate(block) if call.end < refused.start), default=0)
        block.insert(place + 1, refused)
        return True
    return False


def _zone(block: Sequence[Call]) -> tuple[int, int]:
    """The first end and the last start of its calls."""
    return min(call.end for call in block), max(call.start for call in block)


def _after(state: Value, call: Call) -> Value:
    """The value after a call that has taken effect."""
    if call.f == "write":
        return call.input
    return two(call.input)[1] if _replaces(call) else state
