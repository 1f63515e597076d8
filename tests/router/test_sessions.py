"""The router's own sessions: who waits, who goes, and what a failed open means."""

from __future__ import annotations

from dataclasses import dataclass, field

from kv.client.session import SequencedId, Session
from kv.errors import DeadlineExceeded, KVError, NoLeader, Overloaded, Unavailable, UnknownOutcome
from kv.ids import GroupId
from kv.router.api import Reply
from kv.router.sessions import SEQUENCE_SPAN_MAX, SessionDesks
from kv.v1 import kv_pb2

PARTITION: GroupId = 3


@dataclass(eq=False)
class Write:
    """A write as the desks see it, with what became of it."""

    session: Session | None = None
    sequence: int = 0
    identity: SequencedId | None = None
    error: KVError | None = None


@dataclass
class Office:
    """The desks with what they asked for."""

    in_flight_max: int = 2
    waiting_max: int = 3
    opens: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desks: SessionDesks[Write] = SessionDesks(
            requests_in_flight_max=self.in_flight_max,
            waiting_max=self.waiting_max,
            begin=self._begin,
            refuse=self._refuse,
            open_session=lambda _partition, reply: self.opens.append(reply),
        )

    def _begin(self, write: Write, identity: SequencedId) -> None:
        write.identity = identity

    def _refuse(self, write: Write, error: KVError) -> None:
        write.error = error

    def attach(self, count: int = 1) -> list[Write]:
        writes = [Write() for _ in range(count)]
        for write in writes:
            self.desks.attach(PARTITION, write)
        return writes

    def opened(self, session: int) -> None:
        result = kv_pb2.OperationResult(open_session=kv_pb2.OpenSessionResult(session=session))
        self.opens.pop(0)(kv_pb2.BatchResponse(results=[result]).SerializeToString())


def test_one_open_serves_all_that_wait_and_sequences_follow_arrival() -> None:
    """Writes that arrive before the session is open share one open and go in their order."""
    office = Office(in_flight_max=10)
    writes = office.attach(3)
    assert len(office.opens) == 1
    office.opened(77)
    assert [write.identity for write in writes] == [SequencedId(77, n, 0) for n in (1, 2, 3)]


def test_a_full_session_makes_writes_wait_for_a_release() -> None:
    """At the bound the next write waits, and goes with the acknowledgement of the one that ended."""
    office = Office(in_flight_max=2)
    first, second, third = office.attach(3)
    office.opened(77)
    assert second.identity is not None
    assert third.identity is None
    office.desks.release(PARTITION, first)
    assert third.identity == SequencedId(77, 3, 1)


def test_waiting_is_bounded() -> None:
    """One more than waiting_max is refused, definite; the others still go."""
    office = Office(in_flight_max=10, waiting_max=3)
    writes = office.attach(4)
    assert isinstance(writes[3].error, Overloaded)
    office.opened(77)
    assert all(write.identity is not None for write in writes[:3])


def test_a_write_that_gives_up_waiting_is_forgotten() -> None:
    """A write whose time ran out while it waited gets no sequence."""
    office = Office()
    gone, stays = office.attach(2)
    office.desks.release(PARTITION, gone)
    office.opened(77)
    assert gone.identity is None
    assert stays.identity == SequencedId(77, 1, 0)


def test_a_failed_open_is_definite_for_the_writes_and_the_next_write_opens_again() -> None:
    """The writes were never sent, so their error is definite even if the open's own end is unknown."""
    for failure, expected in (
        (NoLeader("x"), NoLeader),
        (UnknownOutcome("x"), Unavailable),
        (DeadlineExceeded("x"), Unavailable),
    ):
        office = Office()
        writes = office.attach(2)
        office.opens.pop(0)(failure)
        assert all(isinstance(write.error, expected) and write.error.definite for write in writes)
        office.attach()
        assert len(office.opens) == 1


def test_an_expired_session_is_replaced_once() -> None:
    """Of many writes that hear of the same expired session, one opens the next."""
    office = Office(in_flight_max=10)
    writes = office.attach(3)
    office.opened(77)
    for write in writes:
        assert write.session is not None
        office.desks.expired(PARTITION, write.session)
        office.desks.release(PARTITION, write)
        office.desks.attach(PARTITION, write)
    assert len(office.opens) == 1
    office.opened(78)
    assert [write.identity for write in writes] == [SequencedId(78, n, 0) for n in (1, 2, 3)]


def test_a_slow_write_does_not_hold_back_one_session_for_ever() -> None:
    """When the acknowledged mark falls too far behind, later writes use another session."""
    office = Office(in_flight_max=10)
    [slow] = office.attach()
    office.opened(77)
    for _ in range(SEQUENCE_SPAN_MAX):
        [write] = office.attach()
        if write.identity is None:
            office.opened(78)
        office.desks.release(PARTITION, write)
    [last] = office.attach()
    assert last.identity is not None
    assert last.identity.session == 78
    office.desks.release(PARTITION, slow)


def test_a_long_queue_of_writes_that_end_at_once_is_a_loop() -> None:
    """Thousands of writes that fail as soon as they begin drain without nesting."""
    office = Office(in_flight_max=1, waiting_max=5000)
    begun: list[Write] = []

    def begin_and_end(write: Write, _identity: SequencedId) -> None:
        begun.append(write)
        office.desks.release(PARTITION, write)

    office.desks._begin = begin_and_end
    writes = office.attach(5000)
    office.opened(77)
    assert begun == writes


def test_a_write_set_aside_is_never_acknowledged_and_the_others_go_on_elsewhere() -> None:
    """The next writes, those that waited included, take a new session; the old one acknowledges nothing beyond."""
    office = Office(in_flight_max=2)
    unknown, beside, waits = office.attach(3)
    office.opened(77)
    office.desks.set_aside(PARTITION, unknown)
    assert unknown.session is None
    assert beside.session is not None
    assert beside.session.acknowledged == 0
    office.opened(78)
    assert waits.identity == SequencedId(78, 1, 0)
    old = beside.session
    office.desks.release(PARTITION, beside)
    assert old.acknowledged == 0


def test_setting_aside_many_of_one_session_opens_one_other() -> None:
    """A partition that goes silent costs one session, not one for each write; without a session it is nothing."""
    office = Office(in_flight_max=10)
    writes = office.attach(3)
    office.desks.set_aside(PARTITION, Write())
    office.opened(77)
    for write in writes:
        office.desks.set_aside(PARTITION, write)
    office.attach(2)
    assert len(office.opens) == 1
