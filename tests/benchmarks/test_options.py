"""What a run may be asked for, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.cli import rows
from benchmarks.options import KEYS_MIN, ROUNDS_MAX, Options


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"rows": (14,)}, "14"),
        ({"rows": ()}, "none given"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": ROUNDS_MAX + 1}, "rounds"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"keys": KEYS_MIN - 1}, "keys"),
        ({"kills": 0}, "kills"),
        ({"warmup_s": -1.0}, "warmup_s"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    """Each bound has an error that names the option."""
    with pytest.raises(ValueError, match=named):
        Options(**given)


def test_the_bounds_themselves_are_allowed() -> None:
    """At the bound is inside."""
    assert Options(rounds=ROUNDS_MAX, keys=KEYS_MIN, warmup_s=0.0).rounds == ROUNDS_MAX


@pytest.mark.parametrize(("kills", "rounds", "each"), [(20, 5, 4), (20, 6, 4), (1, 5, 1)])
def test_the_rounds_together_kill_at_least_as_often_as_asked(kills: int, rounds: int, each: int) -> None:
    """The kills are spread over the rounds, rounded up."""
    assert Options(kills=kills, rounds=rounds).kills_per_round == each


def test_rows_are_read_as_numbers_and_ranges() -> None:
    """Each row once, in the order given."""
    assert rows("3,1-2,2") == (3, 1, 2)
    with pytest.raises(ValueError, match="invalid literal"):
        rows("a")
