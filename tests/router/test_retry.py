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
    PINNED_PAUSES_MAX,
    SESSIONS_PER_REQUEST_MAX,
    SETTLED,
    Fail,
    Kind,
    Progress,
    Reopen,
    Retry,
    RetryPolicy,
    Step,
    deadline_error,
    lost_attempt,
    next_replica,
    next_step,
)

POLICY = RetryPolicy(backoff_s=0.01, backoff_max_s=0.2)
REPLICAS = ("n1", "n2", "n3")
READ = Kind(is_read=True, repeatable=True)
BARE = Kind(is_read=False, repeatable=False)
PROTECTED = Kind(is_read=False, repeatable=True)
OWNED = Kind(is_read=False, repeatable=True, owned_session=True)
SPREAD = Kind(is_read=True, repeatable=True, any_replica=True)
PINNED = Kind(is_read=True, repeatable=True, pinned=True)

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
    """The error of a write says definite only when no attempt of it may have been applied.

    What the partition has settled for every attempt is the exception: OUTCOME_DECIDED.
    """
    story = live(kind, failures)
    if story.end is not None and story.end.definite and story.end.reason not in SETTLED:
        assert all(failure.definite for failure in failures[: story.attempts])


@given(st.sampled_from([READ, SPREAD, PROTECTED, BARE]), st.lists(ANY_ERROR, min_size=1, max_size=40))
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


@pytest.mark.parametrize(
    ("kind", "replicas"), [(READ, REPLICAS), (PROTECTED, REPLICAS), (SPREAD, REPLICAS), (PINNED, ("n1",))]
)
def test_after_a_pause_every_replica_is_asked_once(kind: Kind, replicas: tuple[str, ...]) -> None:
    """Between two pauses no replica is asked twice, and none is left out."""
    progress, node, rounds = Progress(), replicas[0], [[replicas[0]]]
    while progress.pauses < 4:
        found = step(Unavailable("x"), kind, progress, tried=node, replicas=replicas)
        assert isinstance(found, Retry)
        node, progress = found.node, found.progress
        if found.delay_s > 0:
            rounds.append([])
        rounds[-1].append(node)
    assert [sorted(asked) for asked in rounds[1:4]] == [list(replicas)] * 3


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
        (PROTECTED, lost_attempt(PROTECTED, Progress(), "n1", REPLICAS), False, False),
        (READ, lost_attempt(READ, Progress(), "n1", REPLICAS), False, True),
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


@pytest.mark.parametrize("error", [errors.TooStale("x"), errors.BehindSession("x"), Unavailable("x")])
def test_a_promise_that_one_replica_cannot_keep_is_asked_of_the_leader_then_of_the_others(
    error: KVError,
) -> None:
    """Each round asks every replica but the one that ended the round before, the leader first."""
    progress, node, asked = Progress(), "n2", ["n2"]
    for _ in range(6):
        found = step(error, SPREAD, progress, tried=node, hint="n3")
        assert isinstance(found, Retry)
        node, progress = found.node, found.progress
        asked.append(node)
    assert asked == ["n2", "n3", "n1", "n3", "n2", "n3", "n1"]


@given(st.sampled_from(REPLICAS), st.none() | st.sampled_from([*REPLICAS, "n9"]))
def test_the_next_replica_is_another_one(tried: str, leader: str | None) -> None:
    """Whoever is taken for the leader, a read that any may serve never stays where it failed."""
    for asked in ((), (tried,), ("n1", "n2"), ("n1", "n3")):
        found = next_replica(SPREAD, Progress(asked=(*asked, tried)), tried, REPLICAS, leader)
        assert found in REPLICAS
        assert found != tried


def test_a_single_replica_is_asked_again() -> None:
    """Where there is no other replica, the one is asked again after a pause."""
    found = step(errors.TooStale("x"), SPREAD, Progress(quick=1), replicas=("n1",))
    assert isinstance(found, Retry)
    assert found.node == "n1"
    assert found.delay_s > 0


def test_an_unmet_promise_is_the_error_at_the_deadline() -> None:
    """That no replica was fresh enough says more than that the last one was down, or that time ran out."""
    unmet = errors.TooStale("old", metadata={"max_age_ms": 5})
    found = step(unmet, SPREAD)
    assert isinstance(found, Retry)
    ended = step(Unavailable("x"), SPREAD, found.progress._replace(quick=3), now=5.0, deadline=5.0)
    assert ended == Fail(unmet)
    assert deadline_error(SPREAD, found.progress, outstanding=True) is unmet


@pytest.mark.parametrize(
    "error",
    [
        errors.LeaseRefused("x"),
        errors.TooFewReplicas("x"),
        errors.SnapshotGone("x"),
        errors.NotAnInteger("x"),
        errors.IntegerOverflow("x"),
        errors.OutcomeDecided("x"),
        errors.NotOnAllReplicas("x"),
    ],
)
@pytest.mark.parametrize("kind", [READ, SPREAD, OWNED, PROTECTED])
def test_what_another_replica_would_say_too_is_final(error: KVError, kind: Kind) -> None:
    """These end the request as they are, whoever asked."""
    assert step(error, kind) == Fail(error)


def test_a_settled_outcome_stays_definite_after_a_lost_attempt() -> None:
    """OUTCOME_DECIDED speaks of every copy of the request; other refusals do not."""
    decided = errors.OutcomeDecided("x")
    assert step(decided, OWNED, Progress(attempts=1, maybe_applied=True)) == Fail(decided)


def test_a_request_for_one_replica_waits_for_it_a_bounded_time() -> None:
    """It is tried again at the same node, for less than half a second, and then ends with that node's error."""
    progress, waited, attempts = Progress(), 0.0, 0
    while True:
        found = step(Unavailable("gone"), PINNED, progress, replicas=("n1",), jitter=0.999)
        if isinstance(found, Fail):
            break
        assert isinstance(found, Retry)
        assert found.node == "n1"
        progress, waited, attempts = found.progress, waited + found.delay_s, attempts + 1
    assert isinstance(found.error, Unavailable)
    assert progress.pauses == PINNED_PAUSES_MAX
    assert 0.1 < waited < 0.5
    assert attempts == PINNED_PAUSES_MAX + 1, "again at once, and then once after each pause"
