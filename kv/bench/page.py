"""The page of a run: one file without script, with figures and plots that need nothing from elsewhere. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from kv.bench.markup import Markup, join, table, tag
from kv.bench.plan import Plan
from kv.bench.plot import COLOURS, Curve, Frame, Point, Tick, decades, legend, ticks
from kv.bench.result import QUANTILES, Result, Row, series

OK_NAME: Final = "succeeded"
DROPPED_NAME: Final = "dropped by the generator"
LATENCY_MS_MIN: Final = 0.001
"""Shorter latencies are drawn here, since a logarithm has no zero."""

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --page: #ffffff; --box: #f5f7f9;
  --c0: #2f7fc1; --c1: #c62f3b; --c2: #e08a00; --c3: #7a5cc8; --c4: #2b8a8a; --c5: #59636e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #3a424c; --page: #14181d;
  --box: #1e242b; --c0: #66aee8; --c1: #ff6b74; --c2: #f0a63c; --c3: #b39df0; --c4: #58c4c4; --c5: #9aa4af; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; } p, li { overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
.soft { color: var(--soft); } .small, .legend { font-size: .875rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; margin: 1rem 0; list-style: none; }
.figures li { background: var(--box); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .9rem; }
.figures b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.note { border-left: 3px solid var(--c2); padding-left: .75rem; }
.plot { overflow-x: auto; background: var(--box); border: 1px solid var(--line); border-radius: .4rem; }
.plot svg { display: block; width: 100%; min-width: 36rem; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
svg .axis { stroke: var(--line); } svg .mark { stroke: var(--soft); stroke-dasharray: 4 3; }
svg .curve { fill: none; stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .b0 { background: var(--c0); } .b1 { background: var(--c1); }
.b2 { background: var(--c2); } .b3 { background: var(--c3); } .b4 { background: var(--c4); } .b5 { background: var(--c5); }
.legend span { margin-right: 1rem; white-space: nowrap; } .legend i { display: inline-block; width: .8em; height: .8em;
  border-radius: .15em; margin-right: .35em; vertical-align: -.05em; }
dl { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: .15rem 1.25rem; font-size: .9rem; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(result: Result) -> str:
    """Return the whole document."""
    title = f"kv bench {result.plan.kind}"
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, title),
        tag("style", None, Markup(STYLE)),
    )
    moments = _shown(result)
    body = tag(
        "main",
        None,
        tag("h1", None, title),
        tag("p", {"class": "soft small"}, f"{result.started}, {describe(result.plan)}"),
        _figures(result),
        *(tag("p", {"class": "note"}, note) for note in result.notes),
        tag("h2", None, "How operations ended, and after how long"),
        table(HEADERS, (cells(row) for row in result.rows)),
        tag(
            "p",
            {"class": "soft small"},
            "Milliseconds. Counted are the operations that began, or were due, in the measured time; a rate is of"
            " those that ended in it.",
        ),
        tag("h2", None, "Throughput over time"),
        throughput(result, moments),
        tag("h2", None, "Latency of success over time"),
        latency(result, moments),
        tag("h2", None, "Latency by percentile"),
        percentiles(result.rows),
        tag("h2", None, "Settings"),
        _settings(result),
    )
    return "<!DOCTYPE html>\n" + tag("html", {"lang": "en"}, head, tag("body", None, body)) + "\n"


HEADERS: Final = (
    "operation",
    "ended",
    "count",
    "per second",
    "mean",
    *(name for name, _ in QUANTILES),
    "max",
)


def cells(row: Row) -> tuple[str, ...]:
    """Return what a table shows of one ending, in the order of `HEADERS`; latencies in milliseconds."""
    shown = [f"{value:.2f}" for value in row.quantiles_ms.values()] or ["-"] * (len(HEADERS) - 4)
    return (row.name, ending_name(row), str(row.latency.count), f"{row.per_s:.1f}", *shown)


def ending_name(row: Row) -> str:
    """Return how the operations of a row ended, in words."""
    return f"{row.reason} ({row.outcome})" if row.reason else "ok"


def describe(plan: Plan) -> str:
    """Return in a few words what the load was."""
    load = (
        f"open loop of {plan.rate_per_s:g}/s ({plan.arrivals} arrivals)"
        if plan.open_loop
        else f"closed loop of {plan.concurrency} tasks"
    )
    extent = f"{plan.count} operations" if plan.count is not None else f"{plan.duration_s:g} s"
    processes = "1 process" if plan.processes == 1 else f"{plan.processes} processes"
    return f"{load} in {processes}, {extent} after {plan.warmup_s:g} s of warm-up"


def figures(result: Result) -> list[tuple[str, str]]:
    """Return the figures that come first, each as a number and what it is of."""
    found = [(f"{result.goodput_per_s:,.1f}/s", "goodput")]
    if result.offered_per_s is not None:
        found.append((f"{result.offered_per_s:,.1f}/s", "offered"))
    if result.items_per_s > result.goodput_per_s * 1.001:
        found.append((f"{result.items_per_s:,.1f}/s", "keys"))
    found.append((f"{result.ok:,}", OK_NAME))
    found.append((f"{result.failed:,}", "failed"))
    if result.plan.open_loop:
        found.append((f"{result.dropped:,}", DROPPED_NAME))
    return found


def _figures(result: Result) -> Markup:
    items = (tag("li", None, tag("b", None, number), name) for number, name in figures(result))
    return tag("ul", {"class": "figures"}, *items)


def _shown(result: Result) -> list[dict[str, Any]]:
    """Return the windows that are drawn: of what ended after the load only if that took more than one."""
    moments = series(result.tally)
    last = result.windows_in_time
    return moments[:last] if last is not None and len(moments) == last + 1 else moments


def throughput(result: Result, moments: Sequence[dict[str, Any]]) -> Markup:
    """Return the plot of endings a second, by how they ended."""
    if not moments:
        return _nothing("Nothing ended.")
    width_s = result.tally.width_ns / 1e9
    reasons = sorted({reason for moment in moments for reason in moment["failed_per_s"]})
    columns = [(OK_NAME, [moment["ok_per_s"] for moment in moments])]
    columns += [(name, [moment["failed_per_s"].get(name, 0.0) for moment in moments]) for name in reasons]
    if result.dropped:
        columns.append((DROPPED_NAME, [moment["dropped_per_s"] for moment in moments]))
    curves = [
        Curve(name, place % COLOURS, [((i + 0.5) * width_s, value) for i, value in enumerate(values)])
        for place, (name, values) in enumerate(columns)
    ]
    top = max(value for _, values in columns for value in values)
    frame = Frame(len(moments) * width_s, 0.0, max(top * 1.05, 1.0))
    return _over_time(frame, "per second", "endings a second over time", curves, result)


def latency(result: Result, moments: Sequence[dict[str, Any]]) -> Markup:
    """Return the plot of p50 and p99 of the operations that succeeded, by when they ended."""
    width_s = result.tally.width_ns / 1e9
    curves = [
        Curve(name, colour, [((i + 0.5) * width_s, _floor(m[f"{name}_ms"])) for i, m in enumerate(moments)])
        for name, colour in (("p50", 0), ("p99", 2))
    ]
    values = [value for curve in curves for _, value in curve.points if value is not None]
    if not values:
        return _nothing("Nothing succeeded.")
    frame = Frame(len(moments) * width_s, *decades(min(values), max(values)), log=True)
    return _over_time(frame, "ms", "p50 and p99 of latency over time", curves, result)


def _floor(value: float | None) -> float | None:
    return None if value is None else max(value, LATENCY_MS_MIN)


def _over_time(frame: Frame, unit: str, label: str, curves: Sequence[Curve], result: Result) -> Markup:
    across: list[Tick] = [(at, f"{at:g}") for at in ticks(0.0, frame.end, 10)]
    inside = [frame.curve(curve) for curve in curves]
    if frame.end > result.measured_s * 1.001:
        inside.append(frame.mark(result.measured_s, "end of the load"))
    return join((legend(curves), frame.draw(label, ("seconds", unit), across, *inside)))


def percentiles(rows: Sequence[Row]) -> Markup:
    """Return the curve of latency by percentile for each ending; to the right each step is one nine more."""
    shown = [row for row in rows if row.latency.count]
    if not shown:
        return _nothing("Nothing ended.")
    curves = [
        Curve(f"{row.name} {ending_name(row)}", place % COLOURS, _steps(row))
        for place, row in enumerate(shown)
    ]
    values = [value for curve in curves for _, value in curve.points if value is not None]
    nines = max(1.0, max(math.log10(row.latency.count) for row in shown) + 0.31)
    frame = Frame(nines, *decades(min(values), max(values)), log=True)
    across: list[Tick] = [(0.0, "0 %"), (-math.log10(0.5), "50 %")]
    across += [(float(n), _percent(n)) for n in range(1, math.floor(nines) + 1)]
    inside = (frame.curve(curve) for curve in curves)
    return join((legend(curves), frame.draw("latency by percentile", ("percentile", "ms"), across, *inside)))


def _percent(nines: int) -> str:
    """Return "90 %", "99 %", "99.9 %" and so on."""
    return f"{100 - 10 ** (2 - nines):.{max(nines - 2, 0)}f} %"


def _steps(row: Row) -> list[Point]:
    """Return the points of a percentile curve; a value stands in the middle of its rank, so that the last has a place."""
    count = row.latency.count
    return [
        (-math.log10(1.0 - (below - 0.5) / count), max(value / 1e6, LATENCY_MS_MIN))
        for value, below in row.latency.cumulative()
    ]


def _nothing(sentence: str) -> Markup:
    return tag("p", {"class": "soft"}, sentence)


def _settings(result: Result) -> Markup:
    busy = ", ".join(f"{share:.0%}" for share in result.tally.cpu_s)
    pairs = [*result.plan.fields().items(), ("processor time of each client process", f"{busy} of a core")]
    return tag(
        "dl",
        None,
        *(
            join((tag("dt", None, name.replace("_", " ")), tag("dd", None, "-" if value is None else value)))
            for name, value in pairs
        ),
    )
