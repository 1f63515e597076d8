"""Queues: correct runs are accepted; lost, duplicated and unexpected elements are found."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import total_queue
from kv_jepsen.history import Call, Value
from kv_jepsen.rehearsal import Reply, Request, calls_of, simulate

SEEDS = st.integers(0, 2**32)


def run(seed: int, trouble: float = 0.15) -> list[Call]:
    """A history of a correct queue, emptied at the end."""
    elements: list[Value] = []

    def ask(rng: random.Random, n: int) -> Request:
        return ("enqueue", None, n) if rng.random() < 0.6 else ("dequeue", None, None)

    def apply(request: Request) -> Reply:
        if request[0] == "enqueue":
            elements.append(request[2])
            return None, {}
        if request[0] == "dequeue":
            return (elements.pop(0) if elements else None), {}
        drained = tuple(elements)
        elements.clear()
        return drained, {}

    return list(simulate(seed, ask, apply, trouble=trouble, last=(("drain", None, None),)).calls)


def taken_by(call: Call) -> tuple[Value, ...]:
    """The elements that a call took out."""
    if call.f == "drain":
        assert isinstance(call.output, tuple)
        return call.output
    return (call.output,) if call.f == "dequeue" and call.output is not None else ()


def kinds(calls: list[Call]) -> list[str]:
    """What was found."""
    return [finding.kind for finding in total_queue(calls).findings]


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_correct_runs_are_accepted(seed: int) -> None:
    """A queue passes, also if enqueues and dequeues of unknown outcome took effect or not."""
    assert total_queue(run(seed)).valid is True


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.sampled_from(["lost", "duplicated", "unexpected"]))
def test_one_planted_error_is_found(seed: int, kind: str) -> None:
    """An element less, twice, or of nobody in what was drained is found as what it is."""
    calls = run(seed, trouble=0)
    taken = next(i for i, call in enumerate(calls) if taken_by(call))
    planted = taken_by(calls[taken])[0]
    if kind == "lost":
        calls[taken] = replace(
            calls[taken], output=None if calls[taken].f == "dequeue" else taken_by(calls[taken])[1:]
        )
    else:
        extra = planted if kind == "duplicated" else -1
        calls[-1] = replace(calls[-1], output=(*taken_by(calls[-1]), extra))
    assert kinds(calls) == [kind]


def test_what_may_still_be_inside_is_not_lost() -> None:
    """Before the queue was emptied an element that nobody got is no loss, and the verdict is unknown."""
    calls = calls_of((0, "invoke", "enqueue", None, 1), (0, "ok", "enqueue", None, None))
    result = total_queue(calls)
    assert (result.valid, result.reason[:25]) == ("unknown", "the queue was not emptied")


def test_an_empty_answer_after_all_enqueues_empties_the_queue() -> None:
    """A dequeue that found nothing shows a loss as a drain does."""
    calls = calls_of(
        (0, "invoke", "enqueue", None, 1),
        (0, "ok", "enqueue", None, None),
        (0, "invoke", "dequeue", None, None),
        (0, "ok", "dequeue", None, None),
    )
    assert kinds(calls) == ["lost"]


def test_a_dequeue_of_unknown_outcome_may_have_swallowed_one() -> None:
    """One lost element with one lost answer is no finding, but is counted."""
    calls = calls_of(
        (0, "invoke", "enqueue", None, 1),
        (0, "ok", "enqueue", None, None),
        (1, "invoke", "dequeue", None, None),
        (1, "info", "dequeue", None, None),
        (0, "invoke", "drain", None, None),
        (0, "ok", "drain", None, ()),
    )
    result = total_queue(calls)
    assert result.valid is True
    assert result.counts["perhaps_lost"] == 1


def test_an_element_of_a_failed_or_later_enqueue_is_unexpected() -> None:
    """What failed must not come out, and nothing comes out before it goes in."""
    failed = calls_of(
        (0, "invoke", "enqueue", None, 1),
        (0, "fail", "enqueue", None, None),
        (0, "invoke", "dequeue", None, None),
        (0, "ok", "dequeue", None, 1),
    )
    early = calls_of(
        (0, "invoke", "dequeue", None, None),
        (0, "ok", "dequeue", None, 1),
        (0, "invoke", "enqueue", None, 1),
        (0, "ok", "enqueue", None, None),
    )
    assert kinds(failed) == kinds(early) == ["unexpected"]


def test_a_drain_of_no_list_is_refused() -> None:
    """A history of another shape is an error that says what was expected."""
    with pytest.raises(ValueError, match="operation 0: a drain must return a list, not 1"):
        total_queue(calls_of((0, "invoke", "drain", None, None), (0, "ok", "drain", None, 1)))
