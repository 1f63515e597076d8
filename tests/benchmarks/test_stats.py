"""Order statistics of a benchmark: exact, and never of nothing."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stats import median, quantile, spread

VALUES = st.lists(st.floats(0, 1e9), min_size=1, max_size=50)


@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_the_least_value_with_its_share_at_or_below(values: list[float], share: float) -> None:
    """Nearest rank: it is one of the values, and of the smaller ones fewer than the share are at or below."""
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    smaller = [value for value in ordered if value < found]
    assert not smaller or len(smaller) < share * len(ordered)


@given(VALUES)
def test_median_and_range_are_those_of_the_standard_library(values: list[float]) -> None:
    """The median is `statistics.median`, the range that of min and max."""
    found = spread(values)
    assert found.median == pytest.approx(statistics.median(values))
    assert (found.low, found.high, found.count) == (min(values), max(values), len(values))


def test_nothing_has_no_statistics() -> None:
    """No values are an error, and not a zero that looks measured."""
    with pytest.raises(ValueError, match="no quantile"):
        quantile([], 0.5)
    with pytest.raises(ValueError, match="no median"):
        median([])
