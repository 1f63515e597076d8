"""The report of one run: a page of its own, in the order in which a reader asks.

Pure: a `Run` in, text out. First the verdicts, then why, then the plots, then what was done to the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kv_jepsen.checkers import CheckResult, Finding
from kv_jepsen.report import plots
from kv_jepsen.report.cycles import cycles
from kv_jepsen.report.linear import failure
from kv_jepsen.report.markup import Markup, badge, counted, join, short, table, tag, text
from kv_jepsen.report.run import JUDGED, Run
from kv_jepsen.report.template import page
from kv_jepsen.report.timeline import part_to_draw, timeline
from kv_jepsen.stats import Tally, by_function, during_faults, tally
from kv_jepsen.verdict import Verdict

FINDINGS_MAX: Final = 20
"""Findings of one checker that are shown; the counts tell of all."""

KEYS_MAX: Final = 5
"""Keys that are not linearizable and are drawn."""

COUNTS_MAX: Final = 8
"""Figures of one checker that are shown also if they are 0."""

FAULTS_MAX: Final = 500
"""Faults listed."""


def report(run: Run) -> str:
    """The page."""
    return page(
        f"{run.name}: {'valid' if run.valid is True else 'invalid' if run.valid is False else 'unknown'}",
        tag("p", {"class": "small"}, tag("a", {"href": run.above[0]}, run.above[1])),
        tag("h1", None, badge(run.valid), " ", run.name),
        _facts(run),
        _verdicts(run),
        *_violations(run),
        *_figures(run),
        *_plots(run),
        *_timeline(run),
        *_faults(run),
    )


def _facts(run: Run) -> Markup:
    facts = {"started": run.started, "calls": str(len(run.history.calls)), **run.facts}
    return tag(
        "p", {"class": "soft small"}, " · ".join(f"{name} {value}" for name, value in facts.items() if value)
    )


def _verdicts(run: Run) -> Markup:
    rows: list[tuple[object, ...]] = []
    if run.linearizable is not None:
        rows.append(
            ("linearizable", badge(JUDGED[run.linearizable.judgement]), _linearizable_words(run.linearizable))
        )
    if run.elle is not None:
        found = ", ".join(f"{name} {count}" for name, count in run.elle.counts().items())
        rows.append(
            (run.elle.model, badge(run.elle.valid), found or f"{run.elle.txns} transactions, no anomaly")
        )
    rows += [(check.checker, badge(check.valid), _counts(check)) for check in run.checks]
    if not rows:
        return tag("p", None, "Nothing was checked.")
    return join([tag("h2", None, "Verdicts"), table(("property", "verdict", "figures"), rows)])


def _linearizable_words(verdict: Verdict) -> str:
    calls = sum(key.calls for key in verdict.keys)
    reasons = sorted({key.reason for key in verdict.keys if key.reason})
    bad = f", not linearizable: {len(verdict.failures)}" if verdict.failures else ""
    return f"{verdict.model}: {counted(calls, 'call')} of {counted(len(verdict.keys), 'key')}{bad}{''.join(f'; {r}' for r in reasons[:3])}"


def _counts(check: CheckResult) -> str:
    # Of many figures those that are nothing say nothing.
    told = {name: n for name, n in check.counts.items() if n or len(check.counts) <= COUNTS_MAX}
    figures = ", ".join(f"{name.replace('_', ' ')} {text(value)}" for name, value in told.items())
    return f"{check.reason}; {figures}" if check.reason else figures


def _violations(run: Run) -> Iterator[Markup]:
    """Everything that is wrong, each with what shows it."""
    if run.linearizable is not None and run.linearizable.failures:
        yield tag("h2", None, "Not linearizable")
        calls = run.history.by_key()
        for verdict in run.linearizable.failures[:KEYS_MAX]:
            if verdict.failure is not None:
                yield failure(verdict, calls.get(verdict.key, ()))
    if run.elle is not None and run.elle.anomalies:
        yield tag("h2", None, "Cycles and other anomalies")
        yield cycles(run.elle, run.txns)
    for check in run.checks:
        if check.findings:
            yield tag("h2", None, f"Violations: {check.checker}")
            yield tag("ul", None, *(_finding(finding) for finding in check.findings[:FINDINGS_MAX]))
            if len(check.findings) > FINDINGS_MAX:
                yield tag(
                    "p", {"class": "soft"}, f"and {len(check.findings) - FINDINGS_MAX} more, in results.json"
                )


def _finding(finding: Finding) -> Markup:
    links = [join([" ", tag("a", {"href": f"#op-{op}"}, f"operation {op}")]) for op in finding.ops[:6]]
    return tag("li", None, tag("span", {"class": "kind"}, finding.kind), " ", finding.sentence, *links)


def _figures(run: Run) -> Iterator[Markup]:
    yield tag("h2", None, "Calls")
    rows = [_tally_row(name, figures) for name, figures in by_function(run.history.calls).items()]
    rows.append(_tally_row("all", tally(run.history.calls)))
    if run.faults:
        inside, outside = during_faults(run.history.calls, run.faults)
        rows += [_tally_row("during faults", inside), _tally_row("without faults", outside)]
    head = ("", "ok", "failed", "unknown", "available", "median ms", "99 % ms", "max ms")
    yield table(head, rows)


def _tally_row(name: str, figures: Tally) -> tuple[object, ...]:
    latency = [figures.latency.get(which, "–") for which in ("p50_ms", "p99_ms", "max_ms")]
    return name, figures.ok, figures.failed, figures.unknown, f"{figures.availability:.1%}", *latency


def _plots(run: Run) -> Iterator[Markup | None]:
    calls = run.history.calls
    if not any(call.end_ns for call in calls):
        yield tag("p", {"class": "soft"}, "The history has no times, so there are no plots over time.")
    else:
        until = plots.end_s(calls, run.faults)
        yield tag("h2", None, "Latency")
        yield plots.fault_legend(run.faults)
        yield plots.outcome_legend()
        yield plots.latency_points(calls, run.faults, until)
        yield plots.quantile_legend()
        yield plots.latency_quantiles(calls, run.faults, until)
        yield tag("h2", None, "Rate")
        yield plots.outcome_legend()
        yield plots.rates(calls, run.faults, until)
    if run.staleness:
        yield tag("h2", None, "Staleness by read level")
        yield plots.staleness_bars(run.staleness)


def _timeline(run: Run) -> Iterator[Markup]:
    suspects = run.suspects()
    part = part_to_draw(run.history.calls, suspects)
    yield tag("h2", None, "Timeline")
    if len(part) < len(run.history.calls):
        where = "around the first violation" if suspects else "from the beginning"
        yield tag("p", {"class": "soft"}, f"{len(part)} of {len(run.history.calls)} calls, {where}.")
    yield plots.outcome_legend()
    yield timeline(part, suspects)


def _faults(run: Run) -> Iterator[Markup]:
    if run.faults:
        yield tag("h2", None, "Faults")
        rows = [
            (
                f"{p.start_ns / 1e9:.2f}",
                "–" if p.end_ns is None else f"{p.end_ns / 1e9:.2f}",
                p.kind,
                short(p.target, 80),
            )
            for p in run.faults[:FAULTS_MAX]
        ]
        listing = table(("from s", "to s", "fault", "target"), rows)
        yield tag("details", None, tag("summary", None, f"{len(run.faults)} faults"), listing)
    if run.schedule:
        yield tag("details", None, tag("summary", None, "Schedule"), tag("pre", None, run.schedule))
    if run.logs:
        yield tag("h2", None, "Logs")
        yield tag(
            "ul", None, *(tag("li", None, tag("a", {"href": path}, node)) for node, path in run.logs.items())
        )
