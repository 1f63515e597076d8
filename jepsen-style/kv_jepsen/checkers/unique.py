"""Unique answers: no two calls may have got the same.

Pure. For generators of ids, sequence numbers, fencing tokens, and for anything else that must not repeat.
"""

from __future__ import annotations

from collections.abc import Sequence

from kv_jepsen.checkers.finding import CheckResult, Finding, judged
from kv_jepsen.history import Call, Value


def unique_ids(calls: Sequence[Call], f: str = "generate") -> CheckResult:
    """The outputs of completed calls of `f` are all different, across all keys."""
    got: dict[Value, list[Call]] = {}
    for call in calls:
        if call.f == f and call.ok:
            got.setdefault(call.output, []).append(call)
    findings = [
        Finding("duplicated", f"{len(same)} calls of {f} returned {output}.", tuple(call.id for call in same))
        for output, same in got.items()
        if len(same) > 1
    ]
    counts = {"calls": sum(map(len, got.values())), "distinct": len(got), "duplicated": len(findings)}
    return judged("unique", findings, counts, "" if got else f"no call of {f} completed")
