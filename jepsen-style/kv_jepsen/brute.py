"""Linearizability of small histories by trying everything: the definition, without an idea.

For tests, which compare the real search with it. Exponential in every way.
"""

from __future__ import annotations

from collections.abc import Sequence

from kv_jepsen.history import OPEN, Call
from kv_jepsen.models import Model, State

CALLS_MAX = 16
"""More calls are refused: 16 concurrent ones have 20 billion orders."""


def linearizable(model: Model, calls: Sequence[Call]) -> bool:
    """Return whether some order of the calls, and some choice among those of unknown outcome, fits model and real time.

    Args:
        model: not fitted, so that a mistake in fitting shows.
        calls: those that take part (`Model.taking_part`).

    Raises:
        ValueError: more than `CALLS_MAX` calls.
    """
    if len(calls) > CALLS_MAX:
        raise ValueError(f"brute force takes up to {CALLS_MAX} calls, these are {len(calls)}")
    return _extends(model, model.init(), list(calls))


def _extends(model: Model, state: State, left: list[Call]) -> bool:
    if all(call.end == OPEN for call in left):
        return True
    first_end = min(call.end for call in left)
    for place, call in enumerate(left):
        if call.start < first_end:
            possible, after = model.step(state, call.f, call.input, call.output)
            if possible and _extends(model, after, left[:place] + left[place + 1 :]):
                return True
    return False
