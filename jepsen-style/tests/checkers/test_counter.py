"""Counters: correct runs are accepted, reads out of bounds or against the evidence are found."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import counter
from kv_jepsen.history import Call
from kv_jepsen.rehearsal import Reply, Request, calls_of, simulate

SEEDS = st.integers(0, 2**32)


def run(seed: int, evidence: bool, trouble: float = 0.15) -> list[Call]:
    """A history of a correct counter."""
    state = {"value": 0, "index": 0}

    def ask(rng: random.Random, n: int) -> Request:
        f = rng.choice(("add", "add", "read", "add_get"))
        return f, None, None if f == "read" else rng.randint(-3, 5)

    def apply(request: Request) -> Reply:
        if request[0] != "read":
            state["value"] += cast(int, request[2])
            state["index"] += 1
        extra = {"index": state["index"]} if evidence else {}
        return None if request[0] == "add" else state["value"], extra

    return list(simulate(seed, ask, apply, trouble=trouble, last=(("read", None, None),)).calls)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.booleans())
def test_correct_runs_are_accepted(seed: int, evidence: bool) -> None:
    """A counter that takes each add at one instant passes, with and without evidence, with unknown adds."""
    result = counter(run(seed, evidence))
    assert result.valid is True
    assert result.counts["exact_reads"] == (result.counts["reads"] if evidence else 0)


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_a_read_off_by_what_nobody_added_is_found(seed: int) -> None:
    """A read beyond everything that may have been added is out of bounds."""
    calls = run(seed, evidence=False)
    calls[-1] = replace(calls[-1], output=cast(int, calls[-1].output) + 1000)
    result = counter(calls)
    assert [(f.kind, f.ops) for f in result.findings] == [("out-of-bounds", (calls[-1].id,))]


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_with_evidence_a_read_off_by_one_is_found(seed: int) -> None:
    """Where every add is known by index, a read is exact, however many adds overlap it."""
    calls = run(seed, evidence=True, trouble=0)
    victims = [i for i, call in enumerate(calls) if call.f == "read"]
    victim = victims[seed % len(victims)]
    calls[victim] = replace(calls[victim], output=cast(int, calls[victim].output) + 1)
    findings = counter(calls).findings
    assert ("inexact", (calls[victim].id,)) in [(finding.kind, finding.ops) for finding in findings]


def test_bounds_are_by_real_time() -> None:
    """An acknowledged add must be in a later read; one under way may be."""

    def kinds(value: int) -> list[str]:
        calls = calls_of(
            (0, "invoke", "add", None, 1),
            (0, "ok", "add", None, None),
            (0, "invoke", "add", None, 10),
            (1, "invoke", "read", None, None),
            (1, "ok", "read", None, value),
            (0, "ok", "add", None, None),
        )
        return [finding.kind for finding in counter(calls).findings]

    assert kinds(1) == kinds(11) == []
    assert kinds(0) == kinds(12) == ["out-of-bounds"]


def test_keys_are_counters_of_their_own() -> None:
    """What is added to one key is not expected in another."""
    calls = calls_of(
        (0, "invoke", "add", "a", 1),
        (0, "ok", "add", "a", None),
        (0, "invoke", "read", "b", None),
        (0, "ok", "read", "b", None),
    )
    assert counter(calls).valid is True
    assert counter(calls[:1]).valid == "unknown"


def test_a_value_that_is_no_number_is_refused() -> None:
    """A history of another workload is an error that says what was expected."""
    with pytest.raises(ValueError, match="operation 0: read of a counter must have an integer, not 'x'"):
        counter(calls_of((0, "invoke", "read", None, None), (0, "ok", "read", None, "x")))
