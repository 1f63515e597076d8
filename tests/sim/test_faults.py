"""The schedule language: what is written is read back, and what is wrong is named."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import InvalidArgument
from kv.sim.faults import KINDS, POINTS, fault, format_schedule, groups, parse_schedule, sides
from kv.sim.schedule import CALM_S, MIXES, Plan, generate


def plan(nodes: int, **more: object) -> Plan:
    """A plan for so many nodes."""
    names = tuple(f"n{number + 1}" for number in range(nodes))
    return Plan(nodes=names, clients=("c1", "c2"), partitions=4, **more)  # type: ignore[arg-type]


@given(seed=st.integers(0, 10_000), nodes=st.sampled_from([1, 2, 3, 5]))
def test_what_is_written_is_read_back(seed: int, nodes: int) -> None:
    """Any drawn schedule survives being formatted and parsed."""
    drawn = generate(Random(seed), plan(nodes, flips_max=int(nodes > 2)), 60.0)
    assert parse_schedule(format_schedule(drawn)) == drawn


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1.0, 4.0]))
def test_a_drawn_schedule_ends_in_a_calm(seed: int, scale: float) -> None:
    """Faults come in order of time, each spell ends in a calm, and room for progress follows it."""
    drawn = generate(Random(seed), plan(3, scale=scale), 60.0 * scale)
    times = [one.at_s for one in drawn]
    assert times == sorted(times)
    assert drawn[-1].kind == "calm"
    for one, following in pairwise(drawn):
        if one.kind == "calm":
            assert following.at_s - one.at_s >= CALM_S * scale - 0.001


def test_every_kind_is_drawn_sooner_or_later() -> None:
    """Random schedules of all families use every kind of fault and every point of death."""
    drawn = [one for seed in range(150) for one in generate(Random(seed), plan(5, flips_max=1), 120.0)]
    assert {one.kind for one in drawn} == set(KINDS)
    assert {one.text("point") for one in drawn if one.kind == "crash_at"} == set(POINTS)


@pytest.mark.parametrize("mix", MIXES)
def test_a_family_alone_draws_its_own_faults(mix: str) -> None:
    """A plan of one family draws something."""
    assert len(generate(Random(1), plan(3, mixes=(mix,)), 120.0)) > 5


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("x crash n1", "not a time"),
        ("-1 crash n1", "seconds from 0"),
        ("1 explode n1", "no fault 'explode'"),
        ("1 crash", "seconds fault target"),
        ("1 crash n1>n2", "target"),
        ("1 cut n1", "target"),
        ("1 cut n1>n1", "target"),
        ("1 partition n1", "target"),
        ("1 heal n1", "target"),
        ("1 crash n1 power=maybe", "yes or no"),
        ("1 crash n1 speed=2", "no argument 'speed'"),
        ("1 crash_at n1", "needs point"),
        ("1 crash_at n1 point=lunch", "no point 'lunch'"),
        ("1 slow n1>n2 seconds=soon", "is a number"),
        ("1 weather * loss=1.5", "out of range"),
        ("1 clock_rate n1 rate=0", "out of range"),
        ("1 crash n1 power", "name=value"),
        ("1 crash n1 power=no power=yes", "given twice"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(line: str, complaint: str) -> None:
    """The error names the line and what is wrong with it."""
    with pytest.raises(InvalidArgument, match=r"line 3 .*") as caught:
        parse_schedule(f"# a comment\n1 calm *\n{line}\n")
    assert complaint in caught.value.message


def test_the_parts_of_targets() -> None:
    """Links have one side or two, splits have groups."""
    assert sides("a>b") == [("a", "b")]
    assert sides("a-b") == [("a", "b"), ("b", "a")]
    assert groups("a,b/c/*") == [["a", "b"], ["c"], ["*"]]


def test_arguments_have_defaults() -> None:
    """An argument that is not given has the value of its kind."""
    assert fault(1.0, "crash", "n1").flag("power") is False
    assert fault(1.0, "crash_at", "n1", point="before_sync").number("count") == 1
    assert fault(1.0, "crash", "n1", power="yes").flag("power") is True
