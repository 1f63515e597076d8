"""Watches: the changes of a correct store are a complete stream; gaps, repeats and swaps are found."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import watches
from kv_jepsen.history import Call, Value
from kv_jepsen.rehearsal import Reply, Request, Store, calls_of, simulate


def run(seed: int, watched: Value) -> list[Call]:
    """A history of writes and of one watch over all of them."""
    store = Store()

    def ask(rng: random.Random, n: int) -> Request:
        return "write", rng.choice("xy"), n

    def apply(request: Request) -> Reply:
        if request[0] == "watch":
            return tuple(change for change in store.changes if watched in {None, change[0]}), {
                "through": store.index
            }
        return store.apply(request)

    return list(simulate(seed, ask, apply, last=(("watch", watched, 1),)).calls)


def kinds(calls: list[Call]) -> list[str]:
    """What was found."""
    return [finding.kind for finding in watches(calls).findings]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["x", None]))
def test_correct_streams_are_accepted(seed: int, watched: Value) -> None:
    """The changes in the order of the log, of one key or all, with those of unknown outcome, pass."""
    assert watches(run(seed, watched)).valid is True


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["gap", "duplicate", "reordered", "wrong-value"]), st.data())
def test_one_planted_error_is_found(seed: int, kind: str, data: st.DataObject) -> None:
    """A missing, repeated, swapped or altered event is found as what it is."""
    calls = run(seed, "x")
    acknowledged = {call.extra.get("revision") for call in calls if call.f == "write" and call.ok}
    events = list(cast(tuple[tuple[Value, int, Value], ...], calls[-1].output))
    places = [i for i, event in enumerate(events) if event[1] in acknowledged and (i or kind != "reordered")]
    if not places:
        return
    at = data.draw(st.sampled_from(places))
    if kind == "gap":
        del events[at]
    elif kind == "duplicate":
        events.insert(at, events[at])
    elif kind == "reordered":
        events[at - 1 : at + 1] = reversed(events[at - 1 : at + 1])
    else:
        events[at] = (*events[at][:2], -1)
    calls[-1] = replace(calls[-1], output=tuple(events))
    assert kinds(calls) == [kind]


def test_an_event_that_no_write_made_is_found() -> None:
    """An event is explained by a write with its revision, or by one of the key whose outcome is unknown."""
    stream = [(1, "invoke", "watch", "x", 0), (1, "ok", "watch", "x", (("x", 7),))]
    assert kinds(calls_of(*stream)) == ["unexplained"]
    unknown = [(0, "invoke", "write", "x", 1), (0, "info", "write", "x", None)]
    assert kinds(calls_of(*unknown, *stream)) == []


def test_writes_beyond_the_end_of_a_stream_are_no_gap() -> None:
    """A stream is complete up to its last event, or as far as it says; not beyond, and not in other partitions."""

    def stream(**extra: Value) -> list[str]:
        return kinds(
            calls_of(
                (0, "invoke", "write", "x", 1),
                (0, "ok", "write", "x", None, {"revision": 1, "partition": 1}),
                (0, "invoke", "write", "x", 2),
                (0, "ok", "write", "x", None, {"revision": 2, "partition": 1}),
                (1, "invoke", "watch", None, 0),
                (1, "ok", "watch", None, (("x", 1),), extra),
            )
        )

    assert stream() == []
    assert stream(through=2) == ["gap"]
    assert stream(through=2, partition=2) == []


def test_an_event_of_another_shape_is_refused() -> None:
    """A history of another workload is an error that says what was expected."""
    with pytest.raises(ValueError, match="operation 0: an event of a watch must be"):
        watches(calls_of((1, "invoke", "watch", "x", 0), (1, "ok", "watch", "x", (5,))))
    assert watches([]).valid == "unknown"
