"""Order statistics of few numbers: quantile, median, spread.

Pure. Medians and ranges, not means and deviations: rounds are few, and a disturbed one must not move the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, their least and their greatest."""

    median: float
    low: float
    high: float
    count: int


def quantile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile of `values`, which are sorted: the least value with `share` at or below it.

    Raises `ValueError` without values.
    """
    if not values:
        raise ValueError("no values have no quantile")
    return values[max(math.ceil(share * len(values)), 1) - 1]


def median(values: Sequence[float]) -> float:
    """Return the median, of an even number of values the mean of the middle two. Raises `ValueError` without values."""
    if not values:
        raise ValueError("no values have no median")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> Spread:
    """Return median and range. Raises `ValueError` without values."""
    return Spread(median(values), min(values), max(values), len(values))
