"""When the operations of an open loop are due, however the store fares. Pure; uniform numbers are an argument.

Latency counts from these times, not from when the generator got around to it, so that a store that stalls is
charged with the wait of every operation that was due meanwhile (no coordinated omission: G. Tene, "How NOT to
Measure Latency", 2013).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Final

NS_PER_S: Final = 1_000_000_000


def constant(rate_per_s: float, phase: float) -> Iterator[int]:
    """Yield times in ns at even distances, the first after `phase` (0 to 1) of a distance, for ever."""
    for number in itertools.count():
        yield round((number + phase) / rate_per_s * NS_PER_S)


def poisson(rate_per_s: float, uniform: Callable[[], float]) -> Iterator[int]:
    """Yield the times in ns of a Poisson process, for ever: its gaps are exponential with mean 1 / rate."""
    at_s = 0.0
    while True:
        at_s -= math.log(1.0 - uniform()) / rate_per_s
        yield round(at_s * NS_PER_S)
