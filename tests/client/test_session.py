"""Properties of the owner's side of a session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client.session import SequencedId, Session, SessionSlot, may_move


def test_sequences_start_at_one_and_grow() -> None:
    """The n-th request of a session has sequence n and acknowledges nothing that is alive."""
    session = Session(7)
    assert session.begin() == SequencedId(session=7, sequence=1, acknowledged=0)
    assert session.begin() == SequencedId(session=7, sequence=2, acknowledged=0)
    session.end(1)
    assert session.begin() == SequencedId(session=7, sequence=3, acknowledged=1)


def test_window_is_full_at_its_bound_and_opens_again() -> None:
    """At requests_in_flight_max a begin is refused, and one end makes room for exactly one."""
    session = Session(1, requests_in_flight_max=2)
    session.begin()
    session.begin()
    assert session.full
    with pytest.raises(ValueError, match="2 requests in flight"):
        session.begin()
    session.end(2)
    assert session.begin().sequence == 3
    assert session.full


def test_sequence_ends_once() -> None:
    """Ending what is not in flight is a defect of the caller and is refused."""
    session = Session(1)
    with pytest.raises(ValueError, match="sequence 1 is not in flight"):
        session.end(1)
    session.begin()
    session.end(1)
    with pytest.raises(ValueError, match="sequence 1 is not in flight"):
        session.end(1)


@pytest.mark.parametrize(("session_id", "window"), [(0, 1), (-1, 1), (1, 0)])
def test_bad_arguments_are_refused(session_id: int, window: int) -> None:
    """A session id of 0 means no session, and a window of 0 could never send."""
    with pytest.raises(ValueError, match=r"positive|at least 1"):
        Session(session_id, requests_in_flight_max=window)


@given(st.lists(st.one_of(st.none(), st.integers(0, 70)), max_size=200))
def test_acknowledged_is_below_everything_alive(script: list[int | None]) -> None:
    """In every schedule the mark covers ended sequences only, all up to the least alive, and never falls."""
    session = Session(9)
    alive: set[int] = set()
    last = mark = 0
    for step in script:
        if step is None and not session.full:
            identity = session.begin()
            last += 1
            assert identity.sequence == last
            assert identity.acknowledged < min(alive | {last})
            alive.add(last)
        elif alive and step is not None:
            ended = sorted(alive)[step % len(alive)]
            session.end(ended)
            alive.remove(ended)
        assert session.in_flight == len(alive)
        assert session.acknowledged == (min(alive) - 1 if alive else last)
        assert session.span == last - session.acknowledged
        assert session.acknowledged >= mark
        mark = session.acknowledged


def test_a_sequence_set_aside_is_never_acknowledged() -> None:
    """Whatever ends after it, the mark stays below it: the partition keeps the answer for who asks."""
    session = Session(1)
    for _ in range(4):
        session.begin()
    session.end(1)
    session.set_aside(3)
    session.set_aside(2)
    session.end(4)
    assert (session.in_flight, session.acknowledged) == (0, 1)
    with pytest.raises(ValueError, match="sequence 2 is not in flight"):
        session.set_aside(2)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 70)), max_size=100))
def test_the_mark_never_covers_what_was_set_aside(script: list[tuple[bool, int]]) -> None:
    """In every schedule the mark is below all that is alive or set aside, and never falls."""
    session = Session(9, requests_in_flight_max=1000)
    alive: list[int] = []
    aside: set[int] = set()
    mark = 0
    for keep, number in script:
        alive.append(session.begin().sequence)
        if number % 2:
            sequence = alive.pop(number % len(alive))
            if keep:
                session.set_aside(sequence)
                aside.add(sequence)
            else:
                session.end(sequence)
        assert session.acknowledged < min([*alive, *aside], default=1000)
        assert session.acknowledged >= mark
        mark = session.acknowledged


def test_a_slot_drops_a_session_with_an_unknown_outcome() -> None:
    """The next write opens another session; what is in flight ends in the old one, which may end late."""
    slot = SessionSlot()
    slot.start_opening()
    old = slot.opened(5)
    old.begin()
    old.begin()
    slot.set_aside(old, 1)
    assert session_id(slot) is None
    slot.start_opening()
    successor = slot.opened(6)
    slot.set_aside(old, 2)
    assert slot.current is successor


def session_id(slot: SessionSlot) -> int | None:
    """Return the id of the current session."""
    return slot.current.id if slot.current is not None else None


def test_slot_opens_one_session_at_a_time() -> None:
    """Of several that need a session only the first is told to open it."""
    slot = SessionSlot()
    told = [slot.start_opening(), slot.start_opening()]
    assert told == [True, False]
    assert slot.opening
    assert slot.opened(5).id == 5
    assert (slot.opening, slot.start_opening()) == (False, False)


def test_slot_tries_again_after_a_failed_open() -> None:
    """A failed open leaves the slot as it was before."""
    slot = SessionSlot()
    slot.start_opening()
    slot.open_failed()
    assert session_id(slot) is None
    assert slot.start_opening()


def test_slot_drops_only_the_session_that_expired() -> None:
    """A late SESSION_EXPIRED for an old session does not touch its successor."""
    slot = SessionSlot(requests_in_flight_max=3)
    slot.start_opening()
    slot.opened(5)
    slot.expired(5)
    assert session_id(slot) is None
    slot.start_opening()
    successor = slot.opened(6)
    slot.expired(5)
    assert slot.current is successor
    assert successor.requests_in_flight_max == 3


def test_a_request_moves_only_without_an_indefinite_attempt() -> None:
    """After an indefinite end the operations never go to another session."""
    assert may_move(earlier_attempt_indefinite=False)
    assert not may_move(earlier_attempt_indefinite=True)
