"""Recovery: the time from the end of the last fault to the first success of each partition."""

from __future__ import annotations

from kv_jepsen.checkers import recovery
from kv_jepsen.history import Call
from kv_jepsen.periods import Period
from kv_jepsen.rehearsal import calls_of

MS = 1_000_000
CUT = Period("partition", "n1/*", 1 * MS, 4 * MS)


def calls() -> list[Call]:
    """Invoked and answered at 5 and 6, 7 and 8, 9 and 10 ms; partition 1 fails once and then serves, 2 never does."""
    quiet = [(9, "invoke", "noop", None, None), (9, "ok", "noop", None, None)]
    return calls_of(
        *quiet,
        *quiet,
        (9, "invoke", "noop", None, None),
        (0, "invoke", "read", "x", None),
        (0, "fail", "read", "x", None, {"partition": 1}),
        (0, "invoke", "read", "x", None),
        (0, "ok", "read", "x", None, {"partition": 1}),
        (0, "invoke", "read", "y", None),
        (0, "fail", "read", "y", None, {"partition": 2}),
    )


def test_the_wait_is_measured_for_each_partition() -> None:
    """A partition's wait ends with the answer to its first success; one that never served is counted apart."""
    result = recovery(calls(), [CUT])
    assert result.valid is True
    assert result.counts == {
        "heals": 1,
        "partitions": 2,
        "not_seen": 1,
        "recovery_p50_ms": 4.0,
        "recovery_p99_ms": 4.0,
        "recovery_max_ms": 4.0,
    }


def test_too_slow_and_never_are_found() -> None:
    """A limit is kept up to its end; a partition that was asked for longer without success never came back."""
    assert recovery(calls(), [CUT], 6).valid is True
    findings = recovery(calls(), [CUT], 3.9).findings
    assert [finding.kind for finding in findings] == ["slow", "never"]


def test_only_calls_that_begin_after_the_heal_count() -> None:
    """A success that began during the fault says nothing about recovery."""
    late = Period("partition", "n1/*", 1 * MS, 8 * MS)
    assert recovery(calls(), [late]).valid == "unknown"


def test_a_next_fault_ends_the_calm() -> None:
    """What succeeds after the next fault has begun is no recovery from the one before."""
    again = Period("crash", "n2", 6 * MS, 30 * MS)
    assert recovery(calls(), [CUT, again]).counts["not_seen"] == 4


def test_without_faults_there_is_nothing_to_recover_from() -> None:
    """No fault, or one that never ended: unknown."""
    assert recovery(calls(), []).valid == "unknown"
    assert recovery(calls(), [Period("kill", "n1", 1, None)]).valid == "unknown"
