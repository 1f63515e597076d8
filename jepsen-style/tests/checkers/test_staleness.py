"""Staleness: a correct store has none, and an old value is as old as its first acknowledged successor."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import ages, histograms, staleness
from kv_jepsen.checkers.staleness import BUCKETS_MS, bucket
from kv_jepsen.history import Call, Value
from kv_jepsen.rehearsal import Request, Row, Store, calls_of, simulate


def ask(rng: random.Random, n: int) -> Request:
    """A write or a read of one of two keys."""
    key = rng.choice("xy")
    return ("write", key, n) if rng.random() < 0.5 else ("read", key, None)


def bare(calls: list[Call]) -> list[Call]:
    """The same calls without evidence."""
    return [replace(call, extra={}) for call in calls]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_a_correct_store_is_never_stale(seed: int) -> None:
    """Every read of a store with one state has age zero, by revisions and by values."""
    calls = list(simulate(seed, ask, Store().apply).calls)
    for history in (calls, bare(calls)):
        assert {age.stale_ns for age in ages(history)} <= {0}
        assert staleness(history).valid is not False


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_an_old_value_is_found(seed: int, evidence: bool) -> None:
    """A last read of a value that two acknowledged writes have replaced is as old as the first of these."""
    last = (*(("write", "x", 1000 + i) for i in range(3)), ("read", "x", None))
    calls = list(simulate(seed, ask, Store().apply, last=last).calls)
    old, newer, read = calls[-4], calls[-3], calls[-1]
    calls[-1] = replace(read, output=1000, extra={**read.extra, "revision": old.extra["revision"]})
    (finding,) = staleness(calls if evidence else bare(calls)).findings
    assert finding.ops == (newer.id, read.id)
    assert newer.end_ns is not None
    assert ages(calls)[-1].stale_ns == read.start_ns - newer.end_ns


def history(level: str, age_ms: int, **extra: Value) -> list[Call]:
    """A read that begins `age_ms` after the acknowledgement of the write that it misses."""
    filler = [(2, "invoke", "read", "y", None), (2, "ok", "read", "y", None)] * age_ms
    return calls_of(
        (0, "invoke", "write", "x", 1),
        (0, "ok", "write", "x", None, {"revision": 1}),
        (0, "invoke", "write", "x", 2),
        (0, "ok", "write", "x", None, {"revision": 2}),
        *filler[: age_ms - 1 - (age_ms - 1) % 2],
        (1, "invoke", "read", "x", None),
        (1, "ok", "read", "x", 1, {"revision": 1, "level": level, **extra}),
    )


def test_a_bound_is_kept_up_to_its_very_end() -> None:
    """A read 5 ms behind is within a bound of 5 ms, and beyond one of 4; the bound may come with the level."""
    assert staleness(history("bounded", 5, bound_ms=5)).valid is True
    result = staleness(history("bounded", 5, bound_ms=4))
    assert [finding.kind for finding in result.findings] == ["too-stale"]
    assert "5.000 ms before it began; 4 ms are allowed" in result.findings[0].sentence
    assert staleness(history("bounded", 5), {"bounded": 4}).valid is False


def test_a_level_without_a_bound_is_measured_only() -> None:
    """A stale read may be as old as it likes, and shows in the counts and the histogram."""
    calls = history("stale", 5)
    result = staleness(calls)
    assert result.valid is True
    assert result.counts["stale_max_ms"] == 5.0
    assert histograms(ages(calls))["stale"][bucket(5_000_000)] == 1


def test_a_linearizable_read_has_bound_zero() -> None:
    """A read that names no level must not be old at all."""
    assert staleness(history("", 1)).valid is False


def test_an_absent_key_may_be_as_new_as_its_last_delete() -> None:
    """A read that finds nothing after a delete is not old; with a delete of unknown revision its age cannot be told."""
    rows: list[Row] = [
        (0, "invoke", "write", "x", 1),
        (0, "ok", "write", "x", None, {"revision": 1}),
        (0, "invoke", "delete", "x", None),
        (0, "ok", "delete", "x", None, {"revision": 2}),
        (1, "invoke", "read", "x", None),
        (1, "ok", "read", "x", None, {"index": 2}),
    ]
    assert [age.stale_ns for age in ages(calls_of(*rows))] == [0]
    unknown: list[Row] = [(2, "invoke", "delete", "x", None), (2, "info", "delete", "x", None)]
    assert ages(calls_of(*unknown, *rows)) == []
    without_delete: list[Row] = [*rows[:2], *rows[4:]]
    assert [age.stale_ns for age in ages(calls_of(*without_delete))] == [1_000_000]


def test_without_revisions_only_plain_unique_writes_tell_the_age() -> None:
    """Where a value is written twice, or by something else than a write, nothing is claimed."""
    twice = [(0, "invoke", "write", "x", 1), (0, "ok", "write", "x", None)] * 2
    read = [(1, "invoke", "read", "x", None), (1, "ok", "read", "x", 1)]
    assert staleness(calls_of(*twice, *read)).valid == "unknown"


@pytest.mark.parametrize(("ms", "place"), [(0, 0), (1, 1), (1.5, 2), (60_000, 15), (60_001, 16)])
def test_buckets_hold_their_upper_end(ms: float, place: int) -> None:
    """A staleness falls into the first bucket whose end is not below it; above all of them is one more."""
    assert bucket(int(ms * 1e6)) == place
    assert len(BUCKETS_MS) == 16


def test_a_delete_without_a_revision_hides_nothing_else() -> None:
    """Writes with evidence still tell the age of reads with evidence when one write has none."""
    calls = calls_of(
        (0, "invoke", "write", "x", 1),
        (0, "ok", "write", "x", None, {"revision": 1}),
        (0, "invoke", "delete", "x", None),
        (0, "ok", "delete", "x", None),
        (0, "invoke", "write", "x", 2),
        (0, "ok", "write", "x", None, {"revision": 3}),
        (1, "invoke", "read", "x", None),
        (1, "ok", "read", "x", 1, {"revision": 1}),
    )
    assert [age.stale_ns for age in ages(calls)] == [1_000_000]
