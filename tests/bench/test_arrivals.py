"""When the operations of an open loop are due."""

from __future__ import annotations

import itertools
import random

import pytest

from kv.bench.arrivals import NS_PER_S, constant, poisson

ARRIVALS = 20_000


def test_constant_arrivals_are_even_and_do_not_drift() -> None:
    """The n-th arrival is at n / rate, however large n is."""
    times = list(itertools.islice(constant(3.0, 0.0), 300_001))
    assert times[:4] == [0, 333_333_333, 666_666_667, NS_PER_S]
    assert times[-1] == 100_000 * NS_PER_S


def test_processes_take_turns() -> None:
    """Constant arrivals of several processes, each with its phase, are even together."""
    shares = [list(itertools.islice(constant(100.0, index / 4), 50)) for index in range(4)]
    times = sorted(itertools.chain(*shares))
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {NS_PER_S // 400}


def test_poisson_arrivals_have_exponential_gaps() -> None:
    """The gaps have the mean 1 / rate and a variance of its square, within five standard errors."""
    rate = 1000.0
    times = list(itertools.islice(poisson(rate, random.Random(3).random), ARRIVALS))
    assert times == sorted(times)
    gaps = [(later - earlier) / NS_PER_S * rate for earlier, later in itertools.pairwise([0, *times])]
    mean = sum(gaps) / ARRIVALS
    variance = sum((gap - mean) ** 2 for gap in gaps) / ARRIVALS
    assert mean == pytest.approx(1.0, abs=5 / ARRIVALS**0.5)
    assert variance == pytest.approx(1.0, abs=5 * (8 / ARRIVALS) ** 0.5)


def test_the_highest_uniform_number_gives_a_time() -> None:
    """A uniform number just below 1 is no infinite gap."""
    assert next(poisson(1.0, lambda: 1 - 2**-53)) < 40 * NS_PER_S
