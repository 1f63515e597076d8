"""The sessions of a client, one for each partition that it writes to: which is given out, and when one is opened. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kv.client.lane import Lane
from kv.client.session import SEQUENCE_SPAN_MAX, Session, SessionSlot
from kv.errors import KVError
from kv.ids import GroupId

OpenSession: TypeAlias = Callable[[Lane, Callable[[int | KVError], None]], None]
"""Asks the lane's partition for a session; the callback takes its id, or the failure."""


class Sessions:
    """One slot for each partition."""

    def __init__(self, requests_in_flight_max: int, open_session: OpenSession) -> None:
        """`requests_in_flight_max`: of one session."""
        self._requests_in_flight_max = requests_in_flight_max
        self._open_session = open_session
        self._slots: dict[GroupId, SessionSlot] = {}

    def of(self, lane: Lane) -> Session | None:
        """Return the partition's session if it can take a request now; else see to it that one is opened."""
        slot = self._slots.get(lane.partition)
        if slot is None:
            slot = SessionSlot(requests_in_flight_max=self._requests_in_flight_max)
            self._slots[lane.partition] = slot
        if slot.current is not None and slot.current.span >= SEQUENCE_SPAN_MAX:
            slot.expired(slot.current.id)  # its requests in flight keep it; it is only not given out any more
        if slot.current is not None:
            return None if slot.current.full else slot.current
        if slot.start_opening():
            self._open(lane, slot)
        return None

    def expired(self, partition: GroupId, session: Session) -> None:
        """Note that the partition does not know the session any more."""
        self._slots[partition].expired(session.id)

    def set_aside(self, partition: GroupId, session: Session, sequence: int) -> None:
        """Note that somebody may ask for the outcome of a request that is not sent again."""
        self._slots[partition].set_aside(session, sequence)

    def _open(self, lane: Lane, slot: SessionSlot) -> None:
        def end(outcome: int | KVError) -> None:
            if isinstance(outcome, int):
                slot.opened(outcome)
            else:
                slot.open_failed()

        self._open_session(lane, end)
