"""Scales, ticks and curves of the plots."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.bench.plot import Curve, Frame, decades, legend, ticks


@given(st.floats(0, 1e6), st.floats(1e-6, 1e6), st.integers(1, 12))
def test_ticks_are_round_in_range_and_few(low: float, span: float, count: int) -> None:
    """Ticks are inside the range, in order, and at most one more than wanted."""
    found = ticks(low, low + span, count)
    assert found == sorted(found)
    assert len(found) <= count + 1
    slack = span * 1e-6 + 1e-8
    assert all(low - slack <= at <= low + span + slack for at in found)


def test_ticks_of_no_range_are_its_place() -> None:
    """A range without width has one tick, not an endless number."""
    assert ticks(3.0, 3.0, 5) == [3.0]


@given(st.floats(1e-6, 1e9), st.floats(1, 1e6))
def test_decades_surround(low: float, factor: float) -> None:
    """The decades are whole powers of ten around the range, at least one apart."""
    first, last = decades(low, low * factor)
    assert first <= low * (1 + 1e-9)
    assert last >= low * factor * (1 - 1e-9)
    assert last / first >= 9.99
    assert math.log10(first) == pytest.approx(round(math.log10(first)))


def test_a_frame_maps_values_to_places() -> None:
    """The ends of a scale are the ends of the plot, the middle of a logarithmic one is its geometric mean."""
    linear, log = Frame(10.0, 0.0, 100.0), Frame(10.0, 1.0, 100.0, log=True)
    assert (linear.x(0.0), linear.x(10.0)) == (60.0, 706.0)
    assert (linear.y(0.0), linear.y(100.0)) == (224.0, 12.0)
    assert log.y(10.0) == linear.y(50.0)
    assert log.y(0.001) == log.y(1.0)


def test_a_gap_interrupts_a_curve() -> None:
    """A place without a value is not bridged, and a lone point is drawn."""
    frame = Frame(4.0, 0.0, 1.0)
    drawn = frame.curve(Curve("p50", 1, [(0.0, 1.0), (1.0, 1.0), (2.0, None), (3.0, 0.0)]))
    assert drawn.count("M") == 2
    assert drawn.count("L") == 1
    assert 'class="curve c1"' in drawn


def test_names_are_escaped() -> None:
    """What a curve is called cannot become markup."""
    assert "<b>" not in legend([Curve("<b>", 0, [])])
    assert "&lt;b&gt;" in legend([Curve("<b>", 0, [])])
