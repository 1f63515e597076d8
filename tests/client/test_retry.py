"""Properties of the decisions after a failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client.retry import (
    BACKOFF_MAX_S,
    BACKOFF_MIN_S,
    HINTS_FOLLOWED_MAX,
    Action,
    backoff_s,
    deadline_error,
    decide,
    is_indefinite,
)
from kv.errors import (
    REGISTRY,
    BehindSession,
    Conflict,
    DeadlineExceeded,
    DiskFull,
    IntegerOverflow,
    Internal,
    InvalidArgument,
    KVError,
    LeaseRefused,
    NoLeader,
    NotAnInteger,
    NotLeader,
    NotOnAllReplicas,
    OutcomeDecided,
    Overloaded,
    ReplicaStopped,
    ResultEvicted,
    SessionExpired,
    SnapshotGone,
    TooFewReplicas,
    TooStale,
    Unavailable,
    UnknownOutcome,
    WrongPartition,
)

ERRORS = st.sampled_from(sorted(REGISTRY)).map(lambda reason: REGISTRY[reason]("it failed"))
JITTER = st.floats(0, 1, exclude_max=True)
TRANSIENT = [NotLeader, NoLeader, WrongPartition, Overloaded, Unavailable, DiskFull, ReplicaStopped]


@given(st.lists(ERRORS, max_size=30), JITTER)
def test_no_other_sequence_after_an_indefinite_end(errors: list[KVError], jitter: float) -> None:
    """Once an attempt of a write had an indefinite end, it is resent identically or given up as unknown.

    But for OUTCOME_DECIDED, which says of the sequence that no attempt was or will be applied.
    """
    indefinite = False
    for failures, error in enumerate(errors, 1):
        indefinite = indefinite or is_indefinite(error, write=True)
        decision = decide(error, write=True, indefinite=indefinite, failures=failures, jitter=jitter)
        if not indefinite:
            assert decision.action in {Action.REQUEUE, Action.RENEW, Action.FAIL}
            continue
        assert decision.action in {Action.RESEND, Action.FAIL}
        if decision.action is Action.FAIL:
            assert decision.error is not None
            assert decision.error.definite is isinstance(error, OutcomeDecided)
            return


@given(ERRORS, st.integers(1, 1000), JITTER)
def test_a_read_is_never_unknown(error: KVError, failures: int, jitter: float) -> None:
    """A read has no effect: whatever fails, it is asked again or fails with that error."""
    decision = decide(error, write=False, indefinite=False, failures=failures, jitter=jitter)
    assert decision.action in {Action.REQUEUE, Action.FAIL}
    assert decision.error in {None, error}


@pytest.mark.parametrize("kind", TRANSIENT)
def test_transient_refusals_are_retried(kind: type[KVError]) -> None:
    """What time or another node may cure frees the operations to try again."""
    decision = decide(kind("no"), write=True, indefinite=False, failures=1, jitter=0.0)
    assert decision.action is Action.REQUEUE
    assert decision.refresh_map is (kind is WrongPartition)


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument("bad"),
        Conflict("no"),
        Internal("bug"),
        ResultEvicted("old"),
        NotAnInteger("text"),
        IntegerOverflow("large"),
        OutcomeDecided("no"),
        LeaseRefused("off"),
        SnapshotGone("gone"),
        NotOnAllReplicas("lags"),
    ],
)
def test_final_errors_go_to_the_caller(error: KVError) -> None:
    """What repeating cannot cure is told at once, as it is."""
    indefinite = is_indefinite(error, write=True)
    decision = decide(error, write=True, indefinite=indefinite, failures=1, jitter=0.0)
    assert decision.action is Action.FAIL
    assert decision.error is error


def test_a_refusal_after_an_indefinite_attempt_is_unknown() -> None:
    """A definite refusal of a later attempt says nothing about the earlier one."""
    decision = decide(InvalidArgument("bad"), write=True, indefinite=True, failures=2, jitter=0.0)
    assert isinstance(decision.error, UnknownOutcome)
    assert decision.error.metadata == {"cause": "INVALID_ARGUMENT"}


@pytest.mark.parametrize("kind", [TooStale, BehindSession, TooFewReplicas])
def test_a_level_that_cannot_be_kept_now_is_asked_for_again(kind: type[KVError]) -> None:
    """Another replica, or a little later, may keep it: the read goes on until its deadline."""
    decision = decide(kind("no"), write=False, indefinite=False, failures=1, jitter=0.5)
    assert decision.action is Action.REQUEUE
    assert decision.delay_s > 0.0


def test_a_decided_outcome_stays_definite() -> None:
    """OUTCOME_DECIDED speaks of the sequence, so an earlier attempt without an answer does not weaken it."""
    error = OutcomeDecided("fenced")
    decision = decide(error, write=True, indefinite=True, failures=2, jitter=0.0)
    assert decision.error is error
    assert error.definite


def test_expired_session_is_renewed_only_if_nothing_can_have_been_applied() -> None:
    """SESSION_EXPIRED: a new session if every attempt was definite, else UNKNOWN_OUTCOME."""
    error = SessionExpired("gone")
    renewed = decide(error, write=True, indefinite=False, failures=1, jitter=0.5)
    assert renewed.action is Action.RENEW
    assert renewed.delay_s == 0.0
    assert decide(error, write=True, indefinite=False, failures=2, jitter=0.5).delay_s > 0.0
    unknown = decide(error, write=True, indefinite=True, failures=1, jitter=0.5)
    assert isinstance(unknown.error, UnknownOutcome)


def test_hints_are_followed_at_once_but_not_for_ever() -> None:
    """A NOT_LEADER hint is followed without a pause HINTS_FOLLOWED_MAX times; without a hint there is a pause."""
    hint = NotLeader("no", metadata={"leader": "n2"})
    for failures in range(1, HINTS_FOLLOWED_MAX + 2):
        decision = decide(hint, write=False, indefinite=False, failures=failures, jitter=0.5)
        assert decision.leader == "n2"
        assert (decision.delay_s == 0.0) is (failures <= HINTS_FOLLOWED_MAX)
    nobody = decide(
        NotLeader("no", metadata={"leader": ""}), write=False, indefinite=False, failures=1, jitter=0.5
    )
    assert nobody.leader is None
    assert nobody.delay_s > 0.0


@given(st.integers(1, 10**6), JITTER)
def test_backoff_is_bounded(failures: int, jitter: float) -> None:
    """A pause lies between half the minimum and the maximum, whatever the number of failures."""
    assert BACKOFF_MIN_S / 2 <= backoff_s(failures, jitter) <= BACKOFF_MAX_S


@given(st.integers(1, 30))
def test_backoff_grows(failures: int) -> None:
    """With the same jitter, a later pause is not shorter."""
    assert backoff_s(failures, 0.5) <= backoff_s(failures + 1, 0.5)


@given(st.booleans(), st.booleans(), st.none() | ERRORS)
def test_deadline_classification(write: bool, indefinite: bool, cause: KVError | None) -> None:
    """At the deadline only a write that may have been applied is unknown; all else is definite: nothing happened.

    A read whose level nobody could keep says so; everything else is a deadline.
    """
    error = deadline_error(write=write, indefinite=indefinite, cause=cause)
    if write and indefinite:
        assert isinstance(error, UnknownOutcome)
    elif not write and isinstance(cause, TooStale | BehindSession | TooFewReplicas):
        assert type(error) is type(cause)
        assert error.definite
        return
    else:
        assert isinstance(error, DeadlineExceeded)
        assert error.definite
    if cause is not None:
        assert cause.reason in error.message
        assert error.metadata["cause"] == cause.reason
