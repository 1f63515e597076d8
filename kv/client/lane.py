"""Lanes and requests: what waits for one partition, and what is under way to it.

A lane holds the calls of one partition and one kind; a request is what was joined
from them and sent. Here live their state and how calls are taken; who sends and what
happens after is `kv.client.core`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from kv.client.calls import Call
from kv.client.session import REQUESTS_IN_FLIGHT_MAX, Session
from kv.errors import InvalidArgument, KVError
from kv.ids import REQUEST_BYTES_MAX, GroupId
from kv.v1 import kv_pb2

if TYPE_CHECKING:
    from kv.client.link import Link

HEADROOM_BYTES: Final = 64 * 1024
"""Left in a request for what goes around its operations."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the client joins, holds and waits."""

    ops_per_request_max: int = 1024
    """More operations wait for the next request."""
    request_bytes_max: int = REQUEST_BYTES_MAX - HEADROOM_BYTES
    """More bytes wait for the next request."""
    pipeline_ops_min: int = 256
    """While a request is under way, another follows only with at least so many operations: what waits
    longer travels in fewer, larger requests."""
    lane_requests_max: int = 4
    """Requests under way in one lane."""
    session_requests_max: int = REQUESTS_IN_FLIGHT_MAX
    """Write requests of one partition that are not ended, those that wait for another attempt included."""
    lane_waiting_ops_max: int = 16_384
    """Operations that wait in one lane; one more is refused with OVERLOADED."""
    attempt_timeout_s: float = 2.0
    """A request without an answer for so long is tried at another node; it doubles with each attempt."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise InvalidArgument(f"{name} must be above 0, not {getattr(self, name)}")
        if self.request_bytes_max > REQUEST_BYTES_MAX - HEADROOM_BYTES:
            raise InvalidArgument(
                f"request_bytes_max {self.request_bytes_max} is above REQUEST_BYTES_MAX {REQUEST_BYTES_MAX}"
                f" less {HEADROOM_BYTES} for what goes around the operations"
            )


class Kind(IntEnum):
    """What may travel together; the numbers index tuples on the hot path, where hashing an enum would cost."""

    WRITE = 0
    """Anything that goes through the partition's log; carries a session and a sequence."""
    READ = 1
    """Linearizable reads only."""
    STALE = 2
    """Stale reads only: any replica serves them."""
    OPEN = 3
    """Opens a session, alone in its request; repeating it leaves an orphan that expires."""


class Lane:
    """The calls of one partition and one kind."""

    __slots__ = (
        "avoid",
        "cause",
        "deadline_min",
        "failures",
        "kind",
        "not_before",
        "on_wire",
        "partition",
        "resend",
        "scheduled",
        "timer",
        "waiting",
        "waiting_ops",
    )

    def __init__(self, partition: GroupId, kind: Kind) -> None:
        self.partition = partition
        self.kind = kind
        self.waiting: deque[Call] = deque()
        self.waiting_ops = 0
        self.deadline_min = math.inf
        """No waiting call has an earlier deadline (one that left may have had)."""
        self.resend: deque[Request] = deque()
        """Requests that had an indefinite end and wait for their next attempt, unchanged."""
        self.on_wire = 0
        """Requests whose present attempt has no answer yet."""
        self.failures = 0
        """Failed attempts since the last answer."""
        self.not_before = 0.0
        """No attempt starts earlier."""
        self.avoid: str | None = None
        """Where the last attempt failed."""
        self.cause: KVError | None = None
        """How the last attempt failed."""
        self.scheduled = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def write(self) -> bool:
        """Whether an attempt may change something."""
        return self.kind is Kind.WRITE

    def add(self, call: Call) -> None:
        """Let `call` wait."""
        self.waiting.append(call)
        self.waiting_ops += call.count
        self.deadline_min = min(self.deadline_min, call.deadline)

    def put_back(self, calls: Iterable[Call]) -> None:
        """Let `calls` wait again, before all others, in their order."""
        alive = [call for call in calls if not call.done]
        self.waiting.extendleft(reversed(alive))
        for call in alive:
            self.waiting_ops += call.count
            self.deadline_min = min(self.deadline_min, call.deadline)

    def take(self, ops_max: int, bytes_max: int) -> list[Call]:
        """Remove and return the first calls that fit into one request: at least one, unless none is alive.

        Writes of one request share a revision, so two calls that write the same key never travel together:
        each caller's revision must name its own write.
        """
        taken: list[Call] = []
        ops = size = 0
        waiting = self.waiting
        written: set[bytes] | None = set() if self.write else None
        while waiting:
            call = waiting[0]
            if not call.done:
                if taken and (ops + call.count > ops_max or size + call.size > bytes_max):
                    break
                if written is not None:
                    if taken and not written.isdisjoint(call.keys):
                        break
                    written.update(call.keys)
                taken.append(call)
                ops += call.count
                size += call.size
            waiting.popleft()
            self.waiting_ops -= call.count
        return taken

    def take_all(self) -> list[Call]:
        """Remove and return every waiting call."""
        calls = list(self.waiting)
        self.waiting.clear()
        self.waiting_ops = 0
        self.deadline_min = math.inf
        return calls

    def take_expired(self, now: float) -> list[Call]:
        """Remove those that are done and return those whose deadline has passed."""
        if self.deadline_min > now:
            return []
        expired: list[Call] = []
        alive: list[Call] = []
        for call in self.take_all():
            if not call.done:
                (expired if call.deadline <= now else alive).append(call)
        self.put_back(alive)
        return expired


class Request:
    """Calls that travel together, as the bytes that every attempt sends."""

    __slots__ = (
        "attempts",
        "attempts_made",
        "batch",
        "calls",
        "count",
        "indefinite",
        "lane",
        "on_wire",
        "sequence",
        "session",
        "silent_after",
        "timer",
    )

    def __init__(self, lane: Lane, calls: list[Call], session: Session | None) -> None:
        """Build the request; with a session it takes the next sequence of it."""
        self.lane = lane
        self.calls = calls
        self.session = session
        self.sequence = 0
        self.batch = self._build()
        self.count = sum(call.count for call in calls)
        self.indefinite = False
        """Whether an attempt may have been applied. From then on it is sent again as it is, or not at all."""
        self.attempts: list[tuple[Link, int]] = []
        """Where each attempt that may still be answered is registered; the last is the present one."""
        self.attempts_made = 0
        self.on_wire = False
        self.silent_after = math.inf
        """Loop time at which the present attempt counts as lost."""
        self.timer: asyncio.TimerHandle | None = None

    def _build(self) -> bytes:
        batch = kv_pb2.BatchRequest()
        operations = batch.operations
        for call in self.calls:
            call.add_to(operations)
        if self.lane.kind is Kind.STALE:
            batch.level = kv_pb2.READ_LEVEL_STALE
        elif self.lane.kind is Kind.READ:
            batch.level = kv_pb2.READ_LEVEL_LINEARIZABLE
        if self.session is not None:
            identity = self.session.begin()
            self.sequence = identity.sequence
            request_id = batch.request_id
            request_id.session = identity.session
            request_id.sequence = identity.sequence
            request_id.acknowledged = identity.acknowledged
        return batch.SerializeToString()

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for an answer."""
        return not all(call.done for call in self.calls)

    def deadline_min(self) -> float:
        """Return the earliest deadline of those who wait, or infinity."""
        return min((call.deadline for call in self.calls if not call.done), default=math.inf)

    def deadline_max(self) -> float:
        """Return the latest deadline of those who wait, or 0."""
        return max((call.deadline for call in self.calls if not call.done), default=0.0)
