"""The gate: what is called while a node answers travels together, and nothing waits for long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client.gate import PATIENCE_MAX_S, PATIENCE_MIN_S, PATIENCE_TIMES, Gate


def test_a_lone_request_leaves_at_once() -> None:
    """With nothing under way there is nothing to wait for."""
    gate = Gate()
    assert gate.opens_at(turn=1, now=5.0) == 5.0


def test_what_leaves_in_one_turn_is_one_wave() -> None:
    """Requests of the same turn never wait for each other; those of the next turn wait for all of them."""
    gate = Gate()
    first, second = gate.sent(1, 5.0), gate.sent(1, 5.0)
    assert first is second
    assert gate.opens_at(1, 5.0) == 5.0
    assert gate.opens_at(2, 5.0) > 5.0
    gate.ended(first, 5.0005)
    assert gate.opens_at(2, 5.0005) > 5.0005
    gate.ended(second, 5.0006)
    assert gate.opens_at(2, 5.0006) == 5.0006


def test_a_wave_without_an_answer_holds_up_others_for_its_patience_only() -> None:
    """A partition that cannot answer must not stop the others of its node: the second wave is late, no later one."""
    gate = Gate()
    gate.sent(1, 5.0)
    assert gate.opens_at(2, 5.0) == 5.0 + gate.patience_s
    late = 5.0 + gate.patience_s
    assert gate.opens_at(2, late) == late
    wave = gate.sent(2, late)
    gate.ended(wave, late)
    assert gate.opens_at(3, late) == late, "the old one does not count any more"


@given(times=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=50))
def test_the_patience_follows_the_waves_within_its_bounds(times: list[float]) -> None:
    """It is about twice the usual time of a wave, whatever the waves do."""
    gate = Gate()
    now = 0.0
    for turn, taken in enumerate(times):
        wave = gate.sent(turn, now)
        now += taken
        gate.ended(wave, now)
    assert PATIENCE_MIN_S <= gate.patience_s <= PATIENCE_MAX_S


def test_the_patience_is_of_the_order_of_a_round_trip() -> None:
    """After many waves of 4 ms it is twice that."""
    gate = Gate()
    now = 0.0
    for turn in range(200):
        wave = gate.sent(turn, now)
        now += 0.004
        gate.ended(wave, now)
    assert gate.patience_s == pytest.approx(0.004 * PATIENCE_TIMES, rel=0.01)
