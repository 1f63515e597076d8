"""Faults with what ends them."""

from __future__ import annotations

import pytest

from kv_jepsen.minimize import schedule_of, spells
from kv_jepsen.schedule import format_schedule, parse_schedule

WHOLE = """
1.000  partition  n1/*
1.500  crash  n2
2.000  heal  *
2.500  start  n2
3.000  pause  leader:1
3.500  resume  *
4.000  weather  *  loss=0.1
5.000  weather  *
6.000  slow  n1>n2  seconds=0.1
7.000  slow  n1>n2  seconds=0
8.000  calm  *
"""


def test_only_what_does_harm_is_a_spell() -> None:
    """Ends of faults are none, nor is weather that is over."""
    found = [spell.fault.kind for spell in spells(parse_schedule(WHOLE))]
    assert found == ["partition", "crash", "pause", "weather", "slow"]


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("partition", ["partition", "heal", "calm"]),
        ("crash", ["crash", "start", "calm"]),
        ("pause", ["pause", "resume", "calm"]),
        ("weather", ["weather", "weather", "calm"]),
        ("slow", ["slow", "slow", "calm"]),
    ],
)
def test_a_fault_keeps_its_end(kind: str, left: list[str]) -> None:
    """With one fault its own end stays, the ends of others go, and the calm at the end stays."""
    whole = parse_schedule(WHOLE)
    kept = [spell for spell in spells(whole) if spell.fault.kind == kind]
    assert [one.kind for one in schedule_of(whole, kept)] == left


def test_all_and_none() -> None:
    """All faults are the whole schedule; none of them is calm."""
    whole = parse_schedule(WHOLE)
    assert schedule_of(whole, spells(whole)) == whole
    assert format_schedule(schedule_of(whole, [])) == "8.000  calm  *\n"


def test_the_end_of_another_node_goes() -> None:
    """What ends a fault of one node does not stay for that of another."""
    whole = parse_schedule("1 crash n1\n2 crash n2\n3 start n1\n4 start n2\n5 calm *\n")
    kept = spells(whole)[1:]
    assert [str(one.target) for one in schedule_of(whole, kept)] == ["n2", "n2", "*"]
