"""Transactions are read from both shapes of history, and what is no transaction is an error that says so."""

from __future__ import annotations

import pytest

from kv_jepsen.elle import Append, Read, UnusableHistory, transactions
from kv_jepsen.elle.txn import describe
from kv_jepsen.history import OPEN, History, Op, OpType, Outcome, Value


def calls(*ops: tuple[int, OpType, str, Value, Value]) -> History:
    """A history of process, type, function, key and value."""
    return History(
        Op(i, process, type_, f, key, value) for i, (process, type_, f, key, value) in enumerate(ops)
    )


def test_jepsen_transactions() -> None:
    """A `txn` takes its reads from the completion; without one they are unknown."""
    history = calls(
        (0, OpType.INVOKE, "txn", None, (("append", "x", 1), ("r", "x", None))),
        (1, OpType.INVOKE, "txn", None, (("r", "x", None),)),
        (0, OpType.OK, "txn", None, (("append", "x", 1), ("r", "x", (1,)))),
        (1, OpType.INFO, "txn", None, None),
    )
    first, second = transactions(history.calls)
    assert first.mops == (Append("x", 1), Read("x", (1,)))
    assert (first.outcome, first.start, first.end) == (Outcome.OK, 0, 2)
    assert second.mops == (Read("x", None),)
    assert (second.outcome, second.end) == (Outcome.UNKNOWN, OPEN)
    assert describe(first) == "T0 [append x 1, read x [1]]"


def test_single_appends_and_reads() -> None:
    """A call `append` or `read` on a key is a transaction of one step; a missing list is the empty one."""
    history = calls(
        (0, OpType.INVOKE, "append", "x", 1),
        (0, OpType.FAIL, "append", "x", None),
        (0, OpType.INVOKE, "read", "x", None),
        (0, OpType.OK, "read", "x", None),
        (0, OpType.INVOKE, "compact", None, None),
        (0, OpType.OK, "compact", None, None),
    )
    append, read = transactions(history.calls)
    assert append.mops == (Append("x", 1),)
    assert append.outcome is Outcome.FAILED
    assert read.mops == (Read("x", ()),)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "must be a list of steps"),
        ((("write", "x", 1),), "is neither"),
        ((("r", "x", 5),), "is no list"),
        ((("r", "x", "text"),), "is no list"),
    ],
)
def test_another_shape_is_refused(value: Value, problem: str) -> None:
    """A transaction of another shape is an error that names the operation and what is wrong with it."""
    history = calls((0, OpType.INVOKE, "txn", None, value), (0, OpType.OK, "txn", None, value))
    with pytest.raises(UnusableHistory, match=f"operation 0: .*{problem}"):
        transactions(history.calls)
