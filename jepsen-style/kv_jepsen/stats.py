"""Figures on a history: how many calls of what end, how fast, how available.

Pure. For tables and plots; nothing here judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kv_jepsen.checkers.finding import quantiles_ms
from kv_jepsen.history import Call, Outcome
from kv_jepsen.periods import Period


@dataclass(frozen=True, slots=True)
class Tally:
    """Calls of one function, or of all, by outcome, and the latency of those that succeeded (milliseconds)."""

    ok: int
    failed: int
    unknown: int
    latency: dict[str, float]

    @property
    def total(self) -> int:
        """All calls."""
        return self.ok + self.failed + self.unknown

    @property
    def availability(self) -> float:
        """The part that succeeded, 0 to 1; 1 of no calls."""
        return self.ok / self.total if self.total else 1.0


def tally(calls: Iterable[Call]) -> Tally:
    """Count the calls and measure those that succeeded."""
    by_outcome = dict.fromkeys(Outcome, 0)
    latencies: list[int] = []
    for call in calls:
        by_outcome[call.outcome] += 1
        if call.ok and call.end_ns:  # 0 is a history without times
            latencies.append(call.end_ns - call.start_ns)
    return Tally(
        by_outcome[Outcome.OK],
        by_outcome[Outcome.FAILED],
        by_outcome[Outcome.UNKNOWN],
        quantiles_ms(latencies),
    )


def by_function(calls: Sequence[Call]) -> dict[str, Tally]:
    """A tally for each function, by name."""
    names = sorted({call.f for call in calls})
    return {name: tally(call for call in calls if call.f == name) for name in names}


def during_faults(calls: Iterable[Call], periods: Sequence[Period]) -> tuple[Tally, Tally]:
    """Tallies of the calls that began during any fault, and of the others."""
    inside: list[Call] = []
    outside: list[Call] = []
    for call in calls:
        hit = any(
            p.start_ns <= call.start_ns and (p.end_ns is None or call.start_ns < p.end_ns) for p in periods
        )
        (inside if hit else outside).append(call)
    return tally(inside), tally(outside)
