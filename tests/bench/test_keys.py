"""Names of keys, and how their numbers are drawn."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.bench.keys import (
    PREFIX,
    PREFIX_END,
    THETA_MAX,
    key_bytes_min,
    key_name,
    uniform_choice,
    zipfian_choice,
)
from kv.errors import InvalidArgument

DRAWS = 20_000


@given(st.integers(1, 10**9), st.integers(0, 40), st.data())
def test_names_have_their_length_and_the_order_of_numbers(keys: int, more: int, data: st.DataObject) -> None:
    """Every name has the wanted length, begins with the prefix, and names are in the order of numbers."""
    name = key_name(key_bytes_min(keys) + more)
    first, second = sorted(data.draw(st.tuples(st.integers(0, keys - 1), st.integers(0, keys - 1))))
    assert len(name(first)) == len(name(second)) == key_bytes_min(keys) + more
    assert name(first) <= name(second)
    assert (name(first) == name(second)) == (first == second)
    assert PREFIX <= name(first) < PREFIX_END


@given(
    st.integers(1, 10**9),
    st.floats(1e-3, THETA_MAX) | st.sampled_from([0.5, 0.99, 1.0, 1.0 + 1e-12, 2.0]),
    st.integers(0, 2**32),
)
def test_a_zipfian_choice_is_a_key(keys: int, theta: float, seed: int) -> None:
    """Whatever the theta and the number of keys, what is drawn is one of them."""
    choose = zipfian_choice(keys, theta, random.Random(seed).random)
    assert all(0 <= choose() < keys for _ in range(20))


@given(st.integers(1, 10**9), st.sampled_from([0.0, 0.5, 1 - 2**-53]))
def test_a_uniform_choice_is_a_key(keys: int, drawn: float) -> None:
    """The lowest and the highest uniform number give keys that are there."""
    assert 0 <= uniform_choice(keys, lambda: drawn)() < keys


@pytest.mark.parametrize("theta", [0.2, 0.99, 1.0, 1.5, 3.0])
def test_a_zipfian_choice_has_the_shares_of_its_law(theta: float) -> None:
    """Each of ten keys is drawn as often as 1 / (k + 1) ** theta says, within five standard deviations."""
    keys = 10
    choose = zipfian_choice(keys, theta, random.Random(7).random)
    counts = [0] * keys
    for _ in range(DRAWS):
        counts[choose()] += 1
    whole = sum((k + 1) ** -theta for k in range(keys))
    for k, count in enumerate(counts):
        share = (k + 1) ** -theta / whole
        assert abs(count - DRAWS * share) <= 5 * (DRAWS * share * (1 - share)) ** 0.5, f"key {k}"


@pytest.mark.parametrize("theta", [0.0, -1.0, THETA_MAX + 0.1, float("nan")])
def test_a_theta_out_of_range_is_refused(theta: float) -> None:
    """Theta is above 0 and at most its limit."""
    with pytest.raises(InvalidArgument, match="theta"):
        zipfian_choice(10, theta, random.Random(1).random)
