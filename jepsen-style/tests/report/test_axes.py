"""Axes: round ticks within the range, places within the frame."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen.report.axes import BOTTOM, LEFT, RIGHT, TOP, Frame, decades, ticks

RANGES = st.tuples(st.floats(0, 1e5), st.floats(0.001, 1e6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(RANGES, st.integers(1, 12))
def test_ticks_are_within_the_range_and_few(limits: tuple[float, float], count: int) -> None:
    """No tick is outside, and there are not many more than were asked for."""
    low, high = limits
    found = ticks(low, high, count)
    assert len(found) <= count + 1
    slack = (high - low) * 1e-6 + 1e-8
    assert all(low - slack <= value <= high + slack for value in found)


def test_ticks_are_round() -> None:
    """Steps are 1, 2 or 5 times a power of ten."""
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(0, 0.7, 5) == [0, 0.2, 0.4, 0.6]
    assert ticks(5, 5, 5) == [5]


@given(st.floats(0.001, 1e6), st.floats(1, 1e4))
def test_decades_hold_the_range(low: float, factor: float) -> None:
    """Whole powers of ten around any range, also around a single value."""
    first, last = decades(low, low * factor)
    assert first <= low * (1 + 1e-9)
    assert last >= low * factor * (1 - 1e-9)
    assert last > first


@given(st.floats(0, 100), st.floats(0.1, 1000), st.booleans())
def test_places_are_within_the_frame(at_s: float, value: float, log: bool) -> None:
    """Whatever is within the limits is drawn between the axes."""
    frame = Frame(100.0, 0.1 if log else 0.0, 1000.0, log=log)
    assert LEFT <= frame.x(at_s) <= frame.width - RIGHT
    assert TOP <= frame.y(value) <= frame.height - BOTTOM
