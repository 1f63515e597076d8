"""A queue: is every element that went in taken out exactly once?

Pure, and without regard to order, as Jepsen's `total-queue`. Calls are `enqueue` of an element, `dequeue` (the element;
None if the queue was empty) and `drain` (all that was left, as a list). Keys are one queue each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from kv_jepsen.checkers.finding import CheckResult, Finding, judged
from kv_jepsen.history import Call, Outcome, Value

_In = dict[Value, list[Call]]


def total_queue(calls: Sequence[Call]) -> CheckResult:
    """Lost, duplicated and unexpected elements; lost ones can be told only after the queue was emptied."""
    parts: dict[Value, list[Call]] = {}
    for call in calls:
        parts.setdefault(call.key, []).append(call)
    findings: list[Finding] = []
    counts: Counter[str] = Counter({"enqueued": 0, "dequeued": 0, "lost": 0, "recovered": 0})
    emptied = True
    for part in parts.values():
        emptied = _judge(part, findings, counts) and emptied
    reason = (
        "" if emptied else "the queue was not emptied at the end, so what was not taken may still be in it"
    )
    return judged("queue", findings, dict(counts), reason)


def _judge(calls: Sequence[Call], findings: list[Finding], counts: Counter[str]) -> bool:
    """Judge one queue; returns whether it was emptied after the last enqueue."""
    into: _In = {}
    for call in calls:
        if call.f == "enqueue":
            into.setdefault(call.input, []).append(call)
    out = _taken(calls)
    findings += _unexpected(into, out)
    findings += _duplicated(into, out)
    emptied = _emptied_at(calls) > max((c.end for group in into.values() for c in group if c.ok), default=-1)
    lost = list(_lost(into, out)) if emptied else []
    # A dequeue whose answer was lost may have taken an element with it.
    swallowed = sum(call.f in {"dequeue", "drain"} and call.outcome is Outcome.UNKNOWN for call in calls)
    may_be_gone = any(call.f == "drain" and call.outcome is Outcome.UNKNOWN for call in calls)
    if len(lost) > swallowed and not may_be_gone:
        findings += lost
        counts["lost"] += len(lost)
    elif lost:
        counts["perhaps_lost"] += len(lost)
    counts["enqueued"] += sum(call.ok for group in into.values() for call in group)
    counts["dequeued"] += sum(len(takes) for takes in out.values())
    counts["recovered"] += sum(e in out and not any(c.ok for c in group) for e, group in into.items())
    return emptied


def _taken(calls: Iterable[Call]) -> dict[Value, list[Call]]:
    """Each element to the calls that took it out, once for each time."""
    out: dict[Value, list[Call]] = {}
    for call in calls:
        if call.ok and call.f == "dequeue" and call.output is not None:
            out.setdefault(call.output, []).append(call)
        elif call.ok and call.f == "drain":
            for element in _drained(call):
                out.setdefault(element, []).append(call)
    return out


def _drained(call: Call) -> tuple[Value, ...]:
    if not isinstance(call.output, tuple):
        raise ValueError(f"operation {call.id}: a drain must return a list, not {call.output!r}")
    return call.output


def _emptied_at(calls: Iterable[Call]) -> int:
    """The start of the last call that left the queue empty; -1 if there is none."""
    empty = [c.start for c in calls if c.ok and (c.f == "drain" or (c.f == "dequeue" and c.output is None))]
    return max(empty, default=-1)


def _unexpected(into: _In, out: dict[Value, list[Call]]) -> Iterator[Finding]:
    for element, takes in out.items():
        puts = [put for put in into.get(element, ()) if put.outcome is not Outcome.FAILED]
        first = min(takes, key=lambda call: call.end)
        if not puts:
            failed = [put.id for put in into.get(element, ())]
            why = "its enqueue failed" if failed else "nobody enqueued it"
            yield Finding("unexpected", f"{element} was taken out, but {why}.", (first.id, *failed))
        elif first.end < min(put.start for put in puts):
            why = f"{element} was taken out before its enqueue began."
            yield Finding("unexpected", why, (first.id, puts[0].id))


def _duplicated(into: _In, out: dict[Value, list[Call]]) -> Iterator[Finding]:
    for element, takes in out.items():
        puts = [put for put in into.get(element, ()) if put.outcome is not Outcome.FAILED]
        if puts and len(takes) > len(puts):
            why = f"{element} was taken out {len(takes)} times and enqueued {len(puts)} times at most."
            yield Finding("duplicated", why, tuple(call.id for call in [*puts, *takes]))


def _lost(into: _In, out: dict[Value, list[Call]]) -> Iterator[Finding]:
    for element, puts in into.items():
        acknowledged = [put for put in puts if put.ok]
        if len(out.get(element, ())) < len(acknowledged):
            why = f"{element} was acknowledged, the queue was emptied after that, and nobody got it."
            yield Finding("lost", why, tuple(put.id for put in acknowledged))
