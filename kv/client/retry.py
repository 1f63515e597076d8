"""What to do after an attempt failed. Pure: time and jitter are arguments.

The whole policy rests on one distinction. After a definite failure the attempt did
not happen and will not: its operations are free again, may be joined with others and
get a new sequence. After an indefinite failure of a write the attempt may have been
applied, or may yet be: from then on that request is sent again only as it is, with
the same session and sequence, until it has an answer or its deadline passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from kv.client.session import may_move
from kv.errors import (
    BehindSession,
    DeadlineExceeded,
    DiskFull,
    KVError,
    NoLeader,
    NotLeader,
    OutcomeDecided,
    Overloaded,
    ReplicaStopped,
    SessionExpired,
    TooFewReplicas,
    TooStale,
    Unavailable,
    UnknownOutcome,
    WrongPartition,
)

BACKOFF_MIN_S: Final = 0.01
BACKOFF_MAX_S: Final = 0.5
"""About one election timeout: a new leader is found soon, and a dead cluster is asked twice a second."""
HINTS_FOLLOWED_MAX: Final = 3
"""So many NOT_LEADER hints in a row are followed without a pause; two replicas that point at each other
must not spin."""

_SHORT_OF_LEVEL: Final = (TooStale, BehindSession, TooFewReplicas)
"""No replica that was asked can keep the level of the read now. That passes: another replica may keep it, one that
lags catches up, a leader is elected. At the deadline the caller gets this error, which says more than the time."""

_TRANSIENT: Final = (
    *_SHORT_OF_LEVEL,
    NotLeader,
    NoLeader,
    WrongPartition,
    Overloaded,
    Unavailable,
    DiskFull,
    ReplicaStopped,
    UnknownOutcome,
    DeadlineExceeded,  # the server's own limit on trying; ours is checked by our own clock
)


class Action(Enum):
    """What becomes of the operations of a failed attempt."""

    REQUEUE = "requeue"
    """Nothing of it was applied: the operations wait again and may travel in another request."""
    RESEND = "resend"
    """It may have been applied: send the identical request again."""
    RENEW = "renew"
    """Nothing of it was applied, and the session is gone: as REQUEUE, after a new session was opened."""
    FAIL = "fail"
    """Give `error` to the callers."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and when."""

    action: Action
    delay_s: float = 0.0
    leader: str | None = None
    """The node that NOT_LEADER named, if it did."""
    refresh_map: bool = False
    error: KVError | None = None
    """For FAIL: what the callers get."""


def backoff_s(failures: int, jitter: float) -> float:
    """Return the pause after so many failures in a row; `jitter` is uniform in [0, 1).

    Capped exponential with equal jitter: half of it is random, so that clients that failed
    together do not come back together (Brooker, "Exponential Backoff And Jitter", AWS 2015).
    """
    assert failures >= 1, "a pause follows a failure"
    assert 0.0 <= jitter < 1.0, "jitter is in [0, 1)"
    ceiling = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + 0.5 * jitter)


def is_indefinite(error: KVError, *, write: bool) -> bool:
    """Return whether the failed attempt may have been applied, or may yet be. A read has no effect."""
    return write and not error.definite


def decide(error: KVError, *, write: bool, indefinite: bool, failures: int, jitter: float) -> Decision:
    """Return what to do after `error`.

    Args:
        error: how this attempt ended.
        write: whether the request is a write, which then carries a session and a sequence.
        indefinite: whether any attempt of this request, this one included, had an indefinite end.
        failures: failures in a row at this partition, this one included, from 1.
        jitter: uniform in [0, 1).
    """
    assert indefinite or not is_indefinite(error, write=write), "an indefinite end must be remembered"
    if isinstance(error, SessionExpired) and write:
        return _session_expired(error, indefinite=indefinite, failures=failures, jitter=jitter)
    if not isinstance(error, _TRANSIENT):
        return Decision(Action.FAIL, error=_final(error, write=write, indefinite=indefinite))
    leader = error.metadata.get("leader") or None if isinstance(error, NotLeader) else None
    at_once = leader is not None and failures <= HINTS_FOLLOWED_MAX
    return Decision(
        Action.RESEND if write and indefinite else Action.REQUEUE,
        delay_s=0.0 if at_once else backoff_s(failures, jitter),
        leader=leader,
        refresh_map=isinstance(error, WrongPartition),
    )


def _session_expired(error: KVError, *, indefinite: bool, failures: int, jitter: float) -> Decision:
    if may_move(earlier_attempt_indefinite=indefinite):
        # The first renewal is immediate; a partition that forgets each session at once must not spin.
        return Decision(Action.RENEW, delay_s=0.0 if failures == 1 else backoff_s(failures, jitter))
    return Decision(Action.FAIL, error=_unknown("its session expired before an answer came", error))


def _final(error: KVError, *, write: bool, indefinite: bool) -> KVError:
    """Return the error for the callers: a refusal now says nothing about an earlier attempt.

    But for OUTCOME_DECIDED, which speaks of the sequence: it was not applied by any attempt and never will be.
    """
    if write and indefinite and error.definite and not isinstance(error, OutcomeDecided):
        return _unknown("a later attempt was refused", error)
    return error


def deadline_error(*, write: bool, indefinite: bool, cause: KVError | None) -> KVError:
    """Return the error for a caller whose time is up.

    Args:
        write: whether the operation is a write.
        indefinite: whether an attempt may have been applied; one without an answer counts.
        cause: how the last attempt ended, if one did.
    """
    if write and indefinite:
        return _unknown("the deadline passed before an answer came", cause)
    if isinstance(cause, _SHORT_OF_LEVEL) and not write:
        return type(cause)(f"{cause.message}, until the deadline", metadata=cause.metadata)
    because = f"; the last attempt ended with {cause.reason}: {cause.message}" if cause else ""
    what = "nothing was applied" if write else "nothing was read"
    return DeadlineExceeded(f"the deadline passed, {what}{because}", metadata=_cause(cause), definite=True)


def _unknown(why: str, cause: KVError | None) -> UnknownOutcome:
    because = f" ({cause.reason}: {cause.message})" if cause else ""
    return UnknownOutcome(f"the write may have been applied: {why}{because}", metadata=_cause(cause))


def _cause(cause: KVError | None) -> dict[str, str]:
    return {"cause": cause.reason} if cause else {}
