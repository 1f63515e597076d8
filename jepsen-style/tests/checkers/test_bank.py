"""Banks: correct runs are accepted; a read in which money was made or lost is found."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import bank
from kv_jepsen.history import Call, FrozenMap
from kv_jepsen.rehearsal import Reply, Request, calls_of, simulate


def run(seed: int, as_map: bool) -> list[Call]:
    """A history of transfers and reads, by a bank that keeps its money."""
    balances = dict.fromkeys("abc", 10)

    def ask(rng: random.Random, n: int) -> Request:
        source, target = rng.sample("abc", 2)
        return ("transfer", None, (source, target, rng.randint(1, 8))) if n % 2 else ("read", None, None)

    def apply(request: Request) -> Reply:
        if request[0] == "read":
            return FrozenMap(balances) if as_map else tuple(balances.items()), {}
        source, target, amount = cast(tuple[str, str, int], request[2])
        if balances[source] < amount:
            return False, {}
        balances[source] -= amount
        balances[target] += amount
        return None, {}

    return list(simulate(seed, ask, apply, last=(("read", None, None),)).calls)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([None, 30]))
def test_correct_runs_are_accepted_and_one_unit_less_is_found(
    seed: int, as_map: bool, total: int | None
) -> None:
    """Transfers at one instant keep the total; a read that lacks one unit is found, and nothing else."""
    calls = run(seed, as_map)
    assert bank(calls, total).valid is True
    balances = dict(cast(Mapping[str, int], calls[-1].output))
    richest = max(balances, key=lambda account: balances[account])
    calls[-1] = replace(calls[-1], output=FrozenMap({**balances, richest: balances[richest] - 1}))
    if sum(call.f == "read" and call.ok for call in calls) > 1 or total is not None:
        assert [(f.kind, f.ops) for f in bank(calls, total).findings] == [("wrong-total", (calls[-1].id,))]


def test_a_negative_balance_is_found_unless_allowed() -> None:
    """The total may be right and a balance still impossible."""
    calls = calls_of((0, "invoke", "read", 1, None), (0, "ok", "read", 1, (("a", -5), ("b", 35))))
    assert [finding.kind for finding in bank(calls, 30).findings] == ["negative"]
    assert bank(calls, 30, overdraft=True).valid is True


def test_each_key_is_a_bank_of_its_own() -> None:
    """Without a given total the first read of each bank sets it."""
    calls = calls_of(
        (0, "invoke", "read", 1, None),
        (0, "ok", "read", 1, (("a", 5),)),
        (0, "invoke", "read", 2, None),
        (0, "ok", "read", 2, (("b", 7),)),
    )
    assert bank(calls).valid is True
    assert bank([]).valid == "unknown"


def test_a_read_without_balances_is_refused() -> None:
    """A history of another workload is an error that says what was expected."""
    with pytest.raises(ValueError, match="operation 0: a read of a bank must give balances, not 4"):
        bank(calls_of((0, "invoke", "read", 1, None), (0, "ok", "read", 1, 4)))
