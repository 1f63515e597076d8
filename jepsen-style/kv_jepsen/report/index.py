"""The index page: all runs, the newest first.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from kv_jepsen.report.markup import badge, table, tag
from kv_jepsen.report.run import Summary
from kv_jepsen.report.template import page


def index(runs: Iterable[Summary]) -> str:
    """The page: one line for each run, with a link to its report."""
    ordered = sorted(runs, key=lambda run: run.folder, reverse=True)
    bad = sum(run.valid is False for run in ordered)
    rows = [
        (
            badge(run.valid),
            tag("a", {"href": f"{run.folder}/report.html"}, run.name),
            run.started.replace("T", " ").partition("+")[0],
            run.calls,
            f"{run.duration_s:.0f} s",
            " · ".join(f"{name} {value}" for name, value in run.facts.items()),
        )
        for run in ordered
    ]
    said = f"{len(ordered)} runs, {bad} with a violation." if ordered else "There are no runs yet."
    listing = table(("verdict", "run", "started", "calls", "lasted", ""), rows, "runs") if rows else None
    return page("Runs", tag("h1", None, "Runs"), tag("p", {"class": "soft"}, said), listing)
