"""Lookahead: what it calls impossible is impossible; a stale read is seen early."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from kv_jepsen import brute
from kv_jepsen.generate import Plan, correct, model_of, with_wrong_output
from kv_jepsen.history import OPEN, Call, History, Outcome, Value
from kv_jepsen.horizons import Zone, calendar_of, of_growing, of_register, of_strings, overwritten
from kv_jepsen.linearizable import check
from kv_jepsen.models import Register
from kv_jepsen.search import Search


def call(start: int, end: int, f: str = "read", value: Value = None, output: Value = None) -> Call:
    """A call from `start` to `end`."""
    return Call(
        start, start, f, None, value, output, start, end, Outcome.OK if end != OPEN else Outcome.UNKNOWN
    )


@pytest.mark.parametrize("name", ["register", "versioned", "kv"])
def test_the_states_of_a_linearization_are_never_called_impossible(name: str) -> None:
    """Along the linearization of a generated history, at each return the state then reached is possible."""
    judged = 0
    for seed in range(60):
        history = correct(name, Plan(calls=40, values=[0, 3][seed % 2], unknown_share=0.1), Random(seed))
        model = model_of(name)
        fitted, calls = model.fitted(model.taking_part(history.calls))
        horizon = fitted.horizon(calls, [fitted.init()])
        (key,) = check(history, model, with_order=True).keys
        assert key.linearization is not None
        by_id = {one.id: one for one in calls}
        state, latest = fitted.init(), -1
        for one in (by_id[shown.id] for shown in key.linearization if shown.id in by_id):
            latest = max(latest, one.start)
            _, state = fitted.step(state, one.f, one.input, one.output)
            if horizon is not None:
                judged += 1
                assert horizon.possible(state, latest), f"seed {seed} position {latest}"
    assert judged > 100


@pytest.mark.parametrize("name", ["register", "versioned", "kv"])
def test_looking_ahead_changes_no_verdict(name: str) -> None:
    """With and without lookahead the search gives the same judgement of correct and of wrong histories."""
    verdicts = set()
    for seed in range(120):
        rng = Random(f"{name} {seed}")
        history = correct(name, Plan(calls=16, values=[0, 3][seed % 2], unknown_share=0.2), rng)
        for one in (history, with_wrong_output(history, rng)):
            model = model_of(name)
            fitted, calls = model.fitted(model.taking_part(one.calls if one else ()))
            ahead, behind = Search(fitted, calls), Search(fitted, calls)
            behind.horizon = None
            verdict = ahead.run() is None
            assert verdict == (behind.run() is None)
            verdicts.add(verdict)
    assert verdicts == {True, False}


def test_a_stale_read_is_seen_when_its_value_is_left() -> None:
    """The search need not come to the stale read: it is rejected where the value is overwritten for good."""
    rng = Random(4)
    history = correct("register", Plan(calls=400, clients=4, values=0, unknown_share=0), rng)
    reads = [one for one in history.calls if one.f == "read" and one.ok and one.output is not None]
    ops = list(history.ops)
    ops[reads[-1].end] = replace(ops[reads[-1].end], value=reads[0].output)
    model = Register()
    fitted, calls = model.fitted(model.taking_part(History(ops).calls))
    blocked = Search(fitted, calls).run()
    assert blocked is not None
    assert blocked.event < 100


def test_a_zone_lasts_from_the_first_end_to_the_last_start() -> None:
    """Between a return that saw a value made once and an invocation that will see it, there is no other value."""
    horizon = of_register([(1, call(0, 3)), (1, call(6, 9))], [(1, call(0, 3))], [None])
    assert horizon is not None
    assert [horizon.possible(2, position) for position in range(8)] == [True] * 3 + [False] * 3 + [True] * 2
    assert all(horizon.possible(1, position) for position in range(8))


def test_a_value_made_twice_or_seen_once_says_nothing() -> None:
    """It may have gone and come back; and one call alone leaves no time between."""
    seen = [(1, call(0, 3)), (1, call(6, 9))]
    assert of_register(seen, seen, [None]) is None
    assert of_register(seen[:1], seen[:1], [None]) is None
    assert of_register([(1, call(0, OPEN)), (1, call(6, OPEN))], seen[:1], [None]) is None


def test_two_zones_at_once_leave_no_state() -> None:
    """If two values would have to be there, nothing is possible."""
    horizon = of_register([(1, call(0, 3)), (1, call(8, 9)), (2, call(1, 4)), (2, call(7, 10))], [], [1, 2])
    assert horizon is not None
    assert not horizon.possible(1, 5)
    assert not horizon.possible(2, 5)


def test_what_grows_has_bounds() -> None:
    """At least what was seen by those who have returned, at most what those see who have not begun."""
    horizon = of_growing(
        [(call(0, 3), 2, 1), (call(6, 9), 5, 4)], lambda size: size if isinstance(size, int) else 0
    )
    assert [size for size in range(8) if horizon.possible(size, 2)] == [0, 1, 2, 3, 4]
    assert [size for size in range(8) if horizon.possible(size, 4)] == [2, 3, 4]
    assert [size for size in range(8) if horizon.possible(size, 7)] == [2, 3, 4, 5, 6, 7]


def test_a_growing_string_stays_between_its_results() -> None:
    """Between two results that grew from the same put, the string begins as the first and is no longer than the second."""
    horizon = of_strings([("ab", call(0, 3)), ("abcd", call(6, 9))], ["", "a", "x"], ["b", "cd"])
    assert horizon is not None
    assert [text for text in ("a", "ab", "abc", "abcde", "x") if horizon.possible(text, 4)] == ["ab", "abc"]
    assert horizon.possible("x", 1)
    assert of_strings([("ab", call(0, 3)), ("abcd", call(6, 9))], ["a", "ab"], ["b", "cd"]) is None


@pytest.mark.parametrize("name", ["register", "versioned", "kv"])
def test_a_contradiction_is_one(name: str) -> None:
    """No linearizable history is said to contradict itself, whatever the times; some wrong ones are seen to."""
    seen = 0
    for seed in range(200):
        rng = Random(f"{name} {seed}")
        history = correct(name, Plan(calls=10, clients=3, values=[0, 3][seed % 2], unknown_share=0.1), rng)
        for one in (history, with_wrong_output(history, rng)):
            model = model_of(name)
            fitted, calls = model.fitted(model.taking_part(one.calls if one else ()))
            horizon = fitted.horizon(calls, [fitted.init()])
            if horizon is not None and horizon.contradiction:
                seen += 1
                assert not brute.linearizable(model, model.taking_part(one.calls if one else ()))
    assert seen > 3


def test_a_read_within_the_time_of_another_value_is_a_contradiction() -> None:
    """The three calls are named: two that saw the one value, and one between that saw another."""
    calls = [call(0, 1), call(2, 3), call(4, 5)]
    horizon = of_register([(1, calls[0]), (2, calls[1]), (1, calls[2])], [], [1, 2])
    assert horizon is not None
    assert horizon.contradiction == tuple(calls)


def test_a_value_that_was_overwritten_is_gone() -> None:
    """Also one that was written often: all its writes had ended when another one began, which had ended when it was read."""
    first, again, other, read = call(0, 1), call(2, 4), call(5, 6), call(8, 9)
    made = [(1, first), (1, again), (2, other)]
    assert overwritten([*made, (1, read)], made, [None]) == (again, other, read)
    assert overwritten([*made, (1, call(8, OPEN))], made, [None]) == ()
    for late in (call(2, 7), call(2, OPEN), call(8, 10)):  # it may have been written once more
        assert overwritten([*made, (1, read)], [*made, (1, late)], [None]) == ()
    assert overwritten([*made, (1, call(6, 9))], [(1, again), (2, call(5, 7))], [None]) == ()
    assert overwritten([*made, (None, read)], made, [None]) == (other, read)
    assert overwritten([*made, (3, read)], made, [None]) == (read,)


def test_results_that_fork_or_shrink_are_a_contradiction() -> None:
    """Strings that grew from the same put continue each other, and the longer one is not seen first."""
    one, two = call(0, 1), call(2, 3)
    forked = of_strings([("ab", one), ("ac", two)], ["a"], ["b", "c"])
    shrunk = of_strings([("ab", one), ("a", two)], ["a"], ["b"])
    assert forked is not None
    assert forked.contradiction == (one, two)
    assert shrunk is not None
    assert shrunk.contradiction == (one, two)


def test_a_calendar_names_the_zones_at_a_position() -> None:
    """Zones that are empty are left out; others cover from their first end to before their last start."""
    zones = [("a", (2, 5)), ("b", (4, 8)), ("c", (6, 6))]
    calendar = calendar_of((name, Zone(call(0, end), call(start, start + 1))) for name, (end, start) in zones)
    assert sorted(map(str, calendar.overlap())) == ["a", "b"]
    assert [sorted(map(str, calendar.at(position))) for position in (1, 2, 4, 5, 8)] == [
        [],
        ["a"],
        ["a", "b"],
        ["b"],
        [],
    ]
