"""Revisions that only grow: in real time for each key, one write for each revision, one value for each revision.

Pure. Needs the evidence `revision`: for a write the revision it made, for a read that of the value it returned.
What one process sees in its own order is judged in `kv_jepsen.checkers.session`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from kv_jepsen.checkers.evidence import LINEARIZABLE_LEVELS, is_read, is_write, level, number
from kv_jepsen.checkers.finding import CheckResult, Finding, judged
from kv_jepsen.history import Call, Value


def monotonic(calls: Sequence[Call], levels: Collection[str] = LINEARIZABLE_LEVELS) -> CheckResult:
    """Of each key: no linearizable call goes back, writes go forward, and a revision is one write and one value.

    Args:
        calls: of the whole history.
        levels: read levels that are held to be linearizable.
    """
    parts: dict[Value, list[Call]] = {}
    for call in calls:
        if (is_write(call) or (is_read(call) and call.ok)) and number(call, "revision") is not None:
            parts.setdefault(call.key, []).append(call)
    findings: list[Finding] = []
    for key, part in parts.items():
        strong = [call for call in part if is_write(call) or level(call) in levels]
        findings += _going_back(key, strong)
        findings += _shared_revisions(key, part)
        findings += _two_values(key, part)
    judged_calls = sum(map(len, parts.values()))
    counts = {"calls": judged_calls, "keys": len(parts)}
    return judged("monotonic", findings, counts, "" if judged_calls else "no reply carries a revision")


def _revision(call: Call) -> int:
    revision = number(call, "revision")
    assert revision is not None, "calls without one were left out"
    return revision


def _going_back(key: Value, calls: Iterable[Call]) -> Iterator[Finding]:
    """Calls with a revision below one that had been answered before they began."""
    events = sorted(
        [(call.start, 0, call) for call in calls] + [(call.end, 1, call) for call in calls], key=_place
    )
    newest: Call | None = None
    before: dict[int, Call | None] = {}
    for _, is_end, call in events:
        if not is_end:
            before[call.id] = newest
            continue
        earlier = before.pop(call.id)
        if earlier is not None:
            behind = _revision(call) - _revision(earlier)
            if behind < 0 or (behind == 0 and is_write(call)):
                yield Finding(
                    "went-back",
                    f"{call.f} of {key} has revision {_revision(call)}, but an answer before it began"
                    f" had {_revision(earlier)}.",
                    (earlier.id, call.id),
                )
        if newest is None or _revision(call) > _revision(newest):
            newest = call


def _place(event: tuple[int, int, Call]) -> tuple[int, int]:
    return event[0], event[1]


def _shared_revisions(key: Value, calls: Iterable[Call]) -> Iterator[Finding]:
    writes: dict[int, Call] = {}
    for call in calls:
        if is_write(call):
            other = writes.setdefault(_revision(call), call)
            if other is not call:
                why = f"Two writes of {key} both have revision {_revision(call)}."
                yield Finding("shared-revision", why, (other.id, call.id))


def _two_values(key: Value, calls: Iterable[Call]) -> Iterator[Finding]:
    reads: dict[int, Call] = {}
    for call in calls:
        if is_read(call):
            other = reads.setdefault(_revision(call), call)
            if other.output != call.output:
                why = f"Revision {_revision(call)} of {key} was read as {other.output} and as {call.output}."
                yield Finding("two-values", why, (other.id, call.id))
