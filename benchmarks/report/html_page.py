"""The report as one HTML page that needs nothing else. Pure."""

from __future__ import annotations

from typing import Final

from benchmarks.goals import GOALS, Judgement, Verdict, judge
from benchmarks.record import Run
from benchmarks.report import plots
from benchmarks.report.figures import (
    METRICS,
    TITLES,
    Line,
    bound_text,
    columns,
    counts_text,
    lines,
    main,
    row_numbers,
    side_text,
    spread_text,
    value_text,
)
from benchmarks.report.markdown import INTRODUCTION
from kv_jepsen.report.markup import Markup, table, tag

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --page: #fff; --box: #f5f7f9;
  --s0: #2f7fc1; --s1: #e08a00; --s2: #7a5cc8; --s3: #59636e; --good: #1e7d43; --bad: #c62f3b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #3a424c; --page: #14181d;
  --box: #1e242b; --s0: #66aee8; --s1: #f0a63c; --s2: #a894e6; --s3: #9aa4af; --good: #4cc27c; --bad: #ff6b74; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
p, li { overflow-wrap: anywhere; } .soft { color: var(--soft); }
.wide, figure { overflow-x: auto; max-width: 100%; }
table { min-width: 46rem; border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } td { min-width: 3.5rem; }
.met, .missed, .verdict { white-space: nowrap; } .met { color: var(--good); font-weight: 600; } .missed { color: var(--bad); font-weight: 600; }
figure { margin: .5rem 0 1rem; background: var(--box); border: 1px solid var(--line); border-radius: .4rem; }
svg { display: block; width: 100%; min-width: 46rem; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .tick { fill: var(--soft); font-size: 11px; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; } svg .value { font-weight: 600; }
svg .axis { stroke: var(--line); } svg .bound { stroke: var(--ink); stroke-width: 1.5; }
svg .bar { opacity: .3; } svg .s0 { fill: var(--s0); } svg .s1 { fill: var(--s1); } svg .s2 { fill: var(--s2); }
svg .s3 { fill: var(--s3); } svg .good { fill: var(--good); opacity: .75; } svg .bad { fill: var(--bad); opacity: .75; }
svg .curve { fill: none; stroke: var(--s0); stroke-width: 1.5; }
pre { overflow-x: auto; background: var(--box); padding: .75rem; border-radius: .4rem; font-size: .8rem; }
"""


def page(run: Run) -> str:
    """Return the whole page."""
    judgements = [judge(goal, run) for goal in GOALS]
    content = [
        tag("h1", None, "Benchmarks"),
        tag("p", {"class": "soft"}, run.facts.get("date", ""), " · ", run.facts.get("cpu", "")),
        tag("p", None, INTRODUCTION),
        tag("h2", None, f"Goals: {counts_text(judgements)}"),
        plots.goals(judgements),
        _goals(judgements),
        *(_row(run, row) for row in row_numbers(run)),
        tag("h2", None, "Machine, versions, parameters"),
        table(["", ""], run.facts.items()),
        tag("h2", None, "Commands"),
        tag("pre", None, "\n".join(run.commands)),
    ]
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, "ringkv: benchmarks"),
        tag("style", None, Markup(STYLE)),
    )
    body = tag("body", None, tag("main", None, *content))
    return "<!doctype html>\n" + tag("html", {"lang": "en"}, head, body) + "\n"


def _goals(judgements: list[Judgement]) -> Markup:
    classes = {Verdict.MET: "met", Verdict.MISSED: "missed", Verdict.UNKNOWN: "verdict soft"}
    return table(
        ["#", "goal", "asked", "measured", "", "figures"],
        (
            [
                j.goal.id,
                j.goal.text,
                bound_text(j.goal),
                value_text(j),
                tag("span", {"class": classes[j.verdict]}, str(j.verdict)),
                side_text(j),
            ]
            for j in judgements
        ),
    )


def _row(run: Run, row: int) -> Markup:
    found, (what, unit) = lines(run, row), METRICS[main(row)]
    notes = _notes(run, row, found)
    long = [sample for sample in run.samples if sample.row == row and sample.series]
    dots = any(line.values for line in found)
    return tag(
        "section",
        None,
        tag("h2", None, f"{row}. {TITLES[row]}"),
        plots.strip(found, unit, f"{TITLES[row]}: {what}") if dots else None,
        *(plots.series(sample.series, f"{sample.work}: operations in each second") for sample in long),
        _figures(found) if found else None,
        tag("ul", None, *(tag("li", None, note) for note in notes)) if notes else None,
    )


def _figures(found: list[Line]) -> Markup:
    names = columns(found)
    head = ["system", "work", *(METRICS[name][0] for name in names)]
    return table(head, ([line.system, line.work, *(_cell(line, name) for name in names)] for line in found))


def _cell(line: Line, name: str) -> str:
    return spread_text(line.metrics[name], METRICS[name][1]) if name in line.metrics else ""


def _notes(run: Run, row: int, found: list[Line]) -> list[str]:
    notes = [f"{line.system}, {line.work}: {note}" for line in found for note in line.notes]
    missing = [m for m in run.missing if m.row == row]
    return notes + [f"not measured: {m.system}, round {m.round + 1}: {m.why}" for m in missing]
