"""Revisions: those of a correct store are accepted; one that goes back or is used twice is found."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import monotonic
from kv_jepsen.history import Call
from kv_jepsen.rehearsal import Request, Store, calls_of, simulate


def ask(rng: random.Random, n: int) -> Request:
    """A write or a read of one of two keys."""
    key = rng.choice("xy")
    return ("write", key, n) if rng.random() < 0.5 else ("read", key, None)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_correct_runs_are_accepted_and_an_old_answer_is_found(seed: int) -> None:
    """A store that answers from one state passes; if the last read answers from before the last known write, it fails."""
    last = (("write", "x", 1000), ("write", "x", 1001), ("read", "x", None))
    calls: list[Call] = list(simulate(seed, ask, Store().apply, last=last).calls)
    assert monotonic(calls).valid is True
    old, read = calls[-3], calls[-1]
    calls[-1] = replace(read, output=1000, extra={**read.extra, "revision": old.extra["revision"]})
    findings = monotonic(calls).findings
    assert [(finding.kind, finding.ops) for finding in findings] == [("went-back", (calls[-2].id, read.id))]
    calls[-1] = replace(calls[-1], extra={**calls[-1].extra, "level": "STALE"})
    assert monotonic(calls).valid is True
    assert monotonic(calls, levels={"stale"}).valid is False


def test_two_writes_with_one_revision_are_found() -> None:
    """A revision belongs to one write, also if the writes overlap."""
    calls = calls_of(
        (0, "invoke", "write", "x", 1),
        (1, "invoke", "write", "x", 2),
        (0, "ok", "write", "x", None, {"revision": 3}),
        (1, "ok", "write", "x", None, {"revision": 3}),
    )
    assert [finding.kind for finding in monotonic(calls).findings] == ["shared-revision"]


def test_a_write_must_go_beyond_what_was_answered() -> None:
    """A write that begins after an answer has a greater revision, not the same."""
    calls = calls_of(
        (0, "invoke", "read", "x", None),
        (0, "ok", "read", "x", 7, {"revision": 3}),
        (1, "invoke", "write", "x", 2),
        (1, "ok", "write", "x", None, {"revision": 3}),
    )
    assert [finding.kind for finding in monotonic(calls).findings] == ["went-back"]


def test_one_revision_with_two_values_is_found() -> None:
    """Two reads of one revision return the same, at any level."""
    calls = calls_of(
        (0, "invoke", "read", "x", None),
        (0, "ok", "read", "x", 7, {"revision": 3, "level": "stale"}),
        (0, "invoke", "read", "x", None),
        (0, "ok", "read", "x", 8, {"revision": 3, "level": "stale"}),
    )
    assert [finding.kind for finding in monotonic(calls).findings] == ["two-values"]


def test_a_refused_compare_and_set_is_no_write() -> None:
    """A condition that did not hold answers with the revision it found, as a read does."""
    calls = calls_of(
        (0, "invoke", "write", "x", 1),
        (0, "ok", "write", "x", None, {"revision": 3}),
        (0, "invoke", "cas", "x", (5, 6)),
        (0, "ok", "cas", "x", False, {"revision": 3}),
    )
    assert monotonic(calls).valid is True


def test_without_evidence_the_verdict_is_unknown() -> None:
    """A history without revisions is no pass."""
    assert (
        monotonic(calls_of((0, "invoke", "write", "x", 1), (0, "ok", "write", "x", None))).valid == "unknown"
    )


def test_calls_on_several_keys_share_revisions() -> None:
    """Transactions and scans are of no key, and two of one revision are no violation."""
    calls = calls_of(
        (0, "invoke", "txn", None, 1),
        (1, "invoke", "txn", None, 2),
        (0, "ok", "txn", None, 1, {"revision": 3}),
        (1, "ok", "txn", None, 2, {"revision": 3}),
    )
    assert monotonic(calls).valid == "unknown"


def test_an_empty_dequeue_is_no_write() -> None:
    """A dequeue that found nothing answers with the revision it found, as a read does."""
    calls = calls_of(
        (0, "invoke", "enqueue", "q", 1),
        (0, "ok", "enqueue", "q", None, {"revision": 3}),
        (0, "invoke", "dequeue", "q", None),
        (0, "ok", "dequeue", "q", None, {"revision": 3}),
    )
    assert monotonic(calls).valid is True
