"""The order that the replies themselves claim, verified in linear time.

A store that tells the log index of each answer (`extra["index"]`) says in which order its calls took effect: writes at their
index, reads after the write of theirs. If that order fits the model and real time, the history is linearizable, and no search is
needed. If it does not, nothing is decided: the search is asked. So this path can never disagree with the search, only save it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kv_jepsen.history import OPEN, Call
from kv_jepsen.models import Model, State


@dataclass(frozen=True, slots=True)
class Witness:
    """What became of the claimed order.

    Attributes:
        order: the verified linearization; None if there is none.
        problem: why the claim does not hold; empty if it does or if there is no claim.
    """

    order: tuple[Call, ...] | None = None
    problem: str = ""


def witnessed(model: Model, calls: Sequence[Call]) -> Witness:
    """Verify the order claimed by the evidence of `calls` (those of `Model.taking_part`).

    Every completed call needs an index for a claim. Calls of unknown outcome are put in where the next answer needs
    one of them, and left out otherwise.
    """
    known = [call for call in calls if call.end != OPEN]
    if not known or any(not isinstance(call.extra.get("index"), int) for call in known):
        return Witness()
    known.sort(key=lambda call: (call.extra["index"], call.f in model.reads, call.start))
    lost = [call for call in calls if call.end == OPEN]
    order = _replayed(model, known, lost)
    if isinstance(order, str):
        return Witness(problem=order)
    problem = _out_of_time(order)
    return Witness(problem=problem) if problem else Witness(order=tuple(order))


def verified(model: Model, order: Sequence[Call], calls: Sequence[Call]) -> bool:
    """Whether an order is a linearization of calls: it has each that ended, and none twice, fits the model and real time."""
    ids = {call.id for call in order}
    if len(ids) != len(order) or any(call.end != OPEN and call.id not in ids for call in calls):
        return False
    state = model.init()
    for call in order:
        possible, state = model.step(state, call.f, call.input, call.output)
        if not possible:
            return False
    return not _out_of_time(order)


def _replayed(model: Model, known: list[Call], lost: list[Call]) -> list[Call] | str:
    """Return the order with the lost calls that it needs, or what does not fit."""
    state = model.init()
    order: list[Call] = []
    for call in known:
        possible, after = model.step(state, call.f, call.input, call.output)
        if not possible:
            helper, after = _helper(model, state, call, lost)
            if helper is None:
                return f"operation {call.id} ({call.f} at index {call.extra['index']}) does not fit {model.described(state)}"
            lost.remove(helper)
            order.append(helper)
        order.append(call)
        state = after
    return order


def _helper(model: Model, state: State, call: Call, lost: list[Call]) -> tuple[Call | None, State]:
    """Return the lost call that makes `call` possible, and the state after both."""
    for other in lost:
        if other.start < call.end:
            possible, between = model.step(state, other.f, other.input, other.output)
            fits, after = model.step(between, call.f, call.input, call.output) if possible else (False, state)
            if fits:
                return other, after
    return None, state


def _out_of_time(order: Sequence[Call]) -> str:
    """Return which call stands behind one that began after its end; empty if none does."""
    latest: Call | None = None
    for call in order:
        if latest is not None and call.end < latest.start:
            return f"operation {call.id} ended before operation {latest.id} began, and stands behind it"
        if latest is None or call.start > latest.start:
            latest = call
    return ""
