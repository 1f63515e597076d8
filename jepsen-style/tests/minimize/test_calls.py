"""The smallest history: small, minimal, honest, and within its time."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from random import Random

import pytest

from kv_jepsen import rehearsal
from kv_jepsen.formats import parse
from kv_jepsen.generate import Plan, correct
from kv_jepsen.history import History, Op, OpType
from kv_jepsen.judge import judge
from kv_jepsen.linearizable import Limits
from kv_jepsen.minimize import Complaint, NothingToMinimize, complaints, minimize
from kv_jepsen.minimize.calls import history_of
from kv_jepsen.minimize.rests import RULES
from kv_jepsen.rehearsal import Request
from kv_jepsen.report import Run

DATA = Path(__file__).parents[1] / "data"
BAD = [DATA / "kv/c01-bad.txt", DATA / "kv/c10-bad.txt", DATA / "jepsen-etcd/etcd_000.log"]


def _stale(calls: int) -> History:
    """A correct history of many calls, then: x becomes 1001, then 1002, and a read returns the first."""
    ops = list(correct("register", Plan(calls=calls, values=0, keys=3), Random(4)).ops)
    rows = [("write", 1001, 1001), ("write", 1002, 1002), ("read", None, 1001)]
    for f, given, answer in rows:
        ops += [Op(0, 9000, OpType.INVOKE, f, "x", given), Op(0, 9000, OpType.OK, f, "x", answer)]
    return History([*ops[:100], Op(0, "nemesis", OpType.INFO, "partition", None, "n1/*"), *ops[100:]])


def test_a_stale_read_is_three_calls() -> None:
    """Of 803 calls the two writes and the read are left, with the notes of the faults."""
    found = minimize(_stale(800), "register", now=time.monotonic)
    assert [(call.f, call.input, call.output) for call in found.history.calls] == [
        ("write", 1001, 1001),
        ("write", 1002, 1002),
        ("read", None, 1001),
    ]
    assert found.minimal
    assert found.before == 803
    assert [note.f for note in found.history.notes] == ["partition"]
    assert "803 calls became 3 (not linearizable" in found.words()


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.name)
def test_no_call_can_be_left_out(file: Path) -> None:
    """What is left is a part of the whole, has the same complaint, and has it no more without any one call and what rests on it."""
    history = parse(file.read_text())
    workload = "kv" if file.suffix == ".txt" else "register"
    found = minimize(history, workload, now=time.monotonic)
    assert {(op.process, op.f, op.value) for op in found.history.ops} <= {
        (op.process, op.f, op.value) for op in history.ops
    }
    calls = found.history.calls
    assert 1 < len(calls) < 8
    assert complaints(judge(Run("", "", found.history), workload))[0] == found.complaint
    for call in calls:
        left = RULES[workload](calls)({one.id for one in calls} - {call.id})
        assert not left or not complaints(judge(Run("", "", history_of(found.history, left)), workload)), (
            f"operation {call.id} can be left out"
        )


def test_a_lost_element_of_a_set() -> None:
    """An element that was acknowledged and is in no read: its add and the read are left, without the other elements."""
    held: list[object] = []

    def apply(request: Request) -> rehearsal.Reply:
        f, _, value = request
        if f == "add" and value != 17:
            held.append(value)
        return (value if f == "add" else tuple(held)), {}

    history = rehearsal.simulate(
        3, lambda _, n: ("add", "s", n), apply, trouble=0.0, last=(("read", "s", None),)
    )
    found = minimize(history, "set")
    assert [(call.f, call.output) for call in found.history.calls] == [("add", 17), ("read", ())]
    assert found.complaint.kind == "lost"


def test_a_stale_list_is_two_calls() -> None:
    """Of many appends and reads, the append that a later read does not show, and that read, without the other elements."""
    held: list[object] = []

    def apply(request: Request) -> rehearsal.Reply:
        f, _, value = request
        if f == "append":
            held.append(value)
        return (value if f == "append" else tuple(held)), {}

    def ask(rng: Random, n: int) -> Request:
        return ("append" if rng.random() < 0.5 else "read", "a", n)

    whole = rehearsal.simulate(2, ask, apply, trouble=0.0, last=(("append", "a", 777), ("append", "a", 888)))
    old = tuple(held[:-2])
    ops = [*whole.ops, Op(0, 99, OpType.INVOKE, "read", "a"), Op(0, 99, OpType.OK, "read", "a", old)]
    ops += [Op(0, 99, OpType.INVOKE, "read", "a"), Op(0, 99, OpType.OK, "read", "a", tuple(held))]
    found = minimize(History(ops), "append")
    assert found.complaint.checker == "elle"
    assert len(found.history.calls) in {2, 3}
    assert any(call.f == "append" and call.input in {777, 888} for call in found.history.calls)
    assert found.minimal


def test_a_chosen_complaint_stays() -> None:
    """Of several complaints any can be kept; one that is not there is told."""
    history = _stale(50)
    with pytest.raises(NothingToMinimize, match="find no staleness: too-stale"):
        minimize(history, "register", complaint=Complaint("staleness", "too-stale"))


def test_a_history_without_violation_is_told() -> None:
    """Nothing is made up of a correct history."""
    with pytest.raises(NothingToMinimize, match="find no violation in the calls of the workload register"):
        minimize(correct("register", Plan(), Random(1)), "register")


def test_the_time_limit_is_told() -> None:
    """When the time is over what was reached is returned, still with the complaint, and it says so."""
    clock = count()
    limits = Limits(seconds=40)
    found = minimize(parse(BAD[2].read_text()), "register", limits=limits, now=lambda: float(next(clock)))
    assert not found.minimal
    assert 3 < len(found.history.calls) < found.before
    assert "the time was over" in found.words()
    assert complaints(judge(Run("", "", found.history), "register")) == (found.complaint,)
