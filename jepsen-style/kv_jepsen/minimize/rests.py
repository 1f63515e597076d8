"""What an answer rests upon, so that a history can be made smaller without making anything up. Pure.

Leaving a write out of a history would leave the read that returned it without a cause, and every checker would complain of
that read: the smallest "failing" history would always be one read. So calls are left out by rules under which
**a correct history stays correct**: what a smaller history is accused of, the whole one is guilty of.

- A call that changes nothing can always be left out.
- `by_value` (registers): an answer needs every call that may have set the value it saw. That is one that began before the
  answer came, and was not certainly overwritten before the question was asked. A refused compare-and-set saw some other value: it
  needs every call that may have been the last one. An answer from before all that is possible needs the last call that set it.
- `by_substring` (strings that grow): the same, for calls whose text is in the answer.
- `by_element` (sets, lists, queues): an element that is left out is taken out of all answers; the rest is what the same
  cluster would have answered without it.
- `by_everything`: an answer needs all changes that began before it came.
- `by_nothing`: for checkers that compare answers with each other only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final, TypeAlias

from kv_jepsen.history import Call, Outcome, Value

Keep: TypeAlias = Callable[[Collection[int]], list[Call]]
"""Takes the numbers (`Call.id`) of calls to keep; returns those that can stay, in order, their answers adapted."""

Rule: TypeAlias = Callable[[Sequence[Call]], Keep]
"""Takes all calls of a history."""

_READS: Final = frozenset({"read", "get"})
_BLIND: Final = frozenset({"add"})
"""Functions whose answer says nothing of the object, of those that `by_everything` is for."""


def by_nothing(calls: Sequence[Call]) -> Keep:
    """See the first lines of this file."""
    return _keeping(calls, {})


def by_everything(calls: Sequence[Call]) -> Keep:
    """See the first lines of this file."""
    needs: dict[int, list[int]] = {}
    for part in _by_key(calls):
        changes = [call for call in part if _may_change(call)]
        for call in part:
            if call.f not in _BLIND:
                needs[call.id] = [c.id for c in changes if c.start < call.end and c.id != call.id]
    return _keeping(calls, needs)


def by_value(calls: Sequence[Call]) -> Keep:
    """See the first lines of this file."""
    needs: dict[int, list[int]] = {}
    for part in _by_key(calls):
        set_by = [(call, _sets(call)) for call in part if _may_set(call)]
        certain = _Overwrites(call for call, _ in set_by if call.ok)
        for call in part:
            seen = _sees(call)
            if seen is not _NOTHING:
                setters = [other for other, value in set_by if seen is _ANOTHER or value == seen]
                needs[call.id] = _causes(setters, call, certain)
    return _keeping(calls, needs)


_NOTHING: Final = object()
"""In the place of a value: the call says nothing about it."""
_ANOTHER: Final = object()
"""In the place of a value: any but the expected one."""


def _sees(call: Call) -> object:
    """The value that a call of a register has seen, if it took effect."""
    if call.f == "cas":
        refused = call.output is False if call.ok else call.outcome is Outcome.FAILED
        if refused:
            return _ANOTHER if call.error is None else _NOTHING
        return call.input[0] if isinstance(call.input, tuple) else _NOTHING
    return call.output if call.f in _READS and call.ok else _NOTHING


def _sets(call: Call) -> Value:
    if call.f == "cas":
        return call.input[1] if isinstance(call.input, tuple) else None
    return None if call.f == "delete" else call.input


def _may_change(call: Call) -> bool:
    return call.f not in _READS and call.outcome is not Outcome.FAILED


def _may_set(call: Call) -> bool:
    return _may_change(call) and not (call.f == "cas" and call.output is False)


class _Overwrites:
    """Calls of one key that have certainly set its value."""

    def __init__(self, calls: Iterable[Call]) -> None:
        ordered = sorted(calls, key=lambda call: call.end)
        self._ends = [call.end for call in ordered]
        self._latest_starts = list(accumulate((call.start for call in ordered), max))

    def may_be_last(self, setter: Call, call: Call) -> bool:
        """Whether what `setter` left may be what `call` saw: none of these lies wholly between the two."""
        if setter.id == call.id or setter.start > call.end:
            return False
        before = bisect_left(self._ends, call.start)
        return not before or self._latest_starts[before - 1] < setter.end


def _causes(setters: Sequence[Call], call: Call, certain: _Overwrites) -> list[int]:
    """What an answer needs of those that can have made it.

    Where all of them were certainly overwritten the answer is wrong whatever is left out. Then it needs the last one, so that
    people see where it came from.
    """
    needed = [other.id for other in setters if certain.may_be_last(other, call)]
    return needed or [other.id for other in setters if other.id != call.id and other.start < call.end][-1:]


def by_substring(calls: Sequence[Call]) -> Keep:
    """See the first lines of this file."""
    needs: dict[int, list[int]] = {}
    for part in _by_key(calls):
        changes = [call for call in part if _may_change(call)]
        certain = _Overwrites(call for call in changes if call.f == "put" and call.ok)
        for call in part:
            if call.f in _READS and call.ok:
                seen = _text(call.output)
                parts = [other for other in changes if _text(other.input) in seen]
                needs[call.id] = _causes(parts, call, certain)
    return _keeping(calls, needs)


def _text(value: Value) -> str:
    return "" if value is None else str(value)


# ------------------------------------------------------------------ elements

_TOUCHES: Final = frozenset({"add", "append", "enqueue", "remove"})
_Element: TypeAlias = tuple[Value, Value]
"""Key and element."""


def by_element(calls: Sequence[Call]) -> Keep:
    """See the first lines of this file."""
    touched: dict[_Element, list[int]] = {}
    for call in calls:
        for element in _touched(call):
            touched.setdefault(element, []).append(call.id)

    needs = _removals(calls)

    def keep(kept: Collection[int]) -> list[Call]:
        # Calls that touched one element go together: nobody knows whose an answer saw.
        staying = set(kept)
        while True:
            gone = {call for ids in touched.values() if not staying.issuperset(ids) for call in ids}
            gone |= {call for call in staying if not staying.issuperset(needs.get(call, ()))}
            if not gone & staying:
                break
            staying -= gone
        erased = {element for element, ids in touched.items() if not staying.issuperset(ids)}
        return [_without(call, erased) for call in calls if call.id in staying]

    return keep


def _removals(calls: Sequence[Call]) -> dict[int, list[int]]:
    """What answers of a queue need: the calls before that took out nobody knows what, or everything."""
    needs: dict[int, list[int]] = {}
    for part in _by_key(calls):
        takes = [c for c in part if _may_change(c) and (c.f == "drain" or (c.f == "dequeue" and not c.ok))]
        for call in part if takes else ():
            if call.f in {"dequeue", "drain", "read"} and call.ok:
                needs[call.id] = [one.id for one in takes if one.start < call.end and one.id != call.id]
    return needs


def _touched(call: Call) -> list[_Element]:
    """The elements that a call adds or takes out."""
    if call.f == "txn" and isinstance(call.input, tuple):
        return [(step[1], step[2]) for step in call.input if _is_append(step)]
    if call.f == "dequeue":
        return [(call.key, call.output)] if call.ok and call.output is not None else []
    return [(call.key, call.input)] if call.f in _TOUCHES else []


def _is_append(step: Value) -> bool:
    return isinstance(step, tuple) and len(step) == 3 and step[0] == "append"


def _without(call: Call, erased: Collection[_Element]) -> Call:
    """The call with an answer that lacks the erased elements."""
    if call.f == "txn" and isinstance(call.output, tuple):
        return replace(call, output=tuple(_step_without(step, erased) for step in call.output))
    if call.f in {"read", "drain"} and call.ok:
        return replace(call, output=_list_without(call.key, call.output, erased))
    return call


def _step_without(step: Value, erased: Collection[_Element]) -> Value:
    if isinstance(step, tuple) and len(step) == 3 and not _is_append(step):
        return (step[0], step[1], _list_without(step[1], step[2], erased))
    return step


def _list_without(key: Value, held: Value, erased: Collection[_Element]) -> Value:
    if isinstance(held, tuple):
        return tuple(one for one in held if (key, one) not in erased)
    if isinstance(held, frozenset):
        return frozenset(one for one in held if (key, one) not in erased)
    return held


# ------------------------------------------------------------------ what they have in common


def _by_key(calls: Iterable[Call]) -> Iterable[list[Call]]:
    parts: dict[Value, list[Call]] = {}
    for call in calls:
        parts.setdefault(call.key, []).append(call)
    return parts.values()


def _keeping(calls: Sequence[Call], needs: Mapping[int, Collection[int]]) -> Keep:
    """Calls stay without those that lack something they need, and those that need these, and so on."""

    def keep(kept: Collection[int]) -> list[Call]:
        staying = set(kept)
        while gone := {call for call in staying if not staying.issuperset(needs.get(call, ()))}:
            staying -= gone
        return [call for call in calls if call.id in staying]

    return keep


RULES: Final[Mapping[str, Rule]] = {
    "register": by_value,
    "delete": by_value,
    "kv": by_substring,
    "append": by_element,
    "set": by_element,
    "queue": by_element,
    "counter": by_everything,
    "lock": by_everything,
    "watch": by_nothing,
    "bank": by_nothing,
    "ids": by_nothing,
}
"""The rule for each workload of `judge`."""
