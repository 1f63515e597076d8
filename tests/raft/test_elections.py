"""The election timer and pre-vote of one replica, on a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.raft.elections import Elections


def timer(rng: float = 0.5, quorum: int = 2, now: float = 100.0) -> Elections:
    """A member of a group with timeouts of 1 to 2 seconds."""
    return Elections("a", quorum, 1.0, 2.0, lambda: rng, now)


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_the_timeout_lies_between_the_bounds(draw: float) -> None:
    """A member stands no earlier than the minimum and no later than the maximum after it last heard a leader."""
    elections = timer(draw)
    assert not elections.due(100.999)
    assert elections.due(102.0)
    assert elections.due(101.0 + draw + 1e-9)


def test_a_leaders_message_starts_the_timer_anew_and_ends_a_pre_vote() -> None:
    """While a leader is heard nobody stands, and pre-votes that were asked for before count no more."""
    elections = timer()
    assert not elections.begin_pre_vote(7, 101.5)
    elections.heard_leader(101.6)
    assert not elections.due(103.0)
    assert elections.due(103.2)
    assert not elections.pre_vote("b", 7)


def test_a_member_that_starts_has_just_heard_a_leader() -> None:
    """A restarted member is not quiet before the minimum election timeout has passed."""
    elections = timer()
    assert not elections.quiet(100.9)
    assert elections.quiet(101.0)


def test_arming_is_not_hearing() -> None:
    """Giving a vote starts the timer anew, but is no sign of life of a leader."""
    elections = timer()
    elections.arm(101.0)
    assert elections.quiet(101.0)
    assert not elections.due(102.0)


def test_pre_votes_are_counted_by_member_in_their_term() -> None:
    """In a group of five two others must agree, each counts once, and only for the term asked about."""
    elections = timer(quorum=3)
    assert not elections.begin_pre_vote(4, 102.0)
    assert not elections.pre_vote("b", 4)
    assert not elections.pre_vote("b", 4)
    assert not elections.pre_vote("c", 3)
    assert elections.pre_vote("c", 4)
    assert not elections.pre_vote("d", 4), "a won pre-vote is won once"


def test_asking_starts_the_timer_anew() -> None:
    """A member whose pre-vote is not answered asks again after a whole timeout, in a fresh count."""
    elections = timer(quorum=3)
    elections.begin_pre_vote(4, 102.0)
    elections.pre_vote("b", 4)
    assert not elections.due(103.0)
    assert elections.due(103.6)
    elections.begin_pre_vote(4, 103.6)
    assert not elections.pre_vote("c", 4)


def test_a_single_member_needs_nobody() -> None:
    """The only member of a group wins its pre-vote when it asks."""
    assert timer(quorum=1).begin_pre_vote(1, 102.0)
