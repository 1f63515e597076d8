"""All checkers of a workload at once: correct runs pass, stale reads are found if they are declared linearizable."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen import rehearsal
from kv_jepsen.checkers import CheckResult
from kv_jepsen.history import History, Op, OpType, Value
from kv_jepsen.judge import WORKLOADS, judge, part
from kv_jepsen.rehearsal import Reply, Request
from kv_jepsen.report import Run
from kv_jepsen.verdict import Judgement

LINEARIZABLE = Judgement.LINEARIZABLE


class Lagging(rehearsal.Store):
    """A correct store that answers reads at the level `stale` from the state before the last write of the key."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[Value, tuple[Value, int]] = {}

    def apply(self, request: Request) -> Reply:
        """Reads with the input `stale` are stale."""
        f, key, value = request
        if f == "write":
            self.before[key] = self.values.get(key, (None, 0))
            return super().apply(request)
        if value == "stale":
            old, revision = self.before.get(key, (None, 0))
            return old, {"revision": revision, "index": self.index, "partition": 1, "level": "stale"}
        return super().apply(request)


def ask(rng: Random, n: int) -> Request:
    """Writes, and reads at two levels."""
    return ("write", "x", n) if rng.random() < 0.5 else ("read", "x", rng.choice((None, "stale")))


def run(seed: int) -> Run:
    """A run against the lagging store, with a stale read of what was overwritten at the end."""
    last: tuple[Request, ...] = (("write", "x", 1000), ("write", "x", 1001), ("read", "x", "stale"))
    return Run("a run", "", rehearsal.simulate(seed, ask, Lagging().apply, last=last))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_stale_reads_are_found_exactly_if_declared_linearizable(seed: int) -> None:
    """At their own level they are measured; held to be linearizable, three checkers find them."""
    honest = judge(run(seed), "register")
    assert honest.valid is True
    assert honest.linearizable is not None
    assert honest.linearizable.judgement is LINEARIZABLE
    assert sum(honest.staleness["stale"][1:]) > 0
    declared = judge(run(seed), "register", levels={"linearizable", "stale"})
    assert declared.linearizable is not None
    assert declared.linearizable.judgement is Judgement.NOT_LINEARIZABLE
    verdicts = {check.checker: check.valid for check in declared.checks}
    assert verdicts["staleness"] is False
    assert verdicts["monotonic"] is False


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_found_in_a_part_is_told_in_numbers_of_the_whole(seed: int) -> None:
    """Calls left out of the search do not shift the calls of a failure."""
    whole = run(seed)
    declared = judge(whole, "register", levels={"stale"})  # the reads at the default level are left out
    assert declared.linearizable is not None
    for key in declared.linearizable.failures:
        assert key.failure is not None
        assert key.failure.blocked in whole.history.calls
        assert all(call in whole.history.calls for call in key.failure.window)


def test_a_part_keeps_notes_and_the_ends_of_its_calls() -> None:
    """Both lines of a call go or stay, and what a nemesis noted stays."""
    ops = [
        Op(0, 0, OpType.INVOKE, "read"),
        Op(1, 1, OpType.INVOKE, "write", None, 1),
        Op(2, "nemesis", OpType.INFO, "heal"),
        Op(3, 0, OpType.OK, "read"),
        Op(4, 1, OpType.OK, "write", None, 1),
        Op(5, 0, OpType.INVOKE, "read"),
    ]
    history = History(ops)
    kept = part(history, [call for call in history.calls if call.f == "write"])
    assert [(op.f, op.type.value) for op in kept] == [("write", "invoke"), ("heal", "info"), ("write", "ok")]
    assert part(history, history.calls).ops == history.ops


def test_checks_of_others_are_kept_and_recovery_is_added() -> None:
    """Logs and replicas are judged elsewhere; with faults in the notes recovery is measured."""
    log = CheckResult("logs", True)
    notes = [Op(0, "nemesis", OpType.INFO, f, time_ns=at) for f, at in (("partition", 0), ("heal", 1))]
    made = run(1)
    judged = judge(replace(made, history=History([*notes, *made.history.ops]), checks=(log,)), "register")
    assert judged.checks[0] == log
    assert "recovery" in {check.checker for check in judged.checks}


def test_recovery_that_cannot_be_measured_is_no_doubt() -> None:
    """Replies that tell no partition leave recovery out, unless it was asked for; then it is unknown, and so is the run."""
    notes = [Op(0, "nemesis", OpType.INFO, f, time_ns=at) for f, at in (("partition", 0), ("heal", 1))]
    calls = [Op(0, 0, OpType.INVOKE, "read", "x"), Op(0, 0, OpType.OK, "read", "x")]
    plain = Run("a run", "", History([*notes, *calls]))
    assert judge(plain, "register").valid is True
    asked = judge(plain, "register", recovery_ms_max=1000.0)
    assert asked.valid == "unknown"
    assert asked.checks[-1].checker == "recovery"


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_judges_an_empty_history(workload: str) -> None:
    """Nothing done is no violation, and shows nothing."""
    assert judge(Run("a run", "", History([])), workload).valid == "unknown"


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("end", [OpType.FAIL, OpType.INFO])
def test_a_run_without_a_success_is_unknown(workload: str, end: OpType) -> None:
    """Where every call failed or is of unknown outcome, no workload is valid, and the reason is told."""
    f = min(WORKLOADS[workload].functions)
    value: Value = 1 if f == "add" else (1, 2) if f == "cas" else "1"
    ops = [Op(0, 0, kind, f, "x", value, error="timeout") for kind in (OpType.INVOKE, end)]
    judged = judge(Run("a run", "", History(ops)), workload)
    assert judged.valid == "unknown"
    assert "none of 1 calls succeeded" in judged.checks[0].reason


def test_checks_that_passed_do_not_make_up_for_answers() -> None:
    """A run whose cluster and logs were fine, and whose writes all succeeded, is unknown until something was read."""
    fine = (CheckResult("cluster", True), CheckResult("logs", True))
    wrote = [Op(0, 0, kind, "write", "x", 1) for kind in (OpType.INVOKE, OpType.OK)]
    read = [Op(0, 0, OpType.INVOKE, "read", "x"), Op(0, 0, OpType.OK, "read", "x", 1)]
    assert judge(Run("a run", "", History(wrote), checks=fine), "register").valid == "unknown"
    assert judge(Run("a run", "", History([*wrote, *read]), checks=fine), "register").valid is True


def test_an_unknown_workload_is_refused() -> None:
    """The error names those there are."""
    with pytest.raises(ValueError, match="no workload 'graph': choose one of register, append, set"):
        judge(Run("a run", "", History([])), "graph")
