"""Transactions from a recorded history.

Pure. Two shapes are understood: Jepsen's, a call `txn` whose value is a list of `[append, key, element]` and
`[r, key, elements]`; and single calls `append` and `read` on a key, which are transactions of one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from kv_jepsen.elle.txn import Append, Elements, Mop, Read, Txn, UnusableHistory
from kv_jepsen.history import Call, Value

READS: Final = frozenset({"r", "read"})
"""Names of a read step."""


def transactions(calls: Iterable[Call]) -> list[Txn]:
    """The transactions among the calls, in the order of invocation; calls of other functions are left out.

    Raises:
        UnusableHistory: a transaction that has not the shape above.
    """
    txns: list[Txn] = []
    for call in calls:
        mops = _mops(call)
        if mops is not None:
            txns.append(Txn(len(txns), call.process, call.outcome, mops, call.start, call.end))
    return txns


def _mops(call: Call) -> tuple[Mop, ...] | None:
    if call.f == "txn":
        # A completion repeats the steps, with the reads filled in.
        steps = call.output if call.ok else call.input
        if not isinstance(steps, tuple):
            raise UnusableHistory(
                f"operation {call.id}: the value of a txn must be a list of steps, not {steps!r}"
            )
        return tuple(_mop(call, step) for step in steps)
    if call.f == "append":
        return (Append(call.key, call.input),)
    if call.f in READS:
        return (Read(call.key, _elements(call, call.output) if call.ok else None),)
    return None


def _mop(call: Call, step: Value) -> Mop:
    match step:
        case ("append", key, element):
            return Append(key, element)
        case (("r" | "read"), key, value):
            return Read(key, _elements(call, value) if call.ok else None)
        case _:
            raise UnusableHistory(
                f"operation {call.id}: {step!r} is neither [append, key, element] nor [r, key, elements]"
            )


def _elements(call: Call, value: Value) -> Elements:
    """The elements of a completed read; none at all is the empty list."""
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise UnusableHistory(f"operation {call.id}: a read of a list gave {value!r}, which is no list")
    return tuple(value)
