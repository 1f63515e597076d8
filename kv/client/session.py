"""Sessions as their owner keeps them: sequences, the acknowledged mark, and when to open anew.

Whoever sends writes to a partition (a client, or a router for a client without a
session of its own) owns a session in that partition. Here lives the owner's side of
it, as plain bookkeeping: no I/O, no clock, no futures. The partition's side, the
table of results, is `kv.partition.session`.

The scheme is that of RIFL (Lee et al., SOSP 2015) and of the Raft dissertation,
section 6.3: a partition applies each (session, sequence) once and answers a
repetition with the first result, until the owner says by `acknowledged` that it will
not repeat it. What the owner must keep to:

- one sequence stands for one list of operations; a retry sends the identical list;
- a sequence is ended only when its request was answered, or will not be sent again;
- a sequence whose outcome is unknown to somebody who may ask for it is never acknowledged, or the partition
  would forget the answer: it is set aside, and so is its session, which takes no further requests;
- after SESSION_EXPIRED the operations may move to a new session only if no earlier
  attempt of that sequence had an indefinite end: see `may_move`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REQUESTS_IN_FLIGHT_MAX: Final = 64
"""Sequences of one session that are begun and not ended. The partition keeps at most that many results
for us (plus those whose acknowledgement is still on its way), so this stays far below its
`session_results_max`."""

SEQUENCE_SPAN_MAX: Final = 1024
"""When one unanswered request holds the acknowledged mark so far back, the owner takes another session: the
partition keeps a bounded number of results for each, and would forget first the one that is still asked for."""


@dataclass(frozen=True, slots=True)
class SequencedId:
    """What a request carries so that it may be sent again: the fields of `kv.v1.RequestId`."""

    session: int
    sequence: int
    acknowledged: int


class Session:
    """One open session of one partition: hands out sequences and knows which are still alive."""

    __slots__ = ("_alive", "_last", "_set_aside_min", "id", "requests_in_flight_max")

    def __init__(self, session_id: int, *, requests_in_flight_max: int = REQUESTS_IN_FLIGHT_MAX) -> None:
        """Take over the session that the partition opened under `session_id` (never 0)."""
        if session_id <= 0:
            raise ValueError(f"a session id is positive, not {session_id}: 0 means no session")
        if requests_in_flight_max < 1:
            raise ValueError(f"requests_in_flight_max must be at least 1, not {requests_in_flight_max}")
        self.id = session_id
        self.requests_in_flight_max = requests_in_flight_max
        self._last = 0
        # Sequences begun and not ended. A dict keeps them in the order of their begin, which is
        # ascending, so the first key is always the least.
        self._alive: dict[int, None] = {}
        self._set_aside_min: int | None = None  # the least sequence that is never acknowledged

    @property
    def in_flight(self) -> int:
        """The number of sequences begun and not ended."""
        return len(self._alive)

    @property
    def full(self) -> bool:
        """Whether `begin` must wait for an `end`."""
        return len(self._alive) >= self.requests_in_flight_max

    @property
    def acknowledged(self) -> int:
        """Every sequence up to this one was ended: the partition may forget its result."""
        for least in self._alive:
            return least - 1 if self._set_aside_min is None else min(least, self._set_aside_min) - 1
        return self._last if self._set_aside_min is None else self._set_aside_min - 1

    @property
    def span(self) -> int:
        """How many sequences lie above the acknowledged mark: for so many the partition keeps results."""
        return self._last - self.acknowledged

    def begin(self) -> SequencedId:
        """Return the identity of the next request. Each attempt of that request carries this same value.

        The acknowledged mark in it is the present one; a later attempt may repeat it as it is,
        because a partition never moves its own mark back.
        """
        if self.full:
            raise ValueError(
                f"session {self.id} has {self.in_flight} requests in flight: wait for one to end"
            )
        acknowledged = self.acknowledged
        self._last += 1
        self._alive[self._last] = None
        assert acknowledged < self._last, "a request must never acknowledge itself"
        return SequencedId(self.id, self._last, acknowledged)

    def end(self, sequence: int) -> None:
        """Note that `sequence` was answered or is given up, and is not sent again.

        Once a later request has carried the new mark, a copy of the ended one that is still on
        its way is refused by the partition, not applied.
        """
        if sequence not in self._alive:
            raise ValueError(f"session {self.id}: sequence {sequence} is not in flight")
        del self._alive[sequence]

    def set_aside(self, sequence: int) -> None:
        """Note that `sequence` is not sent again, but that somebody may ask for its outcome: it is never acknowledged.

        The acknowledged mark stays below it for good. So the session must take no new requests: see
        `SessionSlot.set_aside`. Those in flight end in it; the partition forgets it when it expires.
        """
        self.end(sequence)
        known = self._set_aside_min
        self._set_aside_min = sequence if known is None else min(known, sequence)


class SessionSlot:
    """The place for a partition's session: none yet, being opened, or open.

    There is one slot for each partition. Opening needs a round trip through the
    partition's log, so at most one open is under way; whoever needs the session waits.
    """

    __slots__ = ("_opening", "_requests_in_flight_max", "current")

    def __init__(self, *, requests_in_flight_max: int = REQUESTS_IN_FLIGHT_MAX) -> None:
        """Start without a session."""
        self.current: Session | None = None
        self._opening = False
        self._requests_in_flight_max = requests_in_flight_max

    @property
    def opening(self) -> bool:
        """Whether an open is under way."""
        return self._opening

    def start_opening(self) -> bool:
        """Return True if the caller is to send the open now; False if a session is there or under way."""
        if self.current is not None or self._opening:
            return False
        self._opening = True
        return True

    def opened(self, session_id: int) -> Session:
        """Take the session that the open brought and return it."""
        assert self._opening, "a session arrived that nobody asked for"
        self._opening = False
        self.current = Session(session_id, requests_in_flight_max=self._requests_in_flight_max)
        return self.current

    def open_failed(self) -> None:
        """Note that the open ended without a session. Repeating it is harmless: an orphan session expires."""
        assert self._opening, "an open failed that nobody started"
        self._opening = False

    def expired(self, session_id: int) -> None:
        """Drop the session if it is still the current one, so that the next write opens another.

        Requests of the dropped session that are in flight keep their `Session` and end there.
        """
        if self.current is not None and self.current.id == session_id:
            self.current = None

    def set_aside(self, session: Session, sequence: int) -> None:
        """Set `sequence` of `session` aside; if that is still the current one, the next write opens another."""
        session.set_aside(sequence)
        self.expired(session.id)


def may_move(*, earlier_attempt_indefinite: bool) -> bool:
    """Return whether a request refused with SESSION_EXPIRED may be sent again in a new session.

    SESSION_EXPIRED is definite for the attempt that it answers. But if an earlier attempt had an
    indefinite end, that one may have been applied under the old session, and a new session would
    apply it a second time: then the outcome is unknown and the caller must be told so.
    """
    return not earlier_attempt_indefinite
