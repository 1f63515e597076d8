"""Cycles in words.

Pure. Each step says why one transaction must come before the next; together they say that one must come before
itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from kv_jepsen.elle.anomaly import Kind, Step
from kv_jepsen.elle.edges import Dependencies, Evidence

_WHAT = {
    "G0": "writes that cannot be put in an order",
    "G1c": "information that flows in a circle",
    "G-single": "a read that missed a write which it must follow",
    "G-nonadjacent": "reads that missed writes which they must follow, none of them next to each other",
    "G2-item": "reads that each missed the write of the next",
}


def because(
    dependencies: Dependencies, ends: Sequence[tuple[int, int]], source: int, kind: Kind, target: int
) -> str:
    """The reason for one edge, in words."""
    if kind is Kind.PROCESS:
        return f"one process ran T{source} and then T{target}"
    if kind is Kind.REALTIME:
        return (
            f"T{source} had completed (operation {ends[source][1]}) before T{target} was invoked"
            f" (operation {ends[target][0]})"
        )
    return _data(dependencies.evidence[source, target, kind], source, kind, target)


def _data(evidence: Evidence, source: int, kind: Kind, target: int) -> str:
    key, before, after = evidence.key, evidence.before, evidence.after
    if kind is Kind.WW:
        return f"T{target} appended {after} to {key} after {before}, which T{source} appended"
    if kind is Kind.WR:
        return f"T{target} read {key} up to {before}, which T{source} appended"
    seen = "as empty" if before is None else f"up to {before}"
    return f"T{source} read {key} {seen} and did not see {after}, which T{target} appended"


def tell(name: str, steps: Sequence[Step]) -> str:
    """The whole cycle as one sentence."""
    plain = name.removesuffix("-process").removesuffix("-realtime")
    reasons = "; ".join(step.because for step in steps)
    return f"{_WHAT[plain].capitalize()}: {reasons}. So T{steps[0].source} would have to come before itself."
