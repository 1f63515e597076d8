"""Orders that are proposed without a search: they hold where the search says so, and are there where it would take long."""

from __future__ import annotations

from random import Random

import pytest

from kv_jepsen import brute
from kv_jepsen.blocks import order_by_blocks
from kv_jepsen.generate import Plan, correct, with_wrong_output
from kv_jepsen.history import OPEN, Call, Outcome, Value
from kv_jepsen.linearizable import STAGES, check
from kv_jepsen.model import UNKNOWN
from kv_jepsen.models import Register
from kv_jepsen.verdict import Judgement
from kv_jepsen.witness import verified


def call(start: int, end: int, f: str, value: Value = None, output: Value = None) -> Call:
    """A call from `start` to `end`."""
    outcome = Outcome.UNKNOWN if end == OPEN else Outcome.OK
    return Call(start, start, f, None, value, output, start, end, outcome)


def test_a_proposal_that_is_verified_is_a_linearization() -> None:
    """Of correct histories nearly all get one if values are unique, and no wrong history does, as trying every order tells."""
    model, made, wrong = Register(), 0, 0
    for seed in range(300):
        rng = Random(seed)
        plan = Plan(
            calls=9,
            clients=4,
            values=0,
            unknown_share=[0, 0.1, 0.3][seed % 3],
            eagerness=rng.choice([0.2, 0.5, 0.9]),
        )
        history = correct("register", plan, rng)
        for one in (history, with_wrong_output(history, rng)):
            calls = model.taking_part(one.calls if one is not None else ())
            order = model.proposed(calls)
            holds = order is not None and verified(model, order, calls)
            assert not holds or brute.linearizable(model, calls), f"seed {seed}"
            made += one is history and holds
            wrong += one is not history and not holds
    assert made > 280
    assert wrong > 60


@pytest.mark.parametrize("unknown_share", [0, 0.02])
def test_fifty_clients_at_a_time_need_no_long_search(unknown_share: float) -> None:
    """Fifty clients with unique values, none of whom ever rests, are judged after the first short search, with an order that holds."""
    plan = Plan(calls=1500, clients=50, values=0, unknown_share=unknown_share, eagerness=0.3)
    history = correct("register", plan, Random(5))
    (key,) = check(history, Register(), with_order=True).keys
    assert key.judgement is Judgement.LINEARIZABLE
    assert key.linearization is not None
    first = STAGES[0].looked_max
    assert first is not None
    assert key.configurations < 2 * first


def test_chains_of_compare_and_set_are_one_block() -> None:
    """What a compare-and-set made stands directly behind what it expected, though other writes went on at the time."""
    calls = [
        call(0, 20, "write", 1),
        call(1, 9, "write", 7),
        call(2, 19, "cas", (1, 2)),
        call(3, 18, "read", None, 2),
        call(10, 11, "read", None, 7),
        call(12, OPEN, "cas", (2, 3), UNKNOWN),
        call(13, 17, "read", None, 3),
    ]
    order = order_by_blocks(calls, None)
    assert order is not None
    assert [one.start for one in order] == [1, 10, 0, 2, 3, 12, 13]
    assert verified(Register(), order, calls)


def test_a_refused_one_goes_where_another_value_was() -> None:
    """A compare-and-set that was refused has its place before or behind the value that it expected."""
    calls = [
        call(0, 1, "write", 1),
        call(2, 8, "cas", (1, 5), False),
        call(3, 4, "read", None, 1),
        call(5, 9, "write", 2),
        call(6, 10, "read", None, 2),
    ]
    order = order_by_blocks(calls, None)
    assert order is not None
    assert verified(Register(), order, calls)
    assert [one.start for one in order].index(2) > [one.start for one in order].index(5)
    nowhere = [calls[0], call(2, 4, "cas", (1, 5), False), call(6, 7, "read", None, 1)]
    assert order_by_blocks(nowhere, None) is None


@pytest.mark.parametrize(
    "calls",
    [
        [call(0, 1, "write", 1), call(2, 3, "write", 1), call(4, 5, "read", None, 1)],
        [call(0, 1, "write", None), call(2, 3, "read", None, None)],
        [call(0, 1, "read", None, 4)],
        [call(0, 1, "write", 1), call(2, 3, "cas", (1, 2)), call(4, 5, "cas", (1, 3))],
        [call(0, 1, "cas", (1, 2)), call(2, 3, "cas", (2, 1))],
    ],
    ids=["made twice", "was there at first", "made by nobody", "replaced twice", "a circle"],
)
def test_what_is_no_row_of_blocks(calls: list[Call]) -> None:
    """Where it is not known who wrote what was seen, or it cannot be, there is no proposal that holds."""
    order = order_by_blocks(calls, None)
    assert order is None or not verified(Register(), order, calls)


def test_an_order_that_does_not_hold_is_not_verified() -> None:
    """One that leaves out a call, has one twice, gives another answer, or goes against real time."""
    wrote, read = call(0, 1, "write", 1), call(2, 3, "read", None, 1)
    lost = call(4, OPEN, "write", 2)
    assert verified(Register(), [wrote, read], [wrote, read, lost])
    assert not verified(Register(), [wrote], [wrote, read])
    assert not verified(Register(), [wrote, wrote, read], [wrote, read])
    assert not verified(Register(), [read, wrote], [wrote, read])
    late = call(4, 5, "write", 9)
    assert not verified(Register(), [late, wrote, read], [wrote, read, late])
