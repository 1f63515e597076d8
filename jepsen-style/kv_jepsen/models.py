"""The objects whose histories can be judged, by the names users give them, and which one a history speaks of.

The objects are in `registers` and `containers`, what a model is in `model`. A hint of a model that is missing costs the search
time, a wrong one costs the verdict: `tests/test_models.py` checks each against `step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kv_jepsen.containers import Bank, Counter, Mutex, Queue, Set
from kv_jepsen.history import Call, Value
from kv_jepsen.model import ANY, DEAD, OTHER, UNKNOWN, Model, State, UnsuitableHistory
from kv_jepsen.registers import KvString, Register, RevisionRegister, VersionedRegister

__all__ = [
    "ANY",
    "DEAD",
    "MODELS",
    "OTHER",
    "UNKNOWN",
    "Bank",
    "Counter",
    "KvString",
    "Model",
    "Mutex",
    "Queue",
    "Register",
    "RevisionRegister",
    "Set",
    "State",
    "UnsuitableHistory",
    "VersionedRegister",
    "model_for",
]

MODELS: Mapping[str, Callable[[], Model]] = {
    model.name: model
    for model in (
        Register,
        VersionedRegister,
        RevisionRegister,
        KvString,
        Set,
        Counter,
        Queue,
        Bank,
        Mutex,
    )
}
"""Every model by the name users give it."""


def model_for(calls: Sequence[Call]) -> Model:
    """Return the model that the functions and results of `calls` speak of.

    Raises:
        UnsuitableHistory: none knows them all, or more than one does and results do not decide.
    """
    used = {call.f for call in calls}
    if used <= Register.functions:
        return VersionedRegister() if _all_reads(calls, _is_versioned) else Register()
    if used <= {"add", "read"}:
        return Set() if _all_reads(calls, lambda output: isinstance(output, tuple | frozenset)) else Counter()
    known = [name for name, model in MODELS.items() if used <= model().functions]
    if len(known) != 1:
        raise UnsuitableHistory(
            f"no single model has the functions {', '.join(sorted(used))}; name one with --model: {', '.join(MODELS)}"
        )
    return MODELS[known[0]]()


def _all_reads(calls: Sequence[Call], test: Callable[[Value], bool]) -> bool:
    """Whether there are answers to reads, and all pass the test."""
    outputs = [call.output for call in calls if call.f == "read" and call.ok]
    return bool(outputs) and all(map(test, outputs))


def _is_versioned(output: Value) -> bool:
    return isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], int)
