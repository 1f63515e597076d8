"""Session guarantees: a correct store keeps them by both kinds of evidence; each broken one is found by name."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import session_guarantees
from kv_jepsen.checkers.session import Evidence
from kv_jepsen.rehearsal import Request, Row, Store, calls_of, simulate


def ask(rng: random.Random, n: int) -> Request:
    """A write or a read of one of two keys."""
    key = rng.choice("xy")
    return ("write", key, n) if rng.random() < 0.5 else ("read", key, None)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_correct_runs_are_accepted(seed: int) -> None:
    """A store that answers from one state keeps all four guarantees, by revision and by index."""
    calls = simulate(seed, ask, Store().apply).calls
    assert session_guarantees(calls).valid is True
    assert session_guarantees(calls, evidence="index").valid is True


CASES = [
    ("read-your-writes", "write", 5, "read", 4, 5),
    ("monotonic-reads", "read", 5, "read", 4, 5),
    ("monotonic-writes", "write", 5, "write", 5, 6),
    ("writes-follow-reads", "read", 5, "write", 5, 6),
]


@pytest.mark.parametrize("evidence", ["revision", "index"])
@pytest.mark.parametrize(("name", "first", "at", "second", "wrong", "right"), CASES)
def test_each_guarantee(
    evidence: Evidence, name: str, first: str, at: int, second: str, wrong: int, right: int
) -> None:
    """A step back after a process's own step is found by the guarantee's name; the least step forward is accepted."""

    def findings(place: int, process: int = 0) -> list[tuple[str, tuple[int, ...]]]:
        calls = calls_of(
            (0, "invoke", first, "x", None),
            (0, "ok", first, "x", None, {evidence: at, "partition": 1}),
            (process, "invoke", second, "x", None),
            (process, "ok", second, "x", None, {evidence: place, "partition": 1}),
        )
        return [
            (finding.kind, finding.ops) for finding in session_guarantees(calls, evidence=evidence).findings
        ]

    assert findings(wrong) == [(name, (0, 2))]
    assert findings(right) == []
    assert findings(wrong, process=1) == []


def test_reads_of_other_levels_promise_nothing() -> None:
    """A stale read may go back; if it is declared to keep the guarantees it may not."""
    calls = calls_of(
        (0, "invoke", "write", "x", 1),
        (0, "ok", "write", "x", None, {"revision": 5}),
        (0, "invoke", "read", "x", None),
        (0, "ok", "read", "x", None, {"revision": 4, "level": "stale"}),
    )
    assert session_guarantees(calls).valid is True
    assert session_guarantees(calls, levels={"stale"}).valid is False


def test_an_absent_key_after_the_own_write_is_found_if_nobody_deletes() -> None:
    """A read that finds nothing has no revision; without deletes it is as old as can be, with deletes it says nothing."""
    rows: list[Row] = [
        (0, "invoke", "write", "x", 1),
        (0, "ok", "write", "x", None, {"revision": 5}),
        (0, "invoke", "read", "x", None),
        (0, "ok", "read", "x", None, {"index": 9}),
    ]
    assert [finding.kind for finding in session_guarantees(calls_of(*rows)).findings] == ["read-your-writes"]
    deletes: list[Row] = [(1, "invoke", "delete", "x", None), (1, "info", "delete", "x", None)]
    assert session_guarantees(calls_of(*deletes, *rows)).valid is True


def test_without_evidence_the_verdict_is_unknown() -> None:
    """A history without the evidence asked for is no pass."""
    calls = calls_of((0, "invoke", "write", "x", 1), (0, "ok", "write", "x", None, {"revision": 5}))
    assert session_guarantees(calls, evidence="index").valid == "unknown"


def test_indexes_without_a_partition_are_left_out_where_there_are_partitions() -> None:
    """An index says nothing if it may be of another partition; without partitions all indexes are of one."""
    write: list[Row] = [(0, "invoke", "write", "x", 1), (0, "ok", "write", "x", None, {"index": 5})]
    other: list[Row] = [(0, "invoke", "write", "y", 1), (0, "ok", "write", "y", None, {"index": 3})]
    some: list[Row] = [*write, *other]
    assert session_guarantees(calls_of(*some), evidence="index").valid is False
    named: list[Row] = [
        *some,
        (0, "invoke", "read", "z", None),
        (0, "ok", "read", "z", 1, {"partition": 2, "index": 1}),
    ]
    assert session_guarantees(calls_of(*named), evidence="index").valid is True
