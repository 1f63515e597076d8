"""Histories that show something, and histories that show nothing."""

from __future__ import annotations

from kv_jepsen.checkers import successes
from kv_jepsen.history import History, Op, OpType, Value


def _one(f: str, end: OpType, output: Value = None) -> History:
    """One call."""
    return History([Op(0, 0, OpType.INVOKE, f, "x", 1), Op(0, 0, end, f, "x", output)])


def test_an_answer_shows_something() -> None:
    """One successful call of a telling function is enough."""
    found = successes(_one("read", OpType.OK, 1).calls, {"read"})
    assert found.valid is True
    assert found.counts == {"calls": 1, "ok": 1, "telling": 1}


def test_what_shows_nothing() -> None:
    """No call, no success, and no success of a telling function are unknown, each with its own reason."""
    assert "there is no call" in successes((), {"read"}).reason
    for end in (OpType.FAIL, OpType.INFO):
        found = successes(_one("read", end).calls, {"read"})
        assert found.valid == "unknown"
        assert "none of 1 calls succeeded" in found.reason
    only_written = successes(_one("write", OpType.OK, 1).calls, {"read", "cas"})
    assert only_written.valid == "unknown"
    assert "1 of 1 calls succeeded, but none of cas, read" in only_written.reason


def test_a_transaction_tells_something_if_it_reads() -> None:
    """A transaction of appends only has no answer that could be wrong."""
    appended = _one("txn", OpType.OK, (("append", "x", 1),))
    read = _one("txn", OpType.OK, (("append", "x", 1), ("r", "x", (1,))))
    assert successes(appended.calls, {"txn"}).valid == "unknown"
    assert successes(read.calls, {"txn"}).valid is True
