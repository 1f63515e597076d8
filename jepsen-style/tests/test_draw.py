"""Random schedules."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen.draw import FAMILIES, blocked, draw_schedule
from kv_jepsen.history import Op, OpType
from kv_jepsen.nemesis import note_of
from kv_jepsen.periods import periods
from kv_jepsen.schedule import BadSchedule, format_schedule, parse_schedule

NODES = ("n1", "n2", "n3", "n4", "n5")


@given(
    st.integers(0, 2**32),
    st.integers(2, 9),
    st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=4, unique=True),
    st.floats(1, 120),
)
def test_a_drawn_schedule_is_one(seed: int, nodes: int, families: list[str], seconds: float) -> None:
    """Every drawn schedule can be written, read back, has a fault, and ends in calm."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    drawn = draw_schedule(Random(seed), names, families, seconds)
    assert parse_schedule(format_schedule(drawn)) == drawn
    assert len(drawn) > 1
    assert drawn[-1].kind == "calm"
    assert drawn == draw_schedule(Random(seed), names, families, seconds)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"kill_leader", "pause_leader"}))
def test_what_is_begun_is_ended(family: str) -> None:
    """The faults of a family are over before the calm, by the words that end them."""
    drawn = draw_schedule(Random(5), NODES, [family], 20)
    notes = [
        Op(i, "nemesis", OpType.INFO, note_of(one), None, one.target, int(one.at_s * 1e9))
        for i, one in enumerate(drawn)
        if one.kind != "calm" and not (one.kind == "weather" and not one.arguments)
    ]
    left = [p for p in periods(notes) if p.end_ns is None and p.kind != "weather"]
    assert not left


@given(st.integers(0, 2**32), st.integers(3, 9))
def test_a_ring_and_a_bridge_leave_a_majority_to_someone(seed: int, nodes: int) -> None:
    """In a majority ring every node still reaches a majority; over a bridge at least one does."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    for family, all_of_them in (("ring", True), ("bridge", False)):
        drawn = draw_schedule(Random(seed), names, [family], 8)
        cut = {frozenset(one.target.split("-")) for one in drawn if one.kind == "cut"}
        assert cut
        reach = [sum(frozenset((a, b)) not in cut for b in names if b != a) + 1 for a in names]
        enough = [count > nodes // 2 for count in reach]
        assert all(enough) if all_of_them else any(enough)


def test_no_families_is_calm() -> None:
    """Without families nothing goes wrong."""
    assert [one.kind for one in draw_schedule(Random(1), NODES, [], 10)] == ["calm"]


def test_bad_requests_are_refused() -> None:
    """An unknown family, or a cluster of one, is refused with what to do."""
    with pytest.raises(BadSchedule, match="give of partition"):
        draw_schedule(Random(1), NODES, ["meteor"], 10)
    with pytest.raises(BadSchedule, match="two nodes"):
        draw_schedule(Random(1), ["n1"], ["kill"], 10)


def test_blocked_links() -> None:
    """A split cuts both ways between its groups, a star is all others, and who is not named is not cut."""
    assert set(blocked([["n1"], ["*"]], NODES[:3])) == {
        ("n1", "n2"),
        ("n2", "n1"),
        ("n1", "n3"),
        ("n3", "n1"),
    }
    assert set(blocked([["n1"], ["n2"]], NODES[:3])) == {("n1", "n2"), ("n2", "n1")}
