"""The report: everything that was measured is in it, and it is made from the file alone."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks.goals import GOALS, Verdict, judge
from benchmarks.record import Missing, Run, Sample
from benchmarks.report import plots
from benchmarks.report.figures import TITLES, lines, number
from benchmarks.report.html_page import page
from benchmarks.report.markdown import document


def full_run() -> Run:
    """Return a run in which every goal has figures, ours three times theirs."""
    samples: list[Sample] = []
    for goal in GOALS:
        for place, figure in enumerate((goal.base, goal.figure)):
            if figure is not None:
                rounds = [(number, 10.0 * 3**place + number) for number in range(3)]
                work = figure.works[0]
                samples += [Sample(goal.row, figure.system, work, n, {figure.metric: v}) for n, v in rounds]
    samples.append(Sample(9, "ringkv", "long", 0, {"per_s": 2.0}, series=tuple(map(float, range(1500)))))
    missing = [Missing(5, "NATS KV", 1, "not <installed> | here")]
    return Run({"date": "today", "cpu": "2 x <cpu>"}, ("python -m benchmarks run",), samples, missing)


def test_markdown_has_every_goal_row_fact_and_command() -> None:
    """Nothing that the run says is left out."""
    run = full_run()
    text = document(run)
    for goal in GOALS:
        assert goal.text in text
        assert f"**{judge(goal, run).verdict}**" in text
    for row in {goal.row for goal in GOALS}:
        assert f"## {row}. {TITLES[row]}" in text
    assert "2 x <cpu>" in text
    assert "python -m benchmarks run" in text
    assert "not measured: NATS KV, round 2: not <installed> | here" in text


def test_the_page_needs_nothing_else_and_its_plots_are_whole() -> None:
    """No script, no address to load from; what is data is escaped; each plot is well-formed."""
    text = page(full_run())
    assert "<script" not in text
    assert not re.search(r"(?:src|href)\s*=|url\(|@import", text)
    assert "<cpu>" not in text
    assert "2 x &lt;cpu&gt;" in text
    drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawn) == 1 + len({goal.row for goal in GOALS}) + 1, "goals, rows, and the long load"
    for svg in drawn:
        ET.fromstring(svg)


def test_an_empty_run_has_a_report_too() -> None:
    """A run that was stopped at once says that nothing was measured."""
    assert f"{len(GOALS)} {Verdict.UNKNOWN}" in document(Run())
    assert f"{len(GOALS)} {Verdict.UNKNOWN}" in page(Run())


def test_the_lines_of_a_row_keep_systems_together() -> None:
    """However the rounds alternated, a system's works stand beside each other, with one value for each round."""
    order = [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")]
    run = Run(samples=[Sample(1, system, work, n, {"per_s": n}) for n, (system, work) in enumerate(order)])
    found = lines(run, 1)
    assert [(line.system, line.work) for line in found] == [("a", "x"), ("a", "y"), ("b", "x")]
    assert found[0].values == (0, 3)


def test_what_nobody_refused_is_not_shown() -> None:
    """Columns of zeros say nothing; one refusal shows them."""
    quiet = {"per_s": 1.0, "refused_per_s": 0.0, "definite_share": 1.0}
    run = Run(
        samples=[Sample(1, "a", "x", 0, quiet), Sample(1, "a", "y", 0, {**quiet, "refused_per_s": 2.0})]
    )
    first, second = lines(run, 1)
    assert list(first.metrics) == ["per_s"]
    assert list(second.metrics) == ["per_s", "refused_per_s", "definite_share"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.04, "0.040"), (0.7, "0.70"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    """Enough to compare, no more."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.9, 1), (1, 1), (1.2, 2), (24, 25), (260, 500), (6e5, 1e6)]
)
def test_axes_end_at_round_numbers(value: float, top: float) -> None:
    """At or above the greatest value."""
    assert plots.nice(value) == pytest.approx(top)
