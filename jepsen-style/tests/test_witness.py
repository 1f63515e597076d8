"""The order that replies claim: accepted only if it is a linearization, so that it agrees with the search."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from kv_jepsen.generate import Plan, correct, with_wrong_output
from kv_jepsen.history import OPEN, Call, FrozenMap, History, Outcome, Value
from kv_jepsen.linearizable import check
from kv_jepsen.models import UNKNOWN, Register
from kv_jepsen.verdict import Judgement
from kv_jepsen.witness import witnessed


def call(start: int, end: int, f: str, value: Value, output: Value, index: int | None) -> Call:
    """A call of its own process with the index it was told, if any."""
    outcome = Outcome.UNKNOWN if end == OPEN else Outcome.OK
    extra = FrozenMap() if index is None else FrozenMap({"index": index})
    return Call(start, start, f, None, value, output, start, end, outcome, extra=extra)  # type: ignore[arg-type]


def with_indexes(history: History) -> History:
    """Give each reply the place of its call in a linearization: writes a new index, reads that of the write before."""
    (key,) = check(history, Register(), with_order=True, use_evidence=False).keys
    assert key.linearization is not None
    ops, index = list(history.ops), 0
    for one in key.linearization:
        index += one.f != "read"
        if one.end != OPEN:
            ops[one.end] = replace(ops[one.end], extra={"index": index})
    return History(ops)


@pytest.mark.parametrize("seed", range(30))
def test_evidence_and_search_agree(seed: int) -> None:
    """With true indexes no search is needed; with a wrong answer both ways give the same judgement."""
    rng = Random(seed)
    history = with_indexes(correct("register", Plan(calls=30, values=3, unknown_share=0.1), rng))
    verdict = check(history)
    assert verdict.judgement is Judgement.LINEARIZABLE
    bad = with_wrong_output(history, rng)
    if bad is not None:
        assert check(bad).judgement is check(bad, use_evidence=False).judgement


def test_most_true_orders_need_no_search() -> None:
    """Where the replies tell the order, it is nearly always found to hold without a search."""
    methods = [
        key.method
        for seed in range(30)
        for key in check(
            with_indexes(correct("register", Plan(calls=30, values=0, unknown_share=0.1), Random(seed)))
        ).keys
    ]
    assert methods.count("witness") >= 20


def test_a_claimed_order_against_real_time_is_not_taken() -> None:
    """A read that began after a write had ended, and claims to stand before it, is left to the search, which rejects it."""
    calls = [call(0, 1, "write", 1, None, 1), call(2, 3, "write", 2, None, 2), call(4, 5, "read", None, 1, 1)]
    witness = witnessed(Register(), calls)
    assert witness.order is None
    assert "operation 2 began" in witness.problem or "operation 4" in witness.problem


def test_a_claimed_order_that_does_not_fit_the_model_is_not_taken() -> None:
    """A read that claims an index at which the register held something else."""
    witness = witnessed(Register(), [call(0, 1, "write", 1, None, 1), call(2, 3, "read", None, 2, 1)])
    assert witness.order is None
    assert "operation 2 (read at index 1)" in witness.problem


def test_a_lost_write_is_put_in_where_it_is_needed() -> None:
    """A write that nobody heard of explains the read that follows it."""
    lost = call(0, OPEN, "write", 7, UNKNOWN, None)
    read = call(2, 3, "read", None, 7, 5)
    assert witnessed(Register(), [lost, read]).order == (lost, read)


def test_a_lost_write_cannot_help_before_it_began() -> None:
    """A read that had ended when the write was invoked is not explained by it."""
    read = call(0, 1, "read", None, 7, 5)
    assert witnessed(Register(), [read, call(2, OPEN, "write", 7, UNKNOWN, None)]).order is None


def test_without_evidence_nothing_is_claimed() -> None:
    """One reply without an index, or no reply at all: no claim, and no complaint."""
    calls = [call(0, 1, "write", 1, None, 1), call(2, 3, "write", 2, None, None)]
    for part in (calls, []):
        assert witnessed(Register(), part).order is None
        assert witnessed(Register(), part).problem == ""


def test_a_claim_that_does_not_hold_is_told_with_the_judgement() -> None:
    """A linearizable history with wrong indexes is linearizable, and the reader is told of the indexes."""
    history = with_indexes(correct("register", Plan(calls=12, values=0, unknown_share=0), Random(2)))
    ops = [replace(op, extra={"index": 100 - op.index}) if op.extra else op for op in history.ops]
    (key,) = check(History(ops)).keys
    assert (key.judgement, key.method) == (Judgement.LINEARIZABLE, "search")
    assert "claimed by the replies" in key.reason
