"""A counter: does each read lie between what must and what may have been added?

Pure. Calls are `add` of a number, `read`, and `add_get`, which adds and returns the sum; keys are judged apart. Where replies carry the index of the log entry
(`index` in the evidence), a read must be exactly the sum of the adds up to its own index.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from kv_jepsen.checkers.finding import CheckResult, Finding, judged
from kv_jepsen.history import Call, Outcome, Value

ADDS: Final = frozenset({"add", "add_get"})
READS: Final = frozenset({"read", "add_get"})


class _Sums:
    """Sums of amounts up to a position."""

    def __init__(self, amounts: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(amounts)
        self._positions = [position for position, _ in ordered]
        self._sums = [0, *accumulate(amount for _, amount in ordered)]

    def before(self, position: int) -> int:
        return self._sums[bisect_left(self._positions, position)]

    def upto(self, position: int) -> int:
        return self._sums[bisect_right(self._positions, position)]


def counter(calls: Sequence[Call]) -> CheckResult:
    """Each read within the bounds of real time, and exact where the evidence allows it."""
    findings: list[Finding] = []
    exact = reads = 0
    for part in _by_key(calls):
        numbers = [call for call in part if call.f in READS and call.ok]
        reads += len(numbers)
        bounded = _Bounds(part)
        by_index = _ByIndex(part)
        for read in numbers:
            value = _number(read, read.output)
            findings += bounded.judge(read, value)
            if by_index.applies(read):
                exact += 1
                findings += by_index.judge(read, value)
    counts = {"reads": reads, "exact_reads": exact, "adds": sum(call.f in ADDS for call in calls)}
    return judged("counter", findings, counts, "" if reads else "no read completed")


def _by_key(calls: Iterable[Call]) -> list[list[Call]]:
    parts: dict[Value, list[Call]] = {}
    for call in calls:
        parts.setdefault(call.key, []).append(call)
    return list(parts.values())


def _number(call: Call, value: Value) -> int:
    """A number of the history; None, of a counter that is not there yet, is 0."""
    if value is None:
        return 0
    if not isinstance(value, int):
        raise ValueError(f"operation {call.id}: {call.f} of a counter must have an integer, not {value!r}")
    return value


class _Bounds:
    """What a read may return by real time alone.

    Lowest: what was added for certain before it began, and every subtraction begun before it ended. Highest: the
    other way round.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        adds = [(call, _number(call, call.input)) for call in calls if call.f in ADDS]
        possible = [(call, amount) for call, amount in adds if call.outcome is not Outcome.FAILED]
        certain = [(call, amount) for call, amount in possible if call.ok]
        self._certain_up = _Sums((call.end, amount) for call, amount in certain if amount > 0)
        self._certain_down = _Sums((call.end, amount) for call, amount in certain if amount < 0)
        self._possible_up = _Sums((call.start, amount) for call, amount in possible if amount > 0)
        self._possible_down = _Sums((call.start, amount) for call, amount in possible if amount < 0)

    def judge(self, read: Call, value: int) -> Iterable[Finding]:
        low = self._certain_up.before(read.start) + self._possible_down.before(read.end)
        high = self._possible_up.before(read.end) + self._certain_down.before(read.start)
        own = _number(read, read.input) if read.f in ADDS else 0  # what it adds itself is in its answer
        low, high = low + max(own, 0), high + min(own, 0)
        if not low <= value <= high:
            why = f"A read returned {value}, but by what was added before and during it, it must be {low} to {high}."
            yield Finding("out-of-bounds", why, (read.id,))


class _ByIndex:
    """What a read must return by its index in the log."""

    def __init__(self, calls: Iterable[Call]) -> None:
        adds = [(call, _number(call, call.input)) for call in calls if call.f in ADDS]
        applied = [(call, amount) for call, amount in adds if call.ok]
        self._complete = all(isinstance(call.extra.get("index"), int) for call, _ in applied)
        self._applied = _Sums((_index(call), amount) for call, amount in applied if self._complete)
        unknown = [(call.start, amount) for call, amount in adds if call.outcome is Outcome.UNKNOWN]
        self._up = _Sums((start, amount) for start, amount in unknown if amount > 0)
        self._down = _Sums((start, amount) for start, amount in unknown if amount < 0)

    def applies(self, read: Call) -> bool:
        return self._complete and isinstance(read.extra.get("index"), int)

    def judge(self, read: Call, value: int) -> Iterable[Finding]:
        base = self._applied.upto(_index(read))
        low, high = base + self._down.before(read.end), base + self._up.before(read.end)
        if not low <= value <= high:
            must = str(low) if low == high else f"{low} to {high}"
            why = f"A read at index {_index(read)} returned {value}; the adds up to that index give {must}."
            yield Finding("inexact", why, (read.id,))


def _index(call: Call) -> int:
    index = call.extra.get("index")
    assert isinstance(index, int), "asked for only where there is one"
    return index
