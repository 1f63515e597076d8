"""The histogram against exact quantiles, at its bounds, and added up."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.bench.histogram import (
    LATENCY_NS_MAX,
    RELATIVE_ERROR_MAX,
    SUB_BUCKETS,
    Histogram,
    bucket_of,
    highest_of,
)

LATENCIES = st.integers(0, LATENCY_NS_MAX)
PARTS = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0])


def filled(values: list[int]) -> Histogram:
    """Return a histogram of `values`."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def exact(values: list[int], part: float) -> int:
    """Return the lowest value that at least `part` of all do not exceed."""
    return sorted(values)[max(1, math.ceil(round(part * len(values), 6))) - 1]


def test_the_stated_error_is_below_one_percent() -> None:
    """A quantile is at most 1 % too high, by construction."""
    assert RELATIVE_ERROR_MAX == 1 / SUB_BUCKETS <= 0.01


@given(LATENCIES)
def test_a_value_is_in_its_bucket(value: int) -> None:
    """The bucket of a value ends at or above it and within the stated error, the one before below it."""
    bucket = bucket_of(value)
    assert highest_of(bucket) >= value
    assert highest_of(bucket) - value <= RELATIVE_ERROR_MAX * value
    assert bucket == 0 or highest_of(bucket - 1) < value


@given(st.lists(LATENCIES, min_size=1, max_size=300), PARTS)
def test_a_quantile_is_never_below_the_exact_one_and_at_most_the_error_above(
    values: list[int], part: float
) -> None:
    """Every quantile lies between the exact one and 1/128 more, and never above the maximum."""
    found, wanted = filled(values).quantile(part), exact(values, part)
    assert wanted <= found <= wanted * (1 + RELATIVE_ERROR_MAX)
    assert found <= max(values)


@given(st.lists(LATENCIES, max_size=100), st.lists(LATENCIES, max_size=100))
def test_histograms_add_up(first: list[int], second: list[int]) -> None:
    """The sum of two histograms is the histogram of all their values."""
    both = filled(first)
    both.add(filled(second))
    assert both == filled(first + second)


@given(st.lists(LATENCIES, max_size=100))
def test_a_histogram_travels_as_json(values: list[int]) -> None:
    """What is parsed from JSON is the histogram that was written."""
    histogram = filled(values)
    assert Histogram.parse(json.loads(json.dumps(histogram.fields()))) == histogram


@given(st.lists(LATENCIES, min_size=1, max_size=100))
def test_sums_are_exact(values: list[int]) -> None:
    """Count, mean and maximum do not depend on buckets; the cumulated counts end with all."""
    histogram = filled(values)
    assert (histogram.count, histogram.max_ns) == (len(values), max(values))
    assert histogram.mean_ns == pytest.approx(sum(values) / len(values))
    rows = list(histogram.cumulative())
    assert rows == sorted(rows)
    assert rows[-1] == (max(values), len(values))


@pytest.mark.parametrize(
    ("value", "counted"), [(-5, 0), (LATENCY_NS_MAX, LATENCY_NS_MAX), (LATENCY_NS_MAX + 1, LATENCY_NS_MAX)]
)
def test_values_outside_of_the_range_count_as_its_ends(value: int, counted: int) -> None:
    """A value below 0 is 0, one above the limit is the limit; neither is lost."""
    histogram = filled([value])
    assert (histogram.count, histogram.max_ns, histogram.quantile(1.0)) == (1, counted, counted)


def test_an_empty_histogram_has_no_quantile() -> None:
    """Asking for a quantile of nothing is a defect of the caller."""
    with pytest.raises(AssertionError):
        Histogram().quantile(0.5)
    assert Histogram().mean_ns == 0.0
