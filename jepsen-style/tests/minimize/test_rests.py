"""What an answer rests upon: a correct history stays correct, whatever is left out of it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen import elle, rehearsal
from kv_jepsen.generate import Plan, correct, model_of
from kv_jepsen.history import Call, History, Outcome
from kv_jepsen.judge import WORKLOADS
from kv_jepsen.linearizable import check
from kv_jepsen.minimize import rests
from kv_jepsen.minimize.calls import history_of
from kv_jepsen.minimize.rests import RULES, Rule
from kv_jepsen.rehearsal import Reply, Request
from kv_jepsen.verdict import Judgement

SOUND = {
    "register": rests.by_value,
    "kv": rests.by_substring,
    "set": rests.by_element,
    "queue": rests.by_element,
    "counter": rests.by_everything,
    "mutex": rests.by_everything,
    "versioned": rests.by_everything,
}


@pytest.mark.parametrize(("model", "rule"), SOUND.items(), ids=SOUND)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), values=st.integers(0, 4), keys=st.integers(0, 2), part=st.floats(0, 1))
def test_a_correct_history_stays_correct(
    model: str, rule: Rule, seed: int, values: int, keys: int, part: float
) -> None:
    """Whatever calls are asked to stay: those that do are linearizable, and are among the ones asked for."""
    rng = Random(seed)
    history = correct(model, Plan(calls=24, values=values, keys=keys), rng)
    kept = {call.id for call in history.calls if rng.random() < part}
    left = rule(history.calls)(kept)
    assert {call.id for call in left} <= kept
    verdict = check(history_of(history, left), model_of(model))
    assert verdict.judgement is Judgement.LINEARIZABLE


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), part=st.floats(0, 1))
def test_lists_stay_free_of_anomalies(seed: int, part: float) -> None:
    """An append that is left out is in no list any more, so the others have no anomaly."""
    lists: dict[object, tuple[object, ...]] = {}

    def apply(request: Request) -> Reply:
        f, key, value = request
        if f == "append":
            lists[key] = (*lists.get(key, ()), value)
            return value, {}
        return lists.get(key, ()), {}

    def ask(rng: Random, n: int) -> Request:
        return ("append" if rng.random() < 0.5 else "read", rng.choice("xy"), n)

    history = rehearsal.simulate(seed, ask, apply, last=(("read", "x", None), ("read", "y", None)))
    rng = Random(seed)
    kept = {call.id for call in history.calls if rng.random() < part}
    left = rests.by_element(history.calls)(kept)
    assert not elle.check(elle.transactions(history_of(history, left).calls)).anomalies


def test_a_transaction_is_cleared_of_what_others_appended() -> None:
    """Steps of a transaction that read lose the elements of calls that are left out, and keep their own."""
    calls = rehearsal.calls_of(
        (0, "invoke", "txn", None, (("append", "x", 1),)),
        (0, "ok", "txn", None, (("append", "x", 1),)),
        (1, "invoke", "txn", None, (("append", "x", 2), ("r", "x", None))),
        (1, "ok", "txn", None, (("append", "x", 2), ("r", "x", (1, 2)))),
    )
    (left,) = rests.by_element(calls)({2})
    assert left.output == (("append", "x", 2), ("r", "x", (2,)))


def _register(*rows: tuple[str, object, object]) -> list[Call]:
    """Calls of one register, one after another: function, input, output."""
    return [
        Call(2 * i, 0, f, "x", given, output, 2 * i, 2 * i + 1, Outcome.OK)
        for i, (f, given, output) in enumerate(rows)
    ]


def test_a_read_goes_with_the_write_that_it_returned() -> None:
    """Without the only write that can have made its value an answer would be made up, so it goes too, and what needs it."""
    calls = _register(("write", 1, 1), ("cas", (1, 2), True), ("read", None, 2), ("write", 3, 3))
    assert [call.f for call in rests.by_value(calls)({2, 4, 6})] == ["write"]


def test_an_overwritten_write_is_not_needed() -> None:
    """Of two writes of one value, the answer needs the one that was not certainly overwritten before the question."""
    calls = _register(("write", 1, 1), ("write", 2, 2), ("write", 1, 1), ("read", None, 1))
    assert len(rests.by_value(calls)({4, 6})) == 2
    assert [call.f for call in rests.by_value(calls)({0, 2, 6})] == ["write", "write"]


def test_a_wrong_answer_shows_where_it_came_from() -> None:
    """An answer that nothing allows keeps the last call that set its value."""
    calls = _register(("write", 1, 1), ("write", 2, 2), ("read", None, 1))
    assert [call.input for call in rests.by_value(calls)({2, 4})] == [2]
    assert len(rests.by_value(calls)({0, 4})) == 2


def test_every_workload_has_a_rule() -> None:
    """What can be judged can be made smaller."""
    assert RULES.keys() == WORKLOADS.keys()


def test_outcomes_survive() -> None:
    """Calls that failed or are unknown keep their ends in the history that is left."""
    history = correct("register", Plan(calls=60, unknown_share=0.4), Random(1))
    same = history_of(history, rests.by_nothing(history.calls)({call.id for call in history.calls}))
    assert History(same.ops).calls == history.calls
    assert any(call.outcome is Outcome.UNKNOWN for call in same.calls)
