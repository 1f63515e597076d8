"""Latencies as counts in log-linear buckets, after HdrHistogram (hdrhistogram.org). Pure.

Each power of two is split into `SUB_BUCKETS` buckets of equal width, so a value is known to within 1/128 of itself
(0.8 %), and below 256 ns exactly, at a cost that does not depend on how many values there are. A quantile is the
upper end of its bucket: never below the exact one. Histograms can be added, so that those of several processes or
windows of time become one without loss.

Not the package `hdrhistogram`: a hundred lines serve here, sparse and with their own form in JSON, and the store
would depend on one more compiled package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SUB_BUCKETS_BITS: Final = 7

SUB_BUCKETS: Final = 1 << SUB_BUCKETS_BITS
"""Buckets for each power of two."""

RELATIVE_ERROR_MAX: Final = 1 / SUB_BUCKETS
"""By how much of itself a quantile may be too high."""

LATENCY_NS_MAX: Final = 3_600_000_000_000
"""An hour, the longest timeout of a client; a longer latency is counted as this."""

_LINEAR_BITS: Final = SUB_BUCKETS_BITS + 1
"""Values of so many bits have a bucket each."""

_DIGITS: Final = 6
"""Decimal digits of a rank that count: 0.07 * 100 is meant to be 7."""


def bucket_of(value: int) -> int:
    """Return the number of the bucket of `value`, which is not negative."""
    shift = value.bit_length() - _LINEAR_BITS
    return value if shift <= 0 else (shift << SUB_BUCKETS_BITS) + (value >> shift)


def highest_of(bucket: int) -> int:
    """Return the highest value of a bucket."""
    shift = (bucket >> SUB_BUCKETS_BITS) - 1
    if shift <= 0:
        return bucket
    return ((bucket - (shift << SUB_BUCKETS_BITS) + 1) << shift) - 1


@dataclass(slots=True)
class Histogram:
    """Counts of latencies in nanoseconds."""

    buckets: dict[int, int] = field(default_factory=dict)
    """Bucket to count; only those that are not 0."""
    count: int = 0
    total_ns: int = 0
    """Sum of all values."""
    max_ns: int = 0
    """The highest value, exactly."""

    def record(self, value_ns: int) -> None:
        """Count one value; below 0 it is 0, above `LATENCY_NS_MAX` it is that."""
        if not 0 <= value_ns <= LATENCY_NS_MAX:
            value_ns = min(max(value_ns, 0), LATENCY_NS_MAX)
        # `bucket_of`, written out: this is the hot path
        shift = value_ns.bit_length() - _LINEAR_BITS
        bucket = value_ns if shift <= 0 else (shift << SUB_BUCKETS_BITS) + (value_ns >> shift)
        buckets = self.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        self.count += 1
        self.total_ns += value_ns
        if value_ns > self.max_ns:  # noqa: PLR1730 - a call of max costs more
            self.max_ns = value_ns

    def add(self, other: Histogram) -> None:
        """Count all values of `other` too."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count
        self.total_ns += other.total_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantile(self, part: float) -> int:
        """Return the lowest value in ns that at least `part` of all values do not exceed, at most 1/128 too high.

        `part` is in 0 to 1 and there is a value.
        """
        assert self.count, "an empty histogram has no quantiles"
        assert 0.0 <= part <= 1.0, f"{part} is no part of a whole"
        rank = max(1, math.ceil(round(part * self.count, _DIGITS)))
        return next(value for value, below in self.cumulative() if below >= rank)

    def cumulative(self) -> Iterator[tuple[int, int]]:
        """Yield each bucket in order: its highest value, and how many values do not exceed that."""
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            yield min(highest_of(bucket), self.max_ns), seen

    @property
    def mean_ns(self) -> float:
        """The mean, exactly; 0 without values."""
        return self.total_ns / self.count if self.count else 0.0

    def fields(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return {
            "buckets": [[bucket, self.buckets[bucket]] for bucket in sorted(self.buckets)],
            "total_ns": self.total_ns,
            "max_ns": self.max_ns,
        }

    @staticmethod
    def parse(fields: Mapping[str, Any]) -> Histogram:
        """Return the histogram of `fields`."""
        buckets = {int(bucket): int(count) for bucket, count in fields["buckets"]}
        return Histogram(buckets, sum(buckets.values()), int(fields["total_ns"]), int(fields["max_ns"]))
