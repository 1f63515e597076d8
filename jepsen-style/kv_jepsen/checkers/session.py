"""Session guarantees: what one process may expect of what it wrote and saw itself.

Pure. The four guarantees of Terry et al., "Session guarantees for weakly consistent replicated data", PDIS 1994, judged
by evidence: by the `revision` of each key, or by the log `index` of each partition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kv_jepsen.checkers.evidence import DELETES, SESSION_LEVELS, is_read, is_write, level, number, partition
from kv_jepsen.checkers.finding import CheckResult, Finding, judged
from kv_jepsen.history import Call, Process, Value

Evidence: TypeAlias = Literal["revision", "index"]


@dataclass(slots=True)
class _Seen:
    """The newest write and read of a process in one scope, with their places in the order."""

    write: tuple[int, Call] | None = None
    read: tuple[int, Call] | None = None


def session_guarantees(
    calls: Sequence[Call], *, evidence: Evidence = "revision", levels: Collection[str] = SESSION_LEVELS
) -> CheckResult:
    """Read your writes, monotonic reads, monotonic writes, writes follow reads; for each process.

    Args:
        calls: of the whole history.
        evidence: `revision` orders the calls of a key, `index` those of a partition.
        levels: read levels that promise the guarantees; reads at others are left out.
    """
    seen: dict[tuple[Process, Value], _Seen] = {}
    deleted = {call.key for call in calls if call.f in DELETES}
    # Where some replies name a partition, an index without one could be of any.
    partitioned = evidence == "index" and any(partition(call) is not None for call in calls)
    findings: list[Finding] = []
    judged_calls = 0
    for call in sorted((c for c in calls if c.ok), key=lambda c: c.start):
        place = _place(call, evidence, deleted)
        scope = call.key if evidence == "revision" else partition(call)
        if (
            place is None
            or (scope is None and partitioned)
            or not (is_write(call) or (is_read(call) and level(call) in levels))
        ):
            continue
        judged_calls += 1
        own = seen.setdefault((call.process, scope), _Seen())
        findings += _judge(call, place, own, evidence)
        _remember(call, place, own)
    counts = {"calls": judged_calls, "sessions": len({process for process, _ in seen})}
    return judged(
        "session", findings, counts, "" if judged_calls else f"no reply carries {evidence} as evidence"
    )


def _place(call: Call, evidence: Evidence, deleted: Collection[Value]) -> int | None:
    """Where the call stands in its order. A key that was never deleted and is absent has revision 0."""
    place = number(call, evidence)
    if (
        place is None
        and evidence == "revision"
        and is_read(call)
        and call.output is None
        and call.key not in deleted
    ):
        return 0 if "revision" in call.extra or "index" in call.extra else None
    return place


def _judge(call: Call, place: int, own: _Seen, evidence: Evidence) -> Iterator[Finding]:
    names = (
        ("read-your-writes", "monotonic-reads")
        if is_read(call)
        else ("monotonic-writes", "writes-follow-reads")
    )
    for name, earlier in zip(names, (own.write, own.read), strict=True):
        if earlier is None:
            continue
        if place < earlier[0] or (place == earlier[0] and not is_read(call)):
            why = (
                f"Process {call.process} did {call.f} of {call.key} at {evidence} {place} after its own"
                f" {earlier[1].f} at {earlier[0]}: {name.replace('-', ' ')} is broken."
            )
            yield Finding(name, why, (earlier[1].id, call.id))


def _remember(call: Call, place: int, own: _Seen) -> None:
    if is_read(call):
        if own.read is None or place >= own.read[0]:
            own.read = (place, call)
    elif own.write is None or place >= own.write[0]:
        own.write = (place, call)
