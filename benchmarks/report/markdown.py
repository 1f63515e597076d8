"""The report as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.goals import GOALS, judge
from benchmarks.record import Run
from benchmarks.report.figures import (
    METRICS,
    TITLES,
    bound_text,
    columns,
    counts_text,
    lines,
    row_numbers,
    side_text,
    spread_text,
    value_text,
)

INTRODUCTION = (
    "Medians over all rounds, with the least and the greatest round. A ratio is that of the medians;"
    " its range are the ratios inside each round. How it was measured: docs/benchmarks.md."
)


def document(run: Run) -> str:
    """Return the whole report."""
    judgements = [judge(goal, run) for goal in GOALS]
    head = ["#", "goal", "asked", "measured", "figures", ""]
    goals = table(
        head,
        (
            [j.goal.id, j.goal.text, bound_text(j.goal), value_text(j), side_text(j), f"**{j.verdict}**"]
            for j in judgements
        ),
    )
    parts = ["# Benchmarks", INTRODUCTION, f"## Goals: {counts_text(judgements)}", goals]
    for row in row_numbers(run):
        parts += [f"## {row}. {TITLES[row]}", _row(run, row)]
    parts += ["## Machine, versions, parameters", table(["", ""], run.facts.items())]
    parts += ["## Commands", "```\n" + "\n".join(run.commands) + "\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(run: Run, row: int) -> str:
    found = lines(run, row)
    names = columns(found)
    shown = table(
        ["system", "work", *(METRICS[name][0] for name in names)],
        (
            [
                line.system,
                line.work,
                *(
                    spread_text(line.metrics[name], METRICS[name][1]) if name in line.metrics else ""
                    for name in names
                ),
            ]
            for line in found
        ),
    )
    notes = [f"- {line.system}, {line.work}: {note}" for line in found for note in line.notes]
    notes += [
        f"- not measured: {missing.system}, round {missing.round + 1}: {' '.join(missing.why.split())}"
        for missing in run.missing
        if missing.row == row
    ]
    return "\n\n".join(part for part in (shown if found else "", "\n".join(notes)) if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    made = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in made)
