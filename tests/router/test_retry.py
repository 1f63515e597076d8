"""The retry policy: where the next attempt goes, and how a request ends."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv import errors
from kv.errors import KVError, NoLeader, NotLeader, SessionExpired, Unavailable, UnknownOutcome
from kv.router.retry import (
    SESSIONS_PER_REQUEST_MAX,
    Fail,
    Kind,
    Progress,
    Reopen,
    Retry,
    RetryPolicy,
    Step,
    deadline_error,
    lost_attempt,
    next_step,
)

POLICY = RetryPolicy(backoff_s=0.01, backoff_max_s=0.2)
REPLICAS = ("n1", "n2", "n3")
READ = Kind(is_read=True, repeatable=True)
BARE = Kind(is_read=False, repeatable=False)
PROTECTED = Kind(is_read=False, repeatable=True)
OWNED = Kind(is_read=False, repeatable=True, owned_session=True)

REASONS = sorted(errors.REGISTRY)
ANY_ERROR = st.builds(
    lambda reason, definite, leader: errors.REGISTRY[reason](
        "x", metadata={"leader": leader} if reason == "NOT_LEADER" else {}, definite=definite
    ),
    st.sampled_from(REASONS),
    st.booleans(),
    st.sampled_from(["", "n1", "n2", "n3", "n9"]),
)


def step(
    error: KVError,
    kind: Kind,
    progress: Progress | None = None,
    *,
    tried: str = "n1",
    hint: str | None = None,
    now: float = 0.0,
    deadline: float = 5.0,
    jitter: float = 0.5,
    replicas: tuple[str, ...] = REPLICAS,
) -> Step:
    """Ask the policy, with the usual surroundings."""
    return next_step(
        error,
        kind,
        progress or Progress(),
        tried=tried,
        replicas=replicas,
        hint=hint,
        now=now,
        deadline=deadline,
        jitter=jitter,
        policy=POLICY,
    )


@dataclass
class Story:
    """A request's whole life under `next_step`."""

    attempts: int
    indefinite_before_last: bool
    delays: list[float]
    end: KVError | None


def live(kind: Kind, failures: list[KVError]) -> Story:
    """Run a request against a list of failures; what is left of the list when it ends is not used."""
    progress, node, now = Progress(), "n1", 0.0
    indefinite = False
    delays: list[float] = []
    for attempts, failure in enumerate(failures, start=1):
        match step(failure, kind, progress, tried=node, now=now):
            case Fail(end):
                return Story(attempts, indefinite, delays, end)
            case Retry(node, delay, progress):
                delays.append(delay)
                now += delay
            case Reopen(progress):
                pass
        indefinite = indefinite or not failure.definite
    return Story(len(failures), indefinite, delays, None)


@given(st.lists(ANY_ERROR, min_size=1, max_size=40))
def test_a_bare_write_is_never_sent_again_after_an_indefinite_end(failures: list[KVError]) -> None:
    """Whatever attempts end with, the one after an indefinite end is never made."""
    assert not live(BARE, failures).indefinite_before_last


@given(st.sampled_from([BARE, PROTECTED, OWNED]), st.lists(ANY_ERROR, min_size=1, max_size=40))
def test_a_write_ends_definite_only_if_every_attempt_did(kind: Kind, failures: list[KVError]) -> None:
    """The error of a write says definite only when no attempt of it may have been applied."""
    story = live(kind, failures)
    if story.end is not None and story.end.definite:
        assert all(failure.definite for failure in failures[: story.attempts])


@given(st.sampled_from([READ, PROTECTED, BARE]), st.lists(ANY_ERROR, min_size=1, max_size=40))
def test_attempts_without_a_pause_are_bounded(kind: Kind, failures: list[KVError]) -> None:
    """At most as many attempts as there are replicas follow one another without a pause."""
    delays = live(kind, failures).delays
    run = 0
    for delay in delays:
        run = run + 1 if delay == 0 else 0
        assert run <= len(REPLICAS)


def test_a_hint_is_followed_at_once() -> None:
    """NOT_LEADER that names the leader leads there without a pause."""
    found = step(NotLeader("x", metadata={"leader": "n3"}), PROTECTED)
    assert isinstance(found, Retry)
    assert (found.node, found.delay_s) == ("n3", 0.0)


def test_own_knowledge_replaces_a_missing_hint() -> None:
    """Without a name in the error this node's own knowledge of the leader is used."""
    found = step(Unavailable("x"), PROTECTED, tried="n1", hint="n3")
    assert isinstance(found, Retry)
    assert found.node == "n3"


def test_a_hint_to_the_node_just_tried_or_to_a_stranger_is_ignored() -> None:
    """A hint that leads nowhere new is answered by the next replica."""
    for leader in ("n1", "stranger"):
        found = step(NotLeader("x", metadata={"leader": leader}), PROTECTED, tried="n1")
        assert isinstance(found, Retry)
        assert found.node == "n2"


def test_replicas_are_asked_in_turn_then_with_growing_capped_pauses() -> None:
    """Every replica is asked once, then pauses double up to their cap."""
    story = live(READ, [NoLeader("x")] * 60)
    pauses = [delay for delay in story.delays if delay > 0]
    assert story.delays[:3] == [0.0, 0.0, 0.0]
    assert pauses[0] == pytest.approx(0.0075)
    assert all(later >= earlier for earlier, later in pairwise(pauses))
    assert max(pauses) == pytest.approx(0.15)


def test_a_lost_attempt_of_a_bare_write_is_unknown() -> None:
    """Connection lost after sending: the bare write ends at once, as unknown."""
    ended = step(UnknownOutcome("x"), BARE)
    assert isinstance(ended, Fail)
    assert isinstance(ended.error, UnknownOutcome)


@pytest.mark.parametrize("kind", [READ, PROTECTED, OWNED])
def test_a_lost_attempt_of_a_repeatable_request_is_repeated(kind: Kind) -> None:
    """Connection lost after sending: a read, or a write with a session, goes to the next replica."""
    found = step(UnknownOutcome("x"), kind)
    assert isinstance(found, Retry)
    assert found.node == "n2"
    assert found.progress.maybe_applied == (not kind.is_read)


def test_a_definite_error_after_a_lost_attempt_is_unknown() -> None:
    """A refusal says nothing about an earlier attempt that may have been applied."""
    for error in (errors.InvalidArgument("x"), SessionExpired("x"), errors.WrongPartition("x")):
        ended = step(error, OWNED, Progress(attempts=1, maybe_applied=True))
        assert isinstance(ended, Fail)
        assert isinstance(ended.error, UnknownOutcome)
        assert ended.error.metadata["last_reason"] == error.reason


def test_overload_goes_to_the_caller_unless_an_attempt_may_have_been_applied() -> None:
    """OVERLOADED ends a request, so that the caller slows down; but a write in doubt is cleared up first."""
    ended = step(errors.Overloaded("x"), PROTECTED)
    assert isinstance(ended, Fail)
    assert isinstance(ended.error, errors.Overloaded)
    found = step(errors.Overloaded("x"), PROTECTED, Progress(maybe_applied=True))
    assert isinstance(found, Retry)
    assert found.node == "n1"
    assert found.delay_s > 0


def test_an_expired_session_of_ours_is_opened_anew_only_without_doubt() -> None:
    """SESSION_EXPIRED of the router's session moves a request that no earlier attempt can have applied."""
    assert isinstance(step(SessionExpired("x"), OWNED), Reopen)
    client = step(SessionExpired("x"), PROTECTED)
    assert isinstance(client, Fail)
    assert isinstance(client.error, SessionExpired)


def test_sessions_that_always_expire_end_the_request() -> None:
    """A request does not open sessions for ever."""
    story = live(OWNED, [SessionExpired("x")] * 100)
    assert story.attempts == SESSIONS_PER_REQUEST_MAX + 1
    assert isinstance(story.end, SessionExpired)


def test_not_leader_ends_as_no_leader_at_the_deadline() -> None:
    """The caller is told that there is no leader, not which node was the last to say so."""
    ended = step(NotLeader("x"), BARE, Progress(quick=3), now=4.999, deadline=5.0)
    assert isinstance(ended, Fail)
    assert isinstance(ended.error, NoLeader)
    assert ended.error.definite


def test_a_read_that_was_lost_ends_definite() -> None:
    """A read has no effect: when it ends without an answer, nothing happened."""
    ended = step(UnknownOutcome("x"), READ, Progress(quick=3), now=5.0, deadline=5.0)
    assert isinstance(ended, Fail)
    assert isinstance(ended.error, Unavailable)


@pytest.mark.parametrize(
    ("kind", "progress", "outstanding", "definite"),
    [
        (READ, Progress(), True, True),
        (BARE, Progress(), False, True),
        (BARE, Progress(), True, False),
        (PROTECTED, Progress(maybe_applied=True), False, False),
        (PROTECTED, lost_attempt(PROTECTED, Progress()), False, False),
        (READ, lost_attempt(READ, Progress()), False, True),
    ],
)
def test_a_deadline_is_definite_only_if_nothing_may_come_of_it(
    kind: Kind, progress: Progress, outstanding: bool, definite: bool
) -> None:
    """DEADLINE_EXCEEDED of a write is definite only without an attempt at a replica, now or before."""
    assert deadline_error(kind, progress, outstanding=outstanding).definite == definite


def test_without_replicas_the_error_is_final() -> None:
    """A partition without replicas in the map gives nowhere to go."""
    ended = step(Unavailable("x"), READ, replicas=())
    assert isinstance(ended, Fail)
