"""The figures of a run: rates, quantiles, the series over time, and what a reader must be warned of. Pure.

`document` is what `--json` writes: it has a version, and only grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kv.bench.histogram import Histogram
from kv.bench.kinds import Kind
from kv.bench.plan import Plan
from kv.bench.tally import Tally, Window

VERSION: Final = 1

QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))

CPU_BUSY: Final = 0.9
"""A client process that used so much of a core may have been what limited the run."""

LATE_PART: Final = 0.1
"""If the generator was late, at p99, by so much of the latency at p99, its figures are partly its own."""

STARVED_MS: Final = 5.0
"""A generator that is later than this is late for another reason than its timers."""

_MS: Final = 1e6


@dataclass(frozen=True, slots=True)
class Row:
    """The operations that ended in one way, or all that succeeded."""

    name: str
    """The operation."""
    reason: str
    """Of the error; empty: it succeeded."""
    outcome: str
    latency: Histogram
    per_s: float
    """Ended in the measured time, for each second of it."""

    @property
    def quantiles_ms(self) -> dict[str, float]:
        """Mean, the quantiles and the maximum."""
        histogram = self.latency
        if not histogram.count:
            return {}
        shown = {name: histogram.quantile(part) / _MS for name, part in QUANTILES}
        return {"mean": histogram.mean_ns / _MS, **shown, "max": histogram.max_ns / _MS}


class Result:
    """A run that has ended."""

    def __init__(self, plan: Plan, tally: Tally, *, started: str) -> None:
        """Compute it; `started` is when, as text for people."""
        self.plan = plan
        self.tally = tally
        self.started = started
        self.measured_s = (tally.elapsed_ns / 1e9 or 1e-9) if plan.count is not None else plan.duration_s
        self.in_time = tally.counts(self.windows_in_time)
        """What ended in the measured time; later windows hold what was still awaited."""
        self.rows = self._rows()

    @property
    def windows_in_time(self) -> int | None:
        """How many windows are of the measured time; None: all."""
        if self.plan.count is not None:
            return None
        return max(1, round(self.plan.duration_s * 1e9 / self.tally.width_ns))

    def _rows(self) -> tuple[Row, ...]:
        rows = []
        for ending, count in self.tally.counts().items():
            ended = self.in_time[ending].ended if ending in self.in_time else 0
            per_s = ended / self.measured_s
            rows.append(Row(ending.operation, ending.reason, ending.outcome, count.latency, per_s))
        return tuple(rows)

    @property
    def ok(self) -> int:
        """Operations of the measured time that succeeded."""
        return sum(row.latency.count for row in self.rows if not row.reason)

    @property
    def failed(self) -> int:
        """Operations of the measured time that ended with an error."""
        return sum(row.latency.count for row in self.rows if row.reason)

    @property
    def dropped(self) -> int:
        """Operations that were due and not begun, because too many had no answer."""
        return self.tally.dropped_total

    @property
    def goodput_per_s(self) -> float:
        """Operations that succeeded in the measured time, for each second of it."""
        return sum(row.per_s for row in self.rows if not row.reason)

    @property
    def items_per_s(self) -> float:
        """Keys that were written, found or read, for each second."""
        return sum(count.items for count in self.in_time.values()) / self.measured_s

    @property
    def offered_per_s(self) -> float | None:
        """Open loop: operations that were due, for each second. None in a closed loop."""
        if not self.plan.open_loop:
            return None
        return (self.ok + self.failed + self.dropped) / self.measured_s

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        found = []
        busy = max(self.tally.cpu_s, default=0.0)
        if busy >= CPU_BUSY:
            found.append(
                f"a client process used {busy:.0%} of a core: the figures may be the generator's; raise --processes"
            )
        if self.dropped:
            found.append(
                f"{self.dropped} operations were dropped by the generator: {self.plan.outstanding_max}"
                " others had no answer (--outstanding-max)"
            )
        found.extend(self._missing())
        found.extend(self._late())
        return found

    def _missing(self) -> list[str]:
        missed = sum(
            count.ended - count.items
            for ending, count in self.tally.counts().items()
            if ending.ok and ending.operation == Kind.GET
        )
        return [f"{missed} gets found no key; --prefill writes all keys before"] if missed else []

    def _late(self) -> list[str]:
        lag, ok = self.tally.lag, [row.latency for row in self.rows if not row.reason and row.latency.count]
        if not lag.count or not ok:
            return []
        late = lag.quantile(0.99)
        if late < LATE_PART * min(histogram.quantile(0.99) for histogram in ok):
            return []
        why = (
            "its timers have a millisecond" if late < STARVED_MS * _MS else "it had too little processor time"
        )
        behind = f"the generator began operations up to {late / _MS:.2f} ms after their time (p99)"
        return [f"{behind}, which is in the latencies: {why}"]


def document(result: Result) -> dict[str, Any]:
    """Return everything as values of JSON; times in the unit that ends their names."""
    return {
        "version": VERSION,
        "started": result.started,
        "plan": result.plan.fields(),
        "measured_s": round(result.measured_s, 6),
        "operations": result.ok + result.failed,
        "succeeded": result.ok,
        "failed": result.failed,
        "dropped": result.dropped,
        "goodput_per_s": round(result.goodput_per_s, 3),
        "items_per_s": round(result.items_per_s, 3),
        "offered_per_s": None if result.offered_per_s is None else round(result.offered_per_s, 3),
        "endings": [_row(row) for row in result.rows],
        "lag_ms": _rounded(Row("lag", "", "", result.tally.lag, 0.0).quantiles_ms),
        "client_cpu": [round(share, 3) for share in result.tally.cpu_s],
        "series": {"window_s": result.tally.width_ns / 1e9, "windows": series(result.tally)},
        "notes": result.notes,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "operation": row.name,
        "reason": row.reason or None,
        "outcome": row.outcome,
        "count": row.latency.count,
        "per_s": round(row.per_s, 3),
        "latency_ms": _rounded(row.quantiles_ms),
        "distribution": [[value / _MS, below] for value, below in row.latency.cumulative()],
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


def series(tally: Tally) -> list[dict[str, Any]]:
    """Return rates and latencies of success for each window of time, those without anything included."""
    width_s = tally.width_ns / 1e9
    last = max(tally.windows, default=-1)
    return [
        _moment(tally.windows.get(number, Window()), number * width_s, width_s) for number in range(last + 1)
    ]


def _moment(window: Window, at_s: float, width_s: float) -> dict[str, Any]:
    latency, failed = Histogram(), dict[str, float]()
    for ending, count in window.counts.items():
        if ending.ok:
            latency.add(count.latency)
        else:
            failed[ending.reason] = failed.get(ending.reason, 0.0) + count.ended / width_s
    return {
        "at_s": round(at_s, 6),
        "ok_per_s": round(window.ok / width_s, 3),
        "failed_per_s": {reason: round(failed[reason], 3) for reason in sorted(failed)},
        "dropped_per_s": round(window.dropped / width_s, 3),
        "p50_ms": latency.quantile(0.5) / _MS if latency.count else None,
        "p99_ms": latency.quantile(0.99) / _MS if latency.count else None,
    }
