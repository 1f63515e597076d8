"""The read lab: what each read level gave under the same faults. Pure; the clock is a parameter.

One run in which every read takes one of the levels at random, so that all met the same faults. For each level its reads
are judged together with all writes as if they were linearizable, which only some of them promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kv_jepsen.checkers.evidence import is_read, level
from kv_jepsen.checkers.finding import quantiles_ms
from kv_jepsen.checkers.staleness import ages
from kv_jepsen.history import Call
from kv_jepsen.judge import linearizable
from kv_jepsen.linearizable import Limits
from kv_jepsen.models import Register
from kv_jepsen.report import Run
from kv_jepsen.report.markup import Markup, table, tag
from kv_jepsen.report.plots import (
    end_s,
    fault_legend,
    latency_points,
    outcome_legend,
    rates,
    staleness_bars,
)
from kv_jepsen.report.template import page
from kv_jepsen.stats import during_faults, tally

LIMITS: Final = Limits(seconds=30.0)
"""For the search, for each level."""

HEAD: Final = (
    "level",
    "reads",
    "median ms",
    "99 % ms",
    "available",
    "in faults",
    "stale reads",
    "99 % stale ms",
    "max stale ms",
    "linearizable",
    "keys violated",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One level. Fractions from 0 to 1, times in milliseconds."""

    level: str
    reads: int
    median_ms: float
    p99_ms: float
    available: float
    available_in_faults: float | None
    stale: int
    stale_p99_ms: float
    stale_max_ms: float
    judgement: str
    violated_keys: int

    def cells(self) -> tuple[str, ...]:
        """As shown, in the order of `HEAD`."""
        in_faults = "–" if self.available_in_faults is None else f"{self.available_in_faults:.1%}"
        return (
            self.level,
            str(self.reads),
            f"{self.median_ms:.1f}",
            f"{self.p99_ms:.1f}",
            f"{self.available:.1%}",
            in_faults,
            str(self.stale),
            f"{self.stale_p99_ms:.0f}",
            f"{self.stale_max_ms:.0f}",
            self.judgement,
            str(self.violated_keys),
        )


def lab_rows(run: Run, now: Callable[[], float]) -> list[Row]:
    """One row for each level that was read at, in the order of the fact `levels`."""
    return [_row(run, name, of_level, now) for name, of_level in _reads(run).items()]


def _row(run: Run, name: str, reads: Sequence[Call], now: Callable[[], float]) -> Row:
    chosen = [call for call in run.history.calls if not is_read(call) or level(call) == name]
    verdict = linearizable(run.history, chosen, Register(), LIMITS, now)
    all_of_them = tally(reads)
    inside = during_faults(reads, run.faults)[0]
    stale = [age.stale_ns for age in ages(chosen) if age.stale_ns > 0]
    times = {"p99_ms": 0.0, "max_ms": 0.0} | quantiles_ms(stale)
    return Row(
        level=name,
        reads=len(reads),
        median_ms=all_of_them.latency.get("p50_ms", 0.0),
        p99_ms=all_of_them.latency.get("p99_ms", 0.0),
        available=all_of_them.availability,
        available_in_faults=inside.availability if inside.ok + inside.failed + inside.unknown else None,
        stale=len(stale),
        stale_p99_ms=times["p99_ms"],
        stale_max_ms=times["max_ms"],
        judgement=verdict.judgement.value,
        violated_keys=len(verdict.failures),
    )


def lab_text(rows: Sequence[Row]) -> str:
    """The table as text that Markdown reads."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def lab_page(run: Run, rows: Sequence[Row]) -> str:
    """The page: the table, and the staleness of each level."""
    facts = " · ".join(f"{name} {value}" for name, value in run.facts.items())
    parts: list[Markup] = [
        tag("h1", None, "Read levels side by side"),
        tag("p", {"class": "soft small"}, facts),
        tag("p", None, tag("a", {"href": "report.html"}, "the whole run"), ", with its plots and faults"),
        table(HEAD, [row.cells() for row in rows]),
        tag(
            "p",
            {"class": "small"},
            "Stale is a read of a value that was overwritten, and the newer one acknowledged, before the read began. "
            "The verdict is on the reads of the level and all writes together, whatever the level promises.",
        ),
    ]
    if run.staleness:
        parts += [tag("h2", None, "Staleness"), staleness_bars(run.staleness)]
    return page("Read levels side by side", *parts, *_plots(run))


def _plots(run: Run) -> Iterator[Markup | None]:
    """For each level: how long its reads took, and how many were answered, with the faults shaded."""
    until = end_s(run.history.calls, run.faults)
    yield tag("h2", None, "Latency and availability of reads")
    yield fault_legend(run.faults)
    yield outcome_legend()
    for name, reads in _reads(run).items():
        yield tag("h3", None, name)
        yield latency_points(reads, run.faults, until)
        yield rates(reads, run.faults, until)


def _reads(run: Run) -> dict[str, list[Call]]:
    """The reads of each level, in the order of the fact `levels`; none of a level that nobody read at."""
    named = run.facts.get("levels", "").split(", ")
    reads: dict[str, list[Call]] = {name.partition(":")[0]: [] for name in named}
    for call in run.history.calls:
        if is_read(call):
            reads.setdefault(level(call), []).append(call)
    return {name: of_level for name, of_level in reads.items() if of_level}
