"""The router's own sessions: they let it repeat writes that came without one.

Here lives `SessionDesks`: for each partition one session of this router and the writes that wait
for it. The bookkeeping of one session is `kv.client.session`, which a client uses in the same way;
attempts are the business of `kv.router.dispatch`, which hands its calls in and gets them back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from kv.client.session import SequencedId, Session, SessionSlot
from kv.errors import Internal, KVError, Overloaded, Unavailable, from_proto
from kv.ids import GroupId
from kv.router.api import Reply
from kv.router.routing import Traits
from kv.v1 import kv_pb2

OPEN_SESSION: Final = kv_pb2.BatchRequest(
    operations=[kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation())]
).SerializeToString()
"""The batch that opens a session."""

OPENS_SESSION: Final = Traits(is_read=False, settles=True)
"""What kind of request `OPEN_SESSION` is."""

SEQUENCE_SPAN_MAX: Final = 1024
"""When one slow write holds the acknowledged mark so far back, the next writes get another session: the
partition keeps a bounded number of results for each, and must not forget that of the slow one."""


class Writer(Protocol):
    """A write that needs a session: what a desk keeps in it."""

    session: Session | None
    sequence: int


W = TypeVar("W", bound=Writer)


class _Desk(Generic[W]):
    __slots__ = ("draining", "partition", "slot", "waiting")

    def __init__(self, partition: GroupId, requests_in_flight_max: int) -> None:
        self.partition = partition
        self.slot = SessionSlot(requests_in_flight_max=requests_in_flight_max)
        self.waiting: dict[W, None] = {}
        self.draining = False


class SessionDesks(Generic[W]):
    """Gives each write a sequence of this router's session in its partition.

    `begin(write, identity)` is called when the write may go, `refuse(write, error)` if it never can
    (the error is definite: it was not sent), `open_session(partition, reply)` to open a session. All of
    them may end the write before they return.
    """

    def __init__(
        self,
        *,
        requests_in_flight_max: int,
        waiting_max: int,
        begin: Callable[[W, SequencedId], None],
        refuse: Callable[[W, KVError], None],
        open_session: Callable[[GroupId, Reply], None],
    ) -> None:
        self._requests_in_flight_max = requests_in_flight_max
        self._waiting_max = waiting_max
        self._begin = begin
        self._refuse = refuse
        self._open_session = open_session
        self._desks: dict[GroupId, _Desk[W]] = {}

    def attach(self, partition: GroupId, write: W) -> None:
        """Begin the write now, or as soon as there is a session with room."""
        desk = self._desk(partition)
        if len(desk.waiting) >= self._waiting_max:
            limit = self._waiting_max
            message = f"{limit} writes wait for this router's session in partition {partition}"
            self._refuse(write, Overloaded(message, metadata={"session_waiting_max": limit}))
            return
        desk.waiting[write] = None
        self._drain(desk)

    def release(self, partition: GroupId, write: W) -> None:
        """End the write's sequence: it was answered, or will not be sent again. Harmless without one."""
        desk = self._desks.get(partition)
        if desk is not None:
            desk.waiting.pop(write, None)
        if write.session is None:
            return
        write.session.end(write.sequence)
        write.session = None
        if desk is not None:
            self._drain(desk)

    def set_aside(self, partition: GroupId, write: W) -> None:
        """End a write whose outcome is unknown: its sequence is never acknowledged.

        Somebody may ask what became of it, and the partition forgets what is acknowledged. So its session is
        not the current one any more: what is in flight there ends there, and the next write takes another.
        """
        if write.session is None:
            return
        desk = self._desk(partition)
        desk.slot.set_aside(write.session, write.sequence)
        write.session = None
        self._drain(desk)

    def expired(self, partition: GroupId, session: Session) -> None:
        """Note that the partition does not know the session any more."""
        self._desk(partition).slot.expired(session.id)

    def _desk(self, partition: GroupId) -> _Desk[W]:
        desk = self._desks.get(partition)
        if desk is None:
            desk = self._desks[partition] = _Desk(partition, self._requests_in_flight_max)
        return desk

    def _drain(self, desk: _Desk[W]) -> None:
        """Start what waits, as far as the session allows.

        A start may end at once and come back here: the flag makes a loop of that recursion.
        """
        if desk.draining:
            return
        desk.draining = True
        try:
            while desk.waiting and (session := desk.slot.current) is not None and not session.full:
                write = next(iter(desk.waiting))
                del desk.waiting[write]
                identity = session.begin()
                write.session, write.sequence = session, identity.sequence
                if identity.sequence - identity.acknowledged >= SEQUENCE_SPAN_MAX:
                    desk.slot.expired(session.id)
                self._begin(write, identity)
        finally:
            desk.draining = False
        if desk.waiting and desk.slot.start_opening():
            self._open_session(desk.partition, lambda outcome: self._opened(desk, outcome))

    def _opened(self, desk: _Desk[W], outcome: bytes | KVError) -> None:
        session = outcome if isinstance(outcome, KVError) else _session_id(outcome)
        if isinstance(session, KVError):
            desk.slot.open_failed()
            waiting, desk.waiting = list(desk.waiting), {}
            for write in waiting:
                self._refuse(write, _without_session(session))
        else:
            desk.slot.opened(session)
            self._drain(desk)


def _session_id(raw: bytes) -> int | KVError:
    """Return the session of a response to `OPEN_SESSION`, or the error that it carries."""
    results = kv_pb2.BatchResponse.FromString(raw).results
    if len(results) == 1 and results[0].WhichOneof("result") == "open_session":
        return results[0].open_session.session
    if len(results) == 1 and results[0].WhichOneof("result") == "error":
        return from_proto(results[0].error)
    return Internal("a partition answered an open of a session with something else")


def _without_session(error: KVError) -> KVError:
    """Return the error for a write that was never sent, because no session could be opened for it."""
    message = f"no session could be opened for the write: {error.message}"
    if error.definite:
        return type(error)(message, metadata=error.metadata, definite=True)
    return Unavailable(message, metadata=error.metadata)
