"""What a model of an object is: the interface that searches use, and the signs that stand for what no client can write.

The objects themselves are in `models`. No search here, no concurrency.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from typing import ClassVar, TypeAlias

from kv_jepsen.history import Call, Outcome, Value
from kv_jepsen.horizons import Horizon

State: TypeAlias = Hashable


class Sign(Enum):
    """Values that no client can write."""

    UNKNOWN = "unknown output"
    ANY = "any state"
    OTHER = "a value nobody asks for"
    DEAD = "a value nobody reads"


UNKNOWN, ANY, OTHER, DEAD = Sign.UNKNOWN, Sign.ANY, Sign.OTHER, Sign.DEAD


class UnsuitableHistory(ValueError):
    """The history has a call that the model does not know; the message says which and what to do.

    Attributes:
        index: of the operation that invoked it; None if it is about more than one.
    """

    def __init__(self, problem: str, index: int | None = None) -> None:
        super().__init__(problem)
        self.index = index


class Model:
    """A sequential specification.

    Class attributes:
        name: by which users choose it.
        functions: those it knows.
        reads: functions that do nothing but answer; a call whose answer is unknown says nothing.
        blind: functions that always succeed and whose next state does not depend on the one before.
        total: functions that succeed in every state (whatever their output, for the calls of a history).
        commuting: total functions of which any two calls may change places without a trace.
    """

    name: ClassVar[str]
    functions: ClassVar[frozenset[str]]
    reads: ClassVar[frozenset[str]] = frozenset()
    blind: ClassVar[frozenset[str]] = frozenset()
    total: ClassVar[frozenset[str]] = frozenset()
    commuting: ClassVar[frozenset[str]] = frozenset()

    def init(self) -> State:
        """Return the state before the first call."""
        return None

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """Return whether `f(value)` in `state` can return `output`, and the state after it.

        The second member has no meaning if the first is False.
        """
        raise NotImplementedError

    def affinity(self, f: str, value: Value, output: Value) -> State:
        """Return the one state in which this call can do anything but fail or overwrite blindly, or `ANY`."""
        del f, value, output
        return ANY

    def fitted(self, calls: Sequence[Call]) -> tuple[Model, list[Call]]:
        """Return a model that gives the same verdict on exactly these calls with fewer states, and the calls for it."""
        return self, list(calls)

    def proposed(self, calls: Sequence[Call]) -> Sequence[Call] | None:
        """Return an order that seems to be a linearization and is found without a search, if there is one; it is yet to be verified."""
        del calls
        return None

    def horizon(self, calls: Sequence[Call], entry: Sequence[State]) -> Horizon | None:
        """Return which states these calls together leave possible at which position, if they say anything.

        `entry` are the states in which the object may be before the first of them.
        """
        del calls, entry
        return None

    def problem(self, call: Call) -> str:
        """Return what is wrong with the shape of a call of a known function; empty if nothing is."""
        del call
        return ""

    def described(self, state: State) -> str:
        """Return `state` in words, for reports."""
        return state.value if isinstance(state, Sign) else repr(state)

    def observed(self, call: Call) -> Call | None:
        """Return the call that a failed one amounts to (a refusal tells something about the state), or None."""
        del call
        return None

    def taking_part(self, calls: Iterable[Call]) -> list[Call]:
        """Return the calls that can matter: no failed ones, no reads of unknown result.

        Raises:
            UnsuitableHistory: a call that this model does not know.
        """
        return [taken for call in calls if (taken := self._taken(call)) is not None]

    def _taken(self, call: Call) -> Call | None:
        if call.f not in self.functions:
            raise UnsuitableHistory(
                f"operation {call.id}: the model {self.name} has no {call.f!r} (it has "
                f"{', '.join(sorted(self.functions))}); choose another with --model",
                call.id,
            )
        if problem := self.problem(call):
            raise UnsuitableHistory(f"operation {call.id}: {call.f} of {self.name}: {problem}", call.id)
        if call.outcome is Outcome.FAILED:
            return self.observed(call)
        if call.outcome is Outcome.UNKNOWN:
            return None if call.f in self.reads else replace(call, output=UNKNOWN)
        return call


def pair_problem(value: Value, what: str) -> str:
    """Return what is wrong with a value that should be a pair; empty if nothing is."""
    good = isinstance(value, tuple) and len(value) == 2
    return "" if good else f"its value is a pair of {what}, this is {value!r}"


def two(value: Value) -> tuple[Value, Value]:
    """Return both members of a pair."""
    assert isinstance(value, tuple), "Model.problem admits pairs only"
    return value[0], value[1]


def count(value: Value) -> int:
    """Return a whole number as what it is."""
    assert isinstance(value, int), f"a number was expected, this is {value!r}"
    return value
