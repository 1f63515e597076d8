"""Generated histories are what they claim to be: of the model, concurrent, with unknown outcomes, the same for the same seed."""

from __future__ import annotations

from random import Random

import pytest

from kv_jepsen.formats import dump_jsonl
from kv_jepsen.generate import NEVER, Plan, correct, with_impossible_output, with_wrong_output
from kv_jepsen.history import Outcome
from kv_jepsen.models import MODELS


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_history_has_what_its_plan_says(name: str) -> None:
    """As many calls as planned, each function of the model, calls at the same time, some of unknown outcome."""
    history = correct(name, Plan(calls=300, clients=5, keys=2, unknown_share=0.3), Random(1))
    assert len(history.calls) == 300
    assert {call.f for call in history.calls} == MODELS[name]().functions
    assert {call.key for call in history.calls} == {"k0", "k1"}
    assert any(call.outcome is Outcome.UNKNOWN for call in history.calls)
    assert any(one.start < two.start < one.end for one in history.calls for two in history.calls)


def test_the_same_seed_makes_the_same_history() -> None:
    """Byte by byte; another seed makes another one."""
    one, again, other = (dump_jsonl(correct("kv", Plan(), Random(seed))) for seed in (1, 1, 2))
    assert one == again != other


def test_a_planted_error_changes_one_answer() -> None:
    """Everything else is as it was."""
    history = correct("register", Plan(), Random(1))
    wrong = with_wrong_output(history, Random(2))
    impossible = with_impossible_output(history, "register", Random(2))
    assert wrong is not None
    assert impossible is not None
    for bad in (wrong, impossible):
        assert sum(one != other for one, other in zip(bad.ops, history.ops, strict=True)) == 1
    assert NEVER in [op.value for op in impossible.ops]


def test_without_answers_there_is_nothing_to_get_wrong() -> None:
    """A history of no calls has no answer to change."""
    empty = correct("register", Plan(calls=0), Random(1))
    assert with_wrong_output(empty, Random(1)) is None
    assert with_impossible_output(empty, "register", Random(1)) is None
