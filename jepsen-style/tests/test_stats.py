"""Figures: calls by outcome, latency, and how many succeeded during faults."""

from __future__ import annotations

from kv_jepsen.history import History, Op, OpType
from kv_jepsen.periods import Period
from kv_jepsen.stats import by_function, during_faults, tally

MS = 1_000_000
ROWS = [
    (0, OpType.INVOKE, "read", 0),
    (0, OpType.OK, "read", 10),
    (0, OpType.INVOKE, "write", 20),
    (0, OpType.FAIL, "write", 25),
    (0, OpType.INVOKE, "write", 30),
    (0, OpType.INFO, "write", 60),
    (1, OpType.INVOKE, "read", 70),
    (1, OpType.OK, "read", 72),
]
CALLS = History(Op(i, p, kind, f, time_ns=at * MS) for i, (p, kind, f, at) in enumerate(ROWS)).calls


def test_a_tally_counts_outcomes_and_measures_successes() -> None:
    """Only calls that succeeded have a latency; availability is their part of all."""
    whole = tally(CALLS)
    assert (whole.ok, whole.failed, whole.unknown, whole.total, whole.availability) == (2, 1, 1, 4, 0.5)
    assert whole.latency == {"p50_ms": 2.0, "p99_ms": 2.0, "max_ms": 10.0}
    assert tally([]).availability == 1.0


def test_calls_are_told_apart_by_function_and_by_fault() -> None:
    """A call belongs to a fault by when it began."""
    assert {name: part.total for name, part in by_function(CALLS).items()} == {"read": 2, "write": 2}
    inside, outside = during_faults(CALLS, [Period("cut", "*", 20 * MS, 70 * MS)])
    assert (inside.total, inside.ok, outside.total, outside.ok) == (2, 0, 2, 2)
