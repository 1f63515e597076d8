"""Sets: correct runs are accepted, and each kind of wrong read is found."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import CheckResult, final_set, set_full
from kv_jepsen.history import Call, History, Op, OpType, Value
from kv_jepsen.rehearsal import Reply, Request, simulate

SEEDS = st.integers(0, 2**32)


def run(seed: int) -> History:
    """A history of a correct set, read at the end."""
    elements: set[Value] = set()

    def ask(rng: random.Random, n: int) -> Request:
        return ("add", None, n) if rng.random() < 0.7 else ("read", None, None)

    def apply(request: Request) -> Reply:
        if request[0] == "add":
            elements.add(request[2])
            return None, {}
        return tuple(elements), {}

    made: History = simulate(seed, ask, apply, last=(("read", None, None),))
    return made


def elements_of(read: Call) -> tuple[Value, ...]:
    """What a read returned."""
    assert isinstance(read.output, tuple)
    return read.output


def line(*ops: tuple[int, str, str, Value]) -> tuple[Call, ...]:
    """Calls on one set."""
    return History(
        Op(i, process, OpType(kind), f, None, value, i * 1_000_000)
        for i, (process, kind, f, value) in enumerate(ops)
    ).calls


def kinds(result: CheckResult) -> list[str]:
    """What was found."""
    return [finding.kind for finding in result.findings]


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_correct_runs_are_accepted(seed: int) -> None:
    """A set that takes each add at one instant passes both checkers, whatever was lost or failed."""
    calls = run(seed).calls
    assert final_set(calls).valid is True
    assert set_full(calls).valid is True


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_an_element_missing_in_the_last_read_is_lost(seed: int) -> None:
    """If the last read lacks an acknowledged element, both checkers find exactly that one lost."""
    calls = list(run(seed).calls)
    added = [call.input for call in calls if call.f == "add" and call.ok]
    if added:
        victim = added[seed % len(added)]
        calls[-1] = replace(calls[-1], output=tuple(e for e in elements_of(calls[-1]) if e != victim))
        for check in (final_set, set_full):
            result = check(calls)
            assert kinds(result) == ["lost"]
            assert result.findings[0].sentence.startswith(f"{victim} was")


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_an_element_that_nobody_added_is_unexpected(seed: int) -> None:
    """A read with an element of no add, or only of a failed one, is found."""
    calls = list(run(seed).calls)
    never_came = [call.input for call in calls if call.f == "add" and call.outcome == "failed"]
    calls[-1] = replace(calls[-1], output=(*elements_of(calls[-1]), never_came[0] if never_came else -1))
    assert kinds(final_set(calls)) == ["unexpected"]
    assert kinds(set_full(calls)) == ["unexpected"]


ADD, READ = "add", "read"


def test_a_read_that_misses_what_a_later_one_has_is_stale() -> None:
    """Stale is a violation of linearizability and not of a weaker promise; its age is reported."""
    calls = line(
        (0, "invoke", ADD, 1),
        (0, "ok", ADD, None),
        (1, "invoke", READ, None),
        (1, "ok", READ, ()),
        (1, "invoke", READ, None),
        (1, "ok", READ, (1,)),
    )
    result = set_full(calls)
    assert kinds(result) == ["stale"]
    assert result.counts["stale_max_ms"] == 1.0
    assert set_full(calls, linearizable=False).valid is True


def test_an_unknown_add_that_was_read_once_must_stay() -> None:
    """An element of unknown fate is known from the first read that has it, and lost if it goes."""
    calls = line(
        (0, "invoke", ADD, 1),
        (0, "info", ADD, None),
        (1, "invoke", READ, None),
        (1, "ok", READ, (1,)),
        (1, "invoke", READ, None),
        (1, "ok", READ, ()),
    )
    assert kinds(set_full(calls)) == ["lost"]


def test_a_read_during_the_add_may_go_either_way() -> None:
    """An add that is under way may be seen or not, and by two reads in either order."""
    calls = line(
        (0, "invoke", ADD, 1),
        (1, "invoke", READ, None),
        (1, "ok", READ, ()),
        (1, "invoke", READ, None),
        (1, "ok", READ, (1,)),
        (0, "ok", ADD, None),
    )
    assert set_full(calls).valid is True


def test_an_element_read_before_its_add_began_is_unexpected() -> None:
    """A read cannot see the future."""
    calls = line(
        (1, "invoke", READ, None), (1, "ok", READ, (1,)), (0, "invoke", ADD, 1), (0, "ok", ADD, None)
    )
    assert "unexpected" in kinds(set_full(calls))


def test_an_element_twice_in_one_read_is_a_duplicate() -> None:
    """A set has each element once."""
    calls = line(
        (0, "invoke", ADD, 1), (0, "ok", ADD, None), (1, "invoke", READ, None), (1, "ok", READ, (1, 1))
    )
    assert kinds(set_full(calls)) == ["duplicated"]


def test_never_read_elements_are_counted_and_no_pass_without_a_read() -> None:
    """An element acknowledged after the last read began is counted; without any read the verdict is unknown."""
    added = line((0, "invoke", ADD, 1), (0, "ok", ADD, None))
    assert set_full(added).valid == "unknown"
    assert final_set(added).valid == "unknown"
    before = line((1, "invoke", READ, None), (1, "ok", READ, ()), (0, "invoke", ADD, 1), (0, "ok", ADD, None))
    assert set_full(before).counts["never_read"] == 1


def test_a_read_of_no_collection_is_refused() -> None:
    """A history of another workload is an error that says what was expected."""
    calls = line((1, "invoke", READ, None), (1, "ok", READ, 5))
    with pytest.raises(ValueError, match="operation 0: a read of a set must return a collection, not 5"):
        set_full(calls)
