"""What both reports show: titles of rows, metrics with their units, and the lines of each row's table.

Pure. Numbers become text here, so that Markdown and HTML cannot say different things.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.goals import Goal, Judgement, Verdict
from benchmarks.record import Run
from benchmarks.stats import Spread, spread

TITLES: Final = {
    0: "Ceilings of this machine",
    1: "Put, 256 tasks",
    2: "Put in batches of 128",
    3: "Linearizable get",
    4: "One task",
    5: "NATS JetStream KV, 512 tasks",
    6: "Unary calls through a router",
    7: "Time without a write after SIGKILL of the leader",
    8: "CPU of an idle node",
    9: "More partitions, more keys, more time",
    10: "Resident memory of a node",
    11: "Restart of a node",
    12: "Values of 1 MiB",
    13: "Overload",
}

METRICS: Final = {
    "per_s": ("operations/s", ""),
    "p50_ms": ("p50", " ms"),
    "p99_ms": ("p99", " ms"),
    "max_ms": ("max", " ms"),
    "mean_ms": ("mean", " ms"),
    "mib_per_s": ("MiB/s", ""),
    "s": ("seconds", " s"),
    "serves_s": ("until it serves", " s"),
    "cpu_percent": ("CPU, busiest node", " %"),
    "cpu_percent_least": ("CPU, least busy node", " %"),
    "rss_mib": ("resident", " MiB"),
    "rss_without_data_mib": ("without data pages", " MiB"),
    "refused_per_s": ("refused/s", ""),
    "unknown_per_s": ("unknown/s", ""),
    "dropped_per_s": ("dropped by the generator/s", ""),
    "definite_share": ("definite share", ""),
    "refused_p50_ms": ("refusals p50", " ms"),
    "refused_p99_ms": ("refusals p99", " ms"),
    "refused_max_ms": ("refusals max", " ms"),
    "told_p50_ms": ("refusals after the call p50", " ms"),
    "told_p99_ms": ("refusals after the call p99", " ms"),
    "told_max_ms": ("refusals after the call max", " ms"),
}
"""Name for people, and the unit that follows a number; in the order in which they are shown."""

QUIET_AT_ZERO: Final = frozenset({"refused_per_s", "unknown_per_s", "dropped_per_s"})
"""Shown only where something was refused."""

MAIN: Final = {4: "p50_ms", 7: "s", 8: "cpu_percent", 10: "rss_mib", 11: "serves_s", 12: "mib_per_s"}
"""The metric that a row is about, where it is not the rate."""

NOTES_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Line:
    """One work of one system: the spread of each of its metrics, all values of the main one, and its notes."""

    system: str
    work: str
    metrics: dict[str, Spread]
    values: tuple[float, ...]
    notes: tuple[str, ...]


def row_numbers(run: Run) -> list[int]:
    """Return the rows of which the run says anything, in order."""
    return sorted({sample.row for sample in run.samples} | {missing.row for missing in run.missing})


def lines(run: Run, row: int) -> list[Line]:
    """Return the lines of a row, in the order in which they were first measured."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    notes: dict[tuple[str, str], dict[str, None]] = {}
    for sample in run.samples:
        if sample.row == row:
            found.setdefault((sample.system, sample.work), []).append(dict(sample.metrics))
            if sample.note:
                notes.setdefault((sample.system, sample.work), {})[sample.note] = None
    made = [
        Line(
            system,
            work,
            _spreads(samples),
            tuple(sample[main(row)] for sample in samples if main(row) in sample),
            tuple(notes.get((system, work), {}))[:NOTES_MAX],
        )
        for (system, work), samples in found.items()
    ]
    order = list(dict.fromkeys(line.system for line in made))
    return sorted(made, key=lambda line: order.index(line.system))


def _spreads(samples: Sequence[dict[str, float]]) -> dict[str, Spread]:
    spreads = {}
    for name in METRICS:
        values = [sample[name] for sample in samples if name in sample]
        if values and not (name in QUIET_AT_ZERO and not any(values)):
            spreads[name] = spread(values)
    if not {"refused_per_s", "unknown_per_s"} & spreads.keys():
        spreads.pop("definite_share", None)
    return spreads


def main(row: int) -> str:
    """Return the name of the metric that a row is about."""
    return MAIN.get(row, "per_s")


def columns(found: Iterable[Line]) -> list[str]:
    """Return the metrics that any of the lines has, in order."""
    there = {name for line in found for name in line.metrics}
    return [name for name in METRICS if name in there]


def number(value: float) -> str:
    """Return a number with three or four significant digits, and commas in large ones."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.3f}"


def spread_text(found: Spread, unit: str = "") -> str:
    """Return "median (low to high)", or the one value that there is."""
    if found.count == 1:
        return f"{number(found.median)}{unit}"
    return f"{number(found.median)}{unit} ({number(found.low)} to {number(found.high)})"


def bound_text(goal: Goal) -> str:
    """Return what a goal asks for."""
    return f"{'≤' if goal.at_most else '≥'} {goal.bound:g}{_unit(goal)}"


def value_text(judgement: Judgement) -> str:
    """Return what was measured for a goal."""
    if judgement.value is None:
        return "–"
    return spread_text(judgement.value, _unit(judgement.goal))


def side_text(judgement: Judgement) -> str:
    """Return the two figures of a ratio, and the works that gave them."""
    if judgement.figure is None or judgement.base is None:
        return ", ".join(judgement.works)
    assert judgement.goal.base is not None, "a figure was put over it"
    unit = METRICS[judgement.goal.figure.metric][1]
    ours, theirs = f"{number(judgement.figure)}{unit}", f"{number(judgement.base)}{unit}"
    return f"{ours} ({judgement.works[0]}) over {theirs} ({judgement.goal.base.system}: {judgement.works[1]})"


def margin(judgement: Judgement) -> float | None:
    """Return how far beyond its bound a goal is: 1 at the bound, above 1 met; None without a measurement."""
    if judgement.value is None:
        return None
    value, bound = judgement.value.median, judgement.goal.bound
    if not judgement.goal.at_most:
        return value / bound
    return bound / value if value else float("inf")


def counts_text(judgements: Sequence[Judgement]) -> str:
    """Return how many goals were met, missed and not measured."""
    counted = [f"{sum(j.verdict is verdict for j in judgements)} {verdict}" for verdict in Verdict]
    return ", ".join(counted)


def _unit(goal: Goal) -> str:
    return goal.unit if goal.unit in {"", "x"} else f" {goal.unit}"
