"""What follows a failed attempt: another one, and where and when, or the end.

Pure: `next_step` is the router's whole retry policy as one function of what happened. The rules:

- a definite failure to reach the leader is followed by an attempt at the node that the error names,
  else at the next replica, at once until every replica was asked, then with growing pauses, and after each
  pause every replica is asked once more;
- a read that any replica may serve, and that one cannot serve well enough, goes to the leader if that was not
  asked yet, else to the next that was not;
- after an indefinite failure only a repeatable request is sent again (a read, or a write that its
  session protects); a bare write ends as indefinite;
- once an attempt may have been applied, a later definite error says nothing about that attempt, so
  the request ends as indefinite whatever comes (Maelstrom, doc/protocol.md: when unsure, indefinite).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from kv.errors import DeadlineExceeded, KVError, NoLeader, Unavailable, UnknownOutcome
from kv.ids import NodeId

UNMET: Final = frozenset({"TOO_STALE", "BEHIND_SESSION"})
"""Reasons of a replica that answers, but cannot keep the promise of the level."""

ELSEWHERE: Final = UNMET | frozenset(
    {"NOT_LEADER", "NO_LEADER", "UNAVAILABLE", "REPLICA_STOPPED", "WRONG_CLUSTER"}
)
"""Reasons for which another replica may do better."""

LATER: Final = frozenset({"OVERLOADED", "DISK_FULL"})
"""Reasons that the caller must hear, so that it slows down; unless an earlier attempt may have been applied."""

SETTLED: Final = frozenset({"OUTCOME_DECIDED"})
"""Definite for every attempt of the request, not only for the one that it answers."""

LOST: Final = frozenset({"UNKNOWN_OUTCOME", "UNAVAILABLE", "NOT_LEADER", "NO_LEADER"})
"""Reasons of an indefinite end that a repetition can clear up."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The pauses between attempts, in seconds."""

    backoff_s: float
    backoff_max_s: float


@dataclass(frozen=True, slots=True)
class Kind:
    """What the request is to a retry."""

    is_read: bool
    repeatable: bool
    """A read, or protected by a session: a copy does no harm."""
    owned_session: bool = False
    """The session is the router's own, so that the router may open another."""
    any_replica: bool = False
    """A read that every replica may serve."""
    pinned: bool = False
    """It is for one replica alone: it does not wait long for that one to come back."""


class Progress(NamedTuple):
    """What the attempts so far have shown (a tuple: one or two are made for each attempt that fails)."""

    attempts: int = 0
    quick: int = 0
    """Attempts since the last pause."""
    pauses: int = 0
    maybe_applied: bool = False
    """An attempt of a write ended without a definite answer."""
    asked: tuple[NodeId, ...] = ()
    """The nodes tried in this round; when all were, a new round begins."""
    unmet: KVError | None = None
    """The last refusal of a replica that could not keep the promise of the level."""


class Retry(NamedTuple):
    """Send it again to `node`, `delay_s` from now."""

    node: NodeId
    delay_s: float
    progress: Progress


@dataclass(frozen=True, slots=True)
class Reopen:
    """Send it again under a new session of the router."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Fail:
    """End the request with this error."""

    error: KVError


Step: TypeAlias = Retry | Reopen | Fail


def next_step(
    error: KVError,
    kind: Kind,
    progress: Progress,
    *,
    tried: NodeId,
    replicas: Sequence[NodeId],
    hint: NodeId | None,
    now: float,
    deadline: float,
    jitter: float,
    policy: RetryPolicy,
) -> Step:
    """Decide what follows the attempt at `tried` that ended with `error`.

    `hint` is the leader that this node itself knows of; one in the error goes before it. `jitter` is
    in [0, 1). Times are in seconds of one clock.
    """
    seen = _seen(error, kind, progress, tried, replicas)
    if error.reason == "SESSION_EXPIRED" and kind.owned_session and not seen.maybe_applied:
        return _reopen(error, kind, seen, now, deadline, jitter, policy)
    if not _worth_another(error, kind, seen):
        return Fail(final(error, kind, seen))
    node = _target(error, kind, seen, tried, replicas, hint)
    if node is None or (kind.pinned and seen.pauses >= PINNED_PAUSES_MAX):
        return Fail(final(error, kind, seen))
    delay, seen = _pause(error, seen, len(replicas), jitter, policy)
    if now + delay >= deadline:
        return Fail(final(seen.unmet or error, kind, seen))
    return Retry(node, delay, seen)


def lost_attempt(kind: Kind, progress: Progress, tried: NodeId, replicas: Sequence[NodeId]) -> Progress:
    """Return the progress after an attempt was given up without an answer."""
    return progress._replace(
        attempts=progress.attempts + 1,
        maybe_applied=not kind.is_read,
        asked=_asked(progress, tried, replicas),
    )


def next_replica(
    kind: Kind, progress: Progress, tried: NodeId, replicas: Sequence[NodeId], leader: NodeId | None
) -> NodeId:
    """Return the replica to ask after `tried`; `leader` is the one that is known, and may be wrong."""
    assert replicas, "a partition has replicas"
    if (
        leader
        and leader in replicas
        and leader != tried
        and not (kind.any_replica and leader in progress.asked)
    ):
        return leader
    after = replicas.index(tried) + 1 if tried in replicas else 0
    if not kind.any_replica:
        return replicas[after % len(replicas)]
    turn = [*replicas[after:], *replicas[:after]]
    return next((node for node in turn if node not in progress.asked), turn[0])


def final(error: KVError, kind: Kind, progress: Progress) -> KVError:
    """Return the error with which the request ends, given that its last attempt ended with `error`."""
    if kind.is_read and not error.definite and error.reason in LOST:
        return Unavailable(f"the read was not answered: {error.message}", metadata=error.metadata)
    if error.reason in SETTLED:
        return error
    if not kind.is_read and progress.maybe_applied and error.definite:
        message = f"an earlier attempt may have been applied, and the last one ended with: {error.message}"
        return UnknownOutcome(message, metadata={**error.metadata, "last_reason": error.reason})
    if error.reason == "NOT_LEADER" and error.definite:
        return NoLeader(f"no replica accepted the request: {error.message}", metadata=error.metadata)
    return error


def deadline_error(kind: Kind, progress: Progress, *, outstanding: bool) -> KVError:
    """Return the error of a request whose time ran out; `outstanding`: an attempt may be at a replica now."""
    if progress.unmet is not None:
        return progress.unmet
    definite = kind.is_read or not (outstanding or progress.maybe_applied)
    harmless = ", and it was not applied" if definite and not kind.is_read else ""
    message = f"the deadline passed after {progress.attempts} failed attempts{harmless}"
    return DeadlineExceeded(message, metadata={"attempts": progress.attempts}, definite=definite)


def _seen(
    error: KVError, kind: Kind, progress: Progress, tried: NodeId, replicas: Sequence[NodeId]
) -> Progress:
    return Progress(  # by position: names would cost as much as the tuple
        progress.attempts + 1,
        progress.quick,
        progress.pauses,
        progress.maybe_applied or not (error.definite or kind.is_read),
        _asked(progress, tried, replicas),
        error if kind.is_read and error.reason in UNMET else progress.unmet,
    )


def _asked(progress: Progress, tried: NodeId, replicas: Sequence[NodeId]) -> tuple[NodeId, ...]:
    asked = (*progress.asked, tried)
    all_asked = len(asked) >= len(replicas) and set(replicas) <= set(asked)
    return (tried,) if all_asked else asked


def _worth_another(error: KVError, kind: Kind, seen: Progress) -> bool:
    if seen.maybe_applied and not kind.repeatable:
        return False
    if not error.definite:
        return error.reason in LOST
    return error.reason in ELSEWHERE or (error.reason in LATER and seen.maybe_applied)


def _target(
    error: KVError, kind: Kind, seen: Progress, tried: NodeId, replicas: Sequence[NodeId], hint: NodeId | None
) -> NodeId | None:
    """Return the node to ask next: who the error names, who we know to lead, or the next replica."""
    if error.reason in LATER:
        return tried
    named = error.metadata.get("leader")
    if named and named != tried and named in replicas:
        return named
    return next_replica(kind, seen, tried, replicas, hint) if replicas else None


def _pause(
    error: KVError, seen: Progress, replicas: int, jitter: float, policy: RetryPolicy
) -> tuple[float, Progress]:
    """Return the delay before the next attempt.

    As many attempts as there are replicas follow at once, so a hint, a second hint and one refused
    connection cost no pause; that also ends any chase of hints in a circle. After a pause it is one less:
    with the one that the pause ended each replica is asked once, and nobody twice before the next pause.
    """
    if seen.quick < (replicas if seen.pauses == 0 else replicas - 1) and error.reason not in LATER:
        return 0.0, _paced(seen, seen.quick + 1, seen.pauses)
    delay = min(policy.backoff_max_s, policy.backoff_s * 2.0 ** min(seen.pauses, 30)) * (1 + jitter) / 2
    return delay, _paced(seen, 0, seen.pauses + 1)


def _paced(seen: Progress, quick: int, pauses: int) -> Progress:
    return Progress(seen.attempts, quick, pauses, seen.maybe_applied, seen.asked, seen.unmet)


def _reopen(
    error: KVError,
    kind: Kind,
    seen: Progress,
    now: float,
    deadline: float,
    jitter: float,
    policy: RetryPolicy,
) -> Step:
    """A session that expires as soon as it is opened must not make a busy loop: it counts as attempts do."""
    if now >= deadline or seen.pauses >= SESSIONS_PER_REQUEST_MAX:
        return Fail(final(error, kind, seen))
    _, paused = _pause(error, _paced(seen, 1 << 30, seen.pauses), 0, jitter, policy)
    return Reopen(paused)


SESSIONS_PER_REQUEST_MAX: Final = 8
"""A request that finds so many sessions of the router expired ends with that error."""

PINNED_PAUSES_MAX: Final = 5
"""A request for one replica alone ends after so many pauses, about a third of a second: that one is gone."""
