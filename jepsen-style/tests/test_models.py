"""The sequential specifications, and that their hints say nothing that `step` does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import pytest

from kv_jepsen import brute
from kv_jepsen.generate import Plan, correct, with_wrong_output
from kv_jepsen.history import Call, FrozenMap, Outcome, Value
from kv_jepsen.models import (
    ANY,
    DEAD,
    MODELS,
    UNKNOWN,
    Bank,
    KvString,
    Model,
    Queue,
    Register,
    RevisionRegister,
    Set,
    State,
    UnsuitableHistory,
    model_for,
)

ROUNDS = int(os.environ.get("KV_JEPSEN_HISTORIES_PER_MODEL", "100")) // 4
NAMES = sorted(MODELS)


def call(
    f: str, value: Value = None, output: Value = None, outcome: Outcome = Outcome.OK, number: int = 0
) -> Call:
    """A call of which only the content matters."""
    return Call(number, 0, f, None, value, output, number * 2, number * 2 + 1, outcome)


def run(model: Model, *calls: tuple[str, Value, Value]) -> State:
    """Take the calls one after another; the last state, or an error at the first that is impossible."""
    state = model.init()
    for f, value, output in calls:
        possible, state = model.step(state, f, value, output)
        if not possible:
            raise AssertionError(f"{f} {value!r} cannot return {output!r}")
    return state


def samples(name: str) -> Iterator[tuple[Model, list[Call], list[State]]]:
    """Models as they are and fitted, with calls of generated histories and states that those lead to."""
    for seed in range(ROUNDS):
        rng = Random(f"{name} {seed}")
        history = correct(name, Plan(calls=12, clients=3, unknown_share=0.3), rng)
        plain = MODELS[name]()
        part = plain.taking_part(history.calls)
        for model, calls in ((plain, part), plain.fitted(part)):
            state = model.init()
            states = [state]
            for one in rng.sample(calls, len(calls)):
                possible, after = model.step(state, one.f, one.input, one.output)
                state = after if possible else state
                states.append(state)
            yield model, calls, states


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        ("register", [("write", 1, None), ("cas", (1, 2), True), ("cas", (1, 3), False), ("read", None, 2)]),
        ("versioned", [("write", 1, 1), ("cas", (1, 2), 2), ("cas", (1, 3), False), ("read", None, (2, 2))]),
        ("revisions", [("write", 1, 5), ("cas", (5, 2), 9), ("cas", (5, 3), False), ("read", None, (2, 9))]),
        ("kv", [("get", None, ""), ("put", "a", None), ("append", "b", None), ("get", None, "ab")]),
        ("set", [("add", 1, None), ("add", 2, None), ("remove", 1, None), ("read", None, (2,))]),
        ("counter", [("add", 2, None), ("add_get", 3, 5), ("read", None, 5)]),
        ("queue", [("enqueue", 1, None), ("enqueue", 2, None), ("dequeue", None, 1), ("dequeue", None, 2)]),
        (
            "mutex",
            [("acquire", "a", None), ("acquire", "b", False), ("release", "b", False), ("release", "a", 1)],
        ),
        (
            "bank",
            [("read", None, ((0, 5), (1, 0))), ("transfer", (0, 1, 5), True), ("transfer", (0, 1, 1), False)],
        ),
    ],
)
def test_each_object_does_what_it_is_known_for(model: str, calls: list[tuple[str, Value, Value]]) -> None:
    """One client alone gets the expected answers."""
    run(MODELS[model](), *calls)


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        ("register", [("write", 1, None), ("read", None, 2)]),
        ("register", [("write", 1, None), ("cas", (2, 3), True)]),
        ("register", [("write", 1, None), ("cas", (1, 3), False)]),
        ("versioned", [("write", 1, 2)]),
        ("versioned", [("write", 1, 1), ("read", None, (1, 2))]),
        ("revisions", [("write", 1, 5), ("write", 2, 5)]),
        ("revisions", [("write", 1, 5), ("read", None, (1, 6))]),
        ("revisions", [("write", 1, None), ("read", None, (1, 4)), ("read", None, (1, 5))]),
        ("revisions", [("write", 1, None), ("cas", (4, 2), False), ("read", None, (1, 4))]),
        ("kv", [("append", "a", None), ("append", "b", None), ("get", None, "ba")]),
        ("set", [("add", 1, None), ("read", None, ())]),
        ("counter", [("add", 2, None), ("read", None, 3)]),
        ("queue", [("enqueue", 1, None), ("enqueue", 2, None), ("dequeue", None, 2)]),
        ("queue", [("enqueue", 1, None), ("dequeue", None, None)]),
        ("mutex", [("acquire", "a", None), ("acquire", "b", None)]),
        ("mutex", [("acquire", "a", None), ("release", "b", None)]),
        ("bank", [("read", None, ((0, 5), (1, 0))), ("transfer", (1, 0, 1), True)]),
        ("bank", [("read", None, ((0, 5), (1, 0))), ("transfer", (0, 1, 1), False)]),
        ("bank", [("read", None, ((0, 5),)), ("transfer", (0, 1, 1), True), ("read", None, ((0, 5),))]),
    ],
)
def test_each_object_does_nothing_else(model: str, calls: list[tuple[str, Value, Value]]) -> None:
    """An answer that one client alone cannot get is impossible."""
    with pytest.raises(AssertionError, match="cannot return"):
        run(MODELS[model](), *calls)


@pytest.mark.parametrize("name", NAMES)
def test_reads_change_nothing_they_tell(name: str) -> None:
    """A function hinted as a read leaves the state as it is, or makes it better known without another answer."""
    for model, calls, states in samples(name):
        for one in calls:
            for state in states:
                possible, after = model.step(state, one.f, one.input, one.output)
                if one.f in model.reads and possible:
                    assert model.step(after, one.f, one.input, one.output) == (True, after)


@pytest.mark.parametrize("name", NAMES)
def test_total_functions_always_succeed(name: str) -> None:
    """A function hinted as total is possible in every state with the output it had, and with none."""
    for model, calls, states in samples(name):
        assert model.blind <= model.total <= model.functions
        for one in calls:
            if one.f in model.total:
                assert all(model.step(state, one.f, one.input, one.output)[0] for state in states)
                assert all(
                    model.step(state, one.f, one.input, one.output)
                    == model.step(state, one.f, one.input, None)
                    for state in states
                )


@pytest.mark.parametrize("name", NAMES)
def test_blind_functions_forget_the_state(name: str) -> None:
    """A function hinted as blind leads to one state from everywhere, and that is its affinity."""
    for model, calls, states in samples(name):
        for one in calls:
            if one.f in model.blind:
                reached = {model.step(state, one.f, one.input, one.output)[1] for state in states}
                assert reached == {model.affinity(one.f, one.input, one.output)}


@pytest.mark.parametrize("name", NAMES)
def test_commuting_functions_commute(name: str) -> None:
    """Two calls of a function hinted as commuting lead to the same state in both orders."""
    for model, calls, states in samples(name):
        pairs = [(a, b) for a in calls for b in calls if {a.f, b.f} <= model.commuting]
        for a, b in pairs:
            for state in states:
                ab = model.step(model.step(state, a.f, a.input, None)[1], b.f, b.input, None)
                ba = model.step(model.step(state, b.f, b.input, None)[1], a.f, a.input, None)
                assert ab == ba


@pytest.mark.parametrize("name", NAMES)
def test_affinity_names_the_only_state_in_which_a_call_matters(name: str) -> None:
    """In every other state a call is impossible, or changes nothing because its outcome is unknown, or is blind."""
    for model, calls, states in samples(name):
        for one in calls:
            affinity = model.affinity(one.f, one.input, one.output)
            if affinity is ANY or one.f in model.blind:
                continue
            for state in states:
                if state != affinity:
                    possible, after = model.step(state, one.f, one.input, one.output)
                    assert not possible or (after == state and one.output is UNKNOWN)


@pytest.mark.parametrize("name", NAMES)
def test_fitting_a_model_changes_no_verdict(name: str) -> None:
    """The fitted model and its calls are linearizable exactly if the plain ones are, by brute force."""
    verdicts = set()
    for seed in range(ROUNDS):
        rng = Random(f"fit {name} {seed}")
        history = correct(name, Plan(calls=8, clients=3, values=rng.choice([0, 2]), unknown_share=0.3), rng)
        for one in (history, with_wrong_output(history, rng)):
            plain = MODELS[name]()
            part = plain.taking_part(one.calls if one else ())
            fitted, calls = plain.fitted(part)
            verdict = brute.linearizable(plain, part)
            assert brute.linearizable(fitted, calls) == verdict
            verdicts.add(verdict)
    assert verdicts == {True, False}, "the samples show both verdicts"


def test_a_refused_cas_is_an_observation_and_a_broken_one_is_not() -> None:
    """A cas that failed without an error saw another value; one that failed with an error saw nothing."""
    seen = Register().taking_part([call("cas", (1, 2), (1, 2), Outcome.FAILED)])
    assert [one.output for one in seen] == [False]
    broken = Call(0, 0, "cas", None, (1, 2), None, 0, 1, Outcome.FAILED, error="refused")
    assert Register().taking_part([broken]) == []


def test_failed_calls_and_reads_of_unknown_result_take_no_part() -> None:
    """A write that failed has not happened; a read nobody heard of says nothing; an unknown write may have happened."""
    calls = [
        call("write", 1, None, Outcome.FAILED, 0),
        call("read", None, None, Outcome.UNKNOWN, 1),
        call("write", 2, None, Outcome.UNKNOWN, 2),
    ]
    assert [(one.id, one.output) for one in Register().taking_part(calls)] == [(2, UNKNOWN)]


@pytest.mark.parametrize(
    ("model", "one", "words"),
    [
        ("register", call("enqueue", 1), "has no 'enqueue'"),
        ("register", call("cas", 3), "pair of expected and new"),
        ("versioned", call("read", None, 3), "pair of value and version"),
        ("revisions", call("read", None, 3), "pair of value and revision"),
        ("kv", call("get", None, 3), "is a string"),
        ("kv", call("put", None), "is a string"),
        ("set", call("read", None, 3), "is a collection"),
        ("counter", call("add", "x"), "no whole number"),
        ("bank", call("transfer", (1, 2)), "from, to, amount"),
        ("bank", call("read", None, 3), "pairs of account and balance"),
    ],
)
def test_a_call_the_model_cannot_judge_is_refused(model: str, one: Call, words: str) -> None:
    """An unknown function or a value of the wrong shape is an error that names the operation."""
    with pytest.raises(UnsuitableHistory, match=f"operation 0.*{words}"):
        MODELS[model]().taking_part([one])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "revisions"])
def test_the_model_is_found_by_functions_and_results(name: str) -> None:
    """A generated history of each model is recognized; revisions and versions look alike and must be named."""
    history = correct(name, Plan(calls=60, unknown_share=0), Random(name))
    assert model_for(history.calls).name == name


def test_a_history_of_no_model_asks_for_one() -> None:
    """Functions that no single model knows are an error that lists the models."""
    with pytest.raises(UnsuitableHistory, match="--model"):
        model_for([call("enqueue", 1), call("acquire", 1)])


def test_a_string_that_begins_no_result_is_dead() -> None:
    """The fitted map of strings forgets what nobody will read."""
    model, _ = KvString().fitted([call("append", "a"), call("get", None, "ab")])
    assert run(model, ("append", "a", None)) == "a"
    assert run(model, ("append", "b", None)) is DEAD
    assert run(model, ("append", "b", None), ("put", "a", None)) == "a"


def test_an_unknown_revision_is_fixed_by_the_next_read() -> None:
    """After a write that told nothing, a read may name any greater revision, and from then on only that one."""
    model = RevisionRegister()
    state = run(model, ("write", 1, 3), ("write", 2, UNKNOWN))
    assert not model.step(state, "read", None, (2, 3))[0]
    assert model.step(state, "read", None, (2, 8)) == (True, (2, 8, True, frozenset()))


def test_the_bank_learns_its_balances_or_is_told_them() -> None:
    """Without initial balances the first read sets them; with them it must agree; no money and no account are the same."""
    assert run(Bank(), ("transfer", (0, 1, 3), True), ("read", None, ((0, 2), (1, 8)))) == (
        True,
        FrozenMap({0: 2, 1: 8}),
    )
    assert not Bank({0: 5}).step(Bank({0: 5}).init(), "read", None, ((0, 4),))[0]
    assert Bank({0: 5}).step(Bank({0: 5}).init(), "read", None, FrozenMap({0: 5, 1: 0}))[0]


def test_an_untaken_element_of_unknown_fate_is_left_out() -> None:
    """It can only stand in the way, unless an unknown dequeue may have taken it."""
    lost = call("enqueue", 1, UNKNOWN, Outcome.UNKNOWN)
    assert Queue().fitted([lost])[1] == []
    assert Queue().fitted([lost, call("dequeue", None, UNKNOWN, Outcome.UNKNOWN)])[1][0].id == lost.id


def test_a_set_that_shrinks_is_not_fitted() -> None:
    """After a remove, a set that is part of no result may become one again."""
    model, _ = Set().fitted([call("add", 1), call("remove", 1), call("read", None, ())])
    assert run(model, ("add", 1, None)) == frozenset([1])
