"""Goals: judged by medians in one run, by the best work where several count, never without a measurement."""

from __future__ import annotations

import pytest

from benchmarks.goals import ETCD, GOALS, RINGKV, Figure, Goal, Verdict, judge, per_s
from benchmarks.options import ROWS
from benchmarks.record import Run, Sample

GOAL = Goal("x", 1, "ours over theirs", per_s(RINGKV, "a"), per_s(ETCD, "b", "c"), 2.0)


def samples(system: str, work: str, *rates: float, metric: str = "per_s") -> list[Sample]:
    """Return one sample for each round."""
    return [Sample(1, system, work, number, {metric: rate}) for number, rate in enumerate(rates)]


def test_the_ratio_is_that_of_the_medians_and_its_range_that_of_the_rounds() -> None:
    """An outlier in one round does not move the ratio, and is seen in the range."""
    run = Run(samples=samples(RINGKV, "a", 20, 30, 200) + samples(ETCD, "b", 10, 10, 20))
    found = judge(GOAL, run)
    assert found.verdict is Verdict.MET
    assert found.value is not None
    assert (found.value.median, found.value.low, found.value.high) == (3.0, 2.0, 10.0)


def test_of_several_works_of_a_peer_the_best_counts() -> None:
    """The best of etcd is the work with the highest median, and the judgement names it."""
    run = Run(samples=samples(RINGKV, "a", 30) + samples(ETCD, "b", 10) + samples(ETCD, "c", 20))
    found = judge(GOAL, run)
    assert found.verdict is Verdict.MISSED
    assert (found.base, found.works) == (20, ("a", "c"))


@pytest.mark.parametrize(("seconds", "verdict"), [(0.7, Verdict.MET), (0.71, Verdict.MISSED)])
def test_a_goal_may_ask_for_at_most(seconds: float, verdict: Verdict) -> None:
    """At the bound it is met, above it is not."""
    goal = Goal("y", 1, "time", Figure(RINGKV, ("a",), "s", least=True), None, 0.7, at_most=True)
    assert judge(goal, Run(samples=samples(RINGKV, "a", seconds, metric="s"))).verdict is verdict


@pytest.mark.parametrize("there", [[], samples(RINGKV, "a", 1), samples(ETCD, "b", 1)])
def test_what_was_not_measured_is_neither_met_nor_missed(there: list[Sample]) -> None:
    """Either side alone says nothing."""
    assert judge(GOAL, Run(samples=there)).verdict is Verdict.UNKNOWN


def test_a_peer_at_zero_is_no_division_by_zero() -> None:
    """Whatever beats nothing beats it."""
    run = Run(samples=samples(RINGKV, "a", 1) + samples(ETCD, "b", 0))
    assert judge(GOAL, run).verdict is Verdict.MET


def test_every_row_has_a_goal_and_every_goal_a_name_of_its_own() -> None:
    """The table of goals covers all rows."""
    assert {goal.row for goal in GOALS} == set(ROWS)
    assert len({goal.id for goal in GOALS}) == len(GOALS)
