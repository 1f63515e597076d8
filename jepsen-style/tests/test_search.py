"""The search is right: against trying everything on small histories, against Wing & Gong's search on larger ones.

`KV_JEPSEN_HISTORIES_PER_MODEL` sets how many generated histories of each kind are judged (100; releases use 1000).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen import brute
from kv_jepsen.generate import Plan, correct, model_of, with_impossible_output, with_wrong_output
from kv_jepsen.history import OPEN, Call, History, Outcome
from kv_jepsen.models import MODELS, UNKNOWN, Model, Register
from kv_jepsen.search import ENTRY, Frontier, Search, SearchExpired, added, chosen
from kv_jepsen.trails import placed
from kv_jepsen.wing_gong import DepthFirst

HISTORIES = int(os.environ.get("KV_JEPSEN_HISTORIES_PER_MODEL", "100"))
NAMES = sorted(MODELS)
SMALL, LARGE = 8, 30


def searched(model: Model, calls: Sequence[Call], width: int | None = None) -> Search | None:
    """The search at its end if it found a linearization, None if it found that there is none."""
    fitted, simple = model.fitted(calls)
    search = Search(fitted, simple, width=width)
    return search if search.run() is None else None


def plan_of(name: str, rng: Random, calls: int) -> Plan:
    """Some plan with this many calls; queues, whose orders multiply, are kept shorter and clearer."""
    queue = name == "queue"
    return Plan(
        calls=calls // 2 if queue else calls,
        clients=rng.choice([2, 3] if queue else [2, 3, 5]),
        values=rng.choice([0, 2, 4]),
        unknown_share=rng.choice([0, 0.2] if queue else [0, 0.2, 0.4]),
        eagerness=rng.choice([0.3, 0.6, 0.9]),
    )


def generated(name: str, kind: str) -> Iterator[tuple[Random, History, int]]:
    """Seeded correct histories, small and large in turn."""
    number = 0
    while True:
        rng = Random(f"{kind} {name} {number}")
        size = SMALL if number % 2 else LARGE
        yield rng, correct(name, plan_of(name, rng, size), rng), number
        number += 1


def reference(model: Model, calls: Sequence[Call]) -> bool | None:
    """The verdict of a checker that shares no idea with the search; None if that would take it too long."""
    if len(calls) <= SMALL:
        return brute.linearizable(model, calls)
    depth_first = DepthFirst(model, calls)
    depth_first.expired = lambda _: depth_first.looked_at > 100_000
    try:
        return depth_first.run() is not None
    except SearchExpired:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_generated_histories_are_accepted(name: str) -> None:
    """No false alarm: what was made by taking effect at one instant within each call is linearizable."""
    model = model_of(name)
    for _, history, number in generated(name, "correct"):
        if number >= HISTORIES:
            break
        assert searched(model, model.taking_part(history.calls)), f"seed {number}"


@pytest.mark.parametrize("name", NAMES)
def test_one_planted_error_is_found(name: str) -> None:
    """A history in which one answer is wrong is rejected exactly if the reference rejects it."""
    model, rejected = model_of(name), 0
    for rng, history, number in generated(name, "planted"):
        assert number < 20 * HISTORIES, "the planted errors do not show often enough to test anything"
        bad = with_wrong_output(history, rng)
        if bad is None:
            continue
        calls = model.taking_part(bad.calls)
        known = reference(model, calls)
        if known is not None:
            assert (searched(model, calls) is not None) == known, f"seed {number}"
            rejected += not known
        if rejected >= HISTORIES:
            break


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mutex"])
def test_an_answer_nobody_could_give_is_found(name: str) -> None:
    """A value that was never written is wrong by construction, and rejected."""
    model = model_of(name)
    for rng, history, number in generated(name, "impossible"):
        if number >= HISTORIES:
            break
        bad = with_impossible_output(history, name, rng)
        if bad is not None:
            assert searched(model, model.taking_part(bad.calls)) is None, f"seed {number}"


@pytest.mark.parametrize("name", NAMES)
def test_the_linearization_found_is_one(name: str) -> None:
    """Its order, replayed on the plain model, gives every answer, keeps real time, and leaves out unknown calls only."""
    model = model_of(name)
    for _, history, number in generated(name, "order"):
        if number >= HISTORIES:
            break
        calls = model.taking_part(history.calls)
        search = searched(model, calls)
        assert search is not None
        _, _, trail = next(iter(search.frontier.values()))[0]
        by_id = {call.id: call for call in calls}
        order = [by_id[search.calls[step.call].id] for step in placed(search, trail, len(search.events))]
        assert_linearization(model, calls, order)


def assert_linearization(model: Model, calls: Sequence[Call], order: Sequence[Call]) -> None:
    """Fail unless `order` is a linearization of `calls`."""
    state = model.init()
    for call in order:
        possible, state = model.step(state, call.f, call.input, call.output)
        assert possible, f"operation {call.id} does not fit"
    for place, call in enumerate(order):
        assert all(call.start < later.end for later in order[place + 1 :]), (
            f"operation {call.id} is too early"
        )
    left_out = {call.id for call in calls} - {call.id for call in order}
    assert len({call.id for call in order}) == len(order)
    assert all(call.end == OPEN for call in calls if call.id in left_out)


@st.composite
def register_calls(draw: st.DrawFn) -> list[Call]:
    """A few calls at arbitrary times with arbitrary answers."""
    marks = draw(st.permutations(range(14)))
    calls = []
    for number in range(draw(st.integers(1, 7))):
        start, end = sorted(marks[2 * number : 2 * number + 2])
        f = draw(st.sampled_from(["read", "write", "cas"]))
        value = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
        argument = {"read": None, "write": value[0], "cas": value}[f]
        lost = f != "read" and draw(st.booleans())
        output = (
            draw(st.sampled_from([None, 0, 1, 2]))
            if f == "read"
            else draw(st.booleans())
            if f == "cas"
            else None
        )
        outcome = Outcome.UNKNOWN if lost else Outcome.OK
        calls.append(
            Call(
                start,
                number,
                f,
                None,
                argument,
                UNKNOWN if lost else output,
                start,
                OPEN if lost else end,
                outcome,
            )
        )
    return sorted(calls, key=lambda call: call.start)


@given(register_calls())
def test_any_small_register_history_is_judged_as_by_brute_force(calls: list[Call]) -> None:
    """Whatever the answers and the times, the search, narrow or not, and the definition agree."""
    verdict = brute.linearizable(Register(), calls)
    assert (searched(Register(), calls) is not None) == verdict
    assert (DepthFirst(Register(), calls).run() is not None) == verdict
    assert searched(Register(), calls, width=2) is None or verdict


def test_a_write_may_vanish_before_another_but_not_before_a_read() -> None:
    """Two writes one after the other: only the second can be read."""

    def judged(read: int) -> bool:
        calls = [
            Call(0, 0, "write", None, 1, None, 0, 1, Outcome.OK),
            Call(2, 0, "write", None, 2, None, 2, 3, Outcome.OK),
            Call(4, 0, "read", None, None, read, 4, 5, Outcome.OK),
        ]
        return searched(Register(), calls) is not None

    assert (judged(2), judged(1)) == (True, False)


def test_a_narrow_search_says_that_it_left_something_out() -> None:
    """A search of width 1 that finds nothing is `narrowed`, and so proves nothing."""
    history = correct("register", Plan(calls=60, clients=8, eagerness=0.2), Random(3))
    fitted, calls = Register().fitted(Register().taking_part(history.calls))
    narrow = Search(fitted, calls, width=1)
    assert narrow.run() is None or narrow.narrowed
    complete = Search(fitted, calls)
    assert complete.run() is None
    assert not complete.narrowed


def test_a_search_that_is_told_to_stop_stops() -> None:
    """When time or memory is over the search ends without an answer; it says how many bytes it holds."""
    history = correct("register", Plan(calls=300, clients=20, eagerness=0.2), Random(3))
    held: list[int] = []

    def expired(held_bytes: int) -> bool:
        held.append(held_bytes)
        return len(held) == 2

    calls = Register().taking_part(history.calls)
    with pytest.raises(SearchExpired):
        Search(Register(), calls, expired=expired).run()
    assert 0 < held[0] < 1 << 24


def test_dominance_keeps_the_better_of_two_configurations() -> None:
    """Free is better than owed and than used; owed and used do not compare; states do not compare."""
    root = (None, 0, ENTRY)
    frontier: Frontier = {}
    assert added(frontier, 0, (0b01, 0b00, root))
    assert added(frontier, 0, (0b00, 0b00, root)), "used beside owed"
    assert added(frontier, 0, (0b00, 0b01, root)), "free"
    assert [(owed, free) for owed, free, _ in frontier[0]] == [(0b00, 0b01)]
    assert not added(frontier, 0, (0b01, 0b00, root))
    assert added(frontier, 1, (0b01, 0b00, root))


def test_interchange_takes_the_call_that_ends_first() -> None:
    """Of one kind the first owed call is tried, and a free one only if it ends before that."""
    same = [(5, 0b001), (7, 0b010), (OPEN, 0b100)]
    assert list(chosen(same, 0b011, 0b100)) == [0b001]
    assert list(chosen(same, 0b010, 0b101)) == [0b010, 0b001]
    assert list(chosen(same, 0b000, 0b110)) == [0b010]
