"""Lanes and requests: what waits for one partition, and what is under way to it.

A lane holds the calls of one partition and one route; a request is what was joined
from them and sent. Here live their state and how calls are taken; who sends and what
happens after is `kv.client.core`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kv.client.calls import Call, all_bare
from kv.client.columns import Column, column_of, keys_of, write_column
from kv.client.operations import fresh
from kv.client.route import Kind, Route
from kv.client.session import REQUESTS_IN_FLIGHT_MAX, Session
from kv.client.types import WriteLevel
from kv.errors import InvalidArgument, KVError, NotOnAllReplicas
from kv.ids import REQUEST_BYTES_MAX, GroupId
from kv.outcome import OutcomeToken
from kv.v1 import kv_pb2

if TYPE_CHECKING:
    from kv.client.link import Link

HEADROOM_BYTES: Final = 64 * 1024
"""Left in a request for what goes around its operations."""

RATE_SMOOTHING: Final = 1 / 8
"""Weight of the newest answer in a lane's rate."""

PASSED_MAX: Final = 256
"""Calls that wait for a key of the request being made, and that others pass, before it is sent as it is."""

OPS_PER_REQUEST_MAX: Final = 9999
"""An outcome token has so many digits for the place of an operation in its request."""

_AT_QUORUM: Final = kv_pb2.BatchRequest(write_level=kv_pb2.WRITE_LEVEL_QUORUM).SerializeToString()
"""Behind a serialized batch it makes a write at level QUORUM of it: in protobuf the last one wins."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the client joins, holds and waits."""

    ops_per_request_max: int = 1024
    """More operations of one batch wait for the next request."""
    ops_joined_max: int = 512
    """Calls are joined up to so many operations. What still waits then follows in a message of its own (by gRPC, in one with
    whatever is queued): this process makes the next request while the nodes work on this one. Requests of all that waits
    would take turns with them."""
    request_bytes_max: int = REQUEST_BYTES_MAX - HEADROOM_BYTES
    """More bytes wait for the next request."""
    pipeline_ops_min: int = 64
    """While a request is under way, another follows only with at least so many operations: what waits
    longer travels in fewer, larger requests. So many pay for a message and a command of their own."""
    pipeline_bytes_min: int = 1 << 20
    """Or with at least so many bytes: large values would otherwise travel one after the other."""
    lane_requests_max: int = 8
    """Requests under way in one lane: twice as many as a leader has commands under way (`commands_in_flight_max`),
    so that it has the next ones when it has done with these."""
    session_requests_max: int = REQUESTS_IN_FLIGHT_MAX
    """Write requests of one partition that are not ended, those that wait for another attempt included."""
    lane_waiting_ops_max: int = 16_384
    """Operations that wait in one lane; one more is refused with OVERLOADED."""
    lane_waiting_bytes_max: int = 1 << 28
    """Bytes that wait in one lane; one more operation is refused with OVERLOADED, unless it waits alone."""
    attempt_timeout_s: float = 2.0
    """A request without an answer for so long is tried at another node; it doubles with each attempt."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise InvalidArgument(f"{name} must be above 0, not {getattr(self, name)}")
        if self.ops_per_request_max > OPS_PER_REQUEST_MAX:
            raise InvalidArgument(
                f"ops_per_request_max {self.ops_per_request_max} is above {OPS_PER_REQUEST_MAX}"
            )
        if self.request_bytes_max > REQUEST_BYTES_MAX - HEADROOM_BYTES:
            raise InvalidArgument(
                f"request_bytes_max {self.request_bytes_max} is above REQUEST_BYTES_MAX {REQUEST_BYTES_MAX}"
                f" less {HEADROOM_BYTES} for what goes around the operations"
            )


class Lane:
    """The calls of one partition and one route."""

    __slots__ = (
        "_rate",
        "_served_at",
        "avoid",
        "cause",
        "deadline_min",
        "failures",
        "held_until",
        "not_before",
        "on_wire",
        "on_wire_ops",
        "partition",
        "resend",
        "route",
        "scheduled",
        "timer",
        "timer_at",
        "waiting",
        "waiting_bytes",
        "waiting_ops",
        "write",
    )

    def __init__(self, partition: GroupId, route: Route) -> None:
        self.partition = partition
        self.route = route
        self.write = route.write
        """Whether an attempt may change something."""
        self.waiting: deque[Call] = deque()
        self.waiting_ops = self.waiting_bytes = 0
        self.deadline_min = math.inf
        """No waiting call has an earlier deadline (one that left may have had)."""
        self.resend: deque[Request] = deque()
        """Requests that had an indefinite end and wait for their next attempt, unchanged."""
        self.on_wire = self.on_wire_ops = 0
        """Requests whose present attempt has no answer yet, and their operations."""
        self.failures = 0
        """Failed attempts since the last answer."""
        self.not_before = 0.0
        """No attempt starts earlier."""
        self.avoid: str | None = None
        """Where the last attempt failed."""
        self.cause: KVError | None = None
        """How the last attempt failed."""
        self.held_until = math.inf
        """Loop time from which it waits for no answers to what others sent; infinite while it does not wait for any."""
        self._rate = 0.0
        """Operations a second that were answered while others waited, smoothed; 0: not known."""
        self._served_at: float | None = None
        """When the last answer came, if calls waited then: so long had the lane to serve."""
        self.scheduled = False
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = math.inf
        """Loop time for which the timer is set. Not asked of the timer: uvloop gives one that cannot tell if it is due."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits here or is under way."""
        return not (self.waiting or self.resend or self.on_wire or self.scheduled)

    def add(self, call: Call) -> None:
        """Let `call` wait."""
        self.waiting.append(call)
        self.waiting_ops += call.count
        self.waiting_bytes += call.size
        if call.deadline < self.deadline_min:  # noqa: PLR1730  # on the hot path: a call of `min` costs more
            self.deadline_min = call.deadline

    def fills_request(self, limits: Limits) -> bool:
        """Whether so much waits that it need not wait for more."""
        return self.waiting_ops >= limits.pipeline_ops_min or self.waiting_bytes >= limits.pipeline_bytes_min

    def served(self, ops: int, now: float) -> None:
        """Note an answer to `ops` operations; from those that come while others wait the lane learns its rate."""
        if self._served_at is not None and now > self._served_at:
            rate = ops / (now - self._served_at)
            self._rate = rate if self._rate == 0.0 else self._rate + (rate - self._rate) * RATE_SMOOTHING
        self._served_at = now if self.waiting else None

    def wait_s(self) -> float:
        """Return when a call that came now would be answered, in seconds from now, as far as the lane knows.

        What is under way counts too: a node that has more to do than it can keeps most of a queue on its side.
        """
        return (self.waiting_ops + self.on_wire_ops) / self._rate if self._rate else 0.0

    def put_back(self, calls: Iterable[Call]) -> None:
        """Let `calls` wait again, before all others, in their order."""
        alive = [call for call in calls if not call.done]
        self.waiting.extendleft(reversed(alive))
        for call in alive:
            self.waiting_ops += call.count
            self.waiting_bytes += call.size
            self.deadline_min = min(self.deadline_min, call.deadline)

    def take(self, ops_max: int, bytes_max: int) -> list[Call]:
        """Remove and return the first calls that fit into one request: at least one, unless none is alive.

        Writes of one request share a revision, so two calls that write the same key never travel together:
        each caller's revision must name its own write. The later one waits, and so does what writes one of its
        other keys: calls that write the same key keep their order. Calls behind it pass it, or a key that many
        write at once would send a request for each.
        """
        if self.waiting_ops <= ops_max and self.waiting_bytes <= bytes_max:
            alive = _alive(self.waiting)
            if not self.write or _distinct(alive):
                self._empty()
                return alive
        taken: list[Call] = []
        passed: list[Call] = []
        ops = size = 0
        waiting = self.waiting
        written: set[bytes] | None = set() if self.write else None
        while waiting and len(passed) < PASSED_MAX:
            call = waiting[0]
            if not call.done:
                if taken and (ops + call.count > ops_max or size + call.size > bytes_max):
                    break
                if written is not None:
                    keys = call.keys
                    if not written.isdisjoint(keys):
                        written.update(keys)
                        passed.append(waiting.popleft())
                        continue
                    written.update(keys)
                taken.append(call)
                ops += call.count
                size += call.size
            waiting.popleft()
            self.waiting_ops -= call.count
            self.waiting_bytes -= call.size
        waiting.extendleft(reversed(passed))
        return taken

    def take_all(self) -> list[Call]:
        """Remove and return every waiting call."""
        calls = list(self.waiting)
        self._empty()
        return calls

    def _empty(self) -> None:
        """Nothing waits any more."""
        self.waiting.clear()
        self.waiting_ops = self.waiting_bytes = 0
        self.deadline_min = math.inf

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


def _alive(calls: Iterable[Call]) -> list[Call]:
    """Return those for which somebody waits."""
    if all_bare(calls):
        return [call for call in calls if not call.future.done()]  # as below, without a call of ours for each
    return [call for call in calls if not call.done]


def _distinct(calls: Sequence[Call]) -> bool:
    """Whether no key is named twice."""
    keys = keys_of(calls)
    return len(set(keys)) == len(keys)


class Request:
    """Calls that travel together, as the bytes that every attempt sends."""

    __slots__ = (
        "after_index",
        "attempts",
        "attempts_made",
        "batch",
        "calls",
        "column",
        "count",
        "deadlines_max",
        "deadlines_min",
        "indefinite",
        "lane",
        "not_on_all",
        "on_wire",
        "sent_at",
        "sequence",
        "session",
        "silent_after",
        "timer",
        "token_given",
    )

    def __init__(
        self,
        lane: Lane,
        calls: list[Call],
        session: Session | None,
        *,
        after_index: int = 0,
        all_timeout_ms: int = 0,
    ) -> None:
        """Build the request; with a session it takes the next sequence of it.

        Args:
            lane: where it comes from.
            calls: what it carries.
            session: of a write.
            after_index: of a SESSION read: the answer is not older.
            all_timeout_ms: of a write at level ALL: how long the leader waits for every replica.
        """
        self.lane = lane
        self.calls = calls
        self.session = session
        self.sequence = 0
        self.after_index = after_index
        """Of a SESSION read: an answer from before this index is none."""
        self.count = sum([call.count for call in calls])
        self.column: Column | None = column_of(calls, self.count)
        """In which column it travels; None: as so many operations."""
        self.batch = self._build(all_timeout_ms)
        deadlines = [call.deadline for call in calls]
        self.deadlines_min = min(deadlines)
        """The earliest deadline of its calls, waited for or not."""
        self.deadlines_max = max(deadlines)
        """The latest."""
        self.indefinite = False
        """Whether an attempt may have been applied. From then on it is sent again as it is, or not at all."""
        self.token_given = False
        """Whether somebody was told that its outcome is unknown, and may ask for it: see `Session.set_aside`."""
        self.not_on_all: NotOnAllReplicas | None = None
        """It was applied, but is not known to be on every replica; what is asked for now are its results."""
        self.attempts: list[tuple[Link, int]] = []
        """Where each attempt that may still be answered is registered; the last is the present one."""
        self.attempts_made = 0
        self.on_wire = False
        self.sent_at = 0.0
        """Loop time at which the present attempt was sent."""
        self.silent_after = math.inf
        """Loop time at which the present attempt counts as lost."""
        self.timer: asyncio.TimerHandle | None = None

    def _build(self, all_timeout_ms: int) -> bytes:
        batch = kv_pb2.BatchRequest()
        if self.column is not None:
            write_column(self.column, self.calls, batch)
        else:
            operations = batch.operations
            for call in self.calls:
                call.add_to(operations)
        route = self.lane.route
        if route.kind is Kind.READ:
            batch.level = route.wire_level
        if not route.plain:
            self._add_options(batch, all_timeout_ms)
        if self.session is not None:
            identity = self.session.begin()
            self.sequence = identity.sequence
            request_id = batch.request_id
            request_id.session = identity.session
            request_id.sequence = identity.sequence
            request_id.acknowledged = identity.acknowledged
        return batch.SerializeToString()

    def _add_options(self, batch: kv_pb2.BatchRequest, all_timeout_ms: int) -> None:
        route = self.lane.route
        if route.options is not None:
            batch.read.CopyFrom(route.options)
        if self.after_index:
            batch.read.after.add(partition=self.lane.partition, index=self.after_index)
        if route.write_level is WriteLevel.ALL:
            batch.write_level = kv_pb2.WRITE_LEVEL_ALL
            batch.all_timeout_ms = all_timeout_ms

    def ask_for_results(self, error: NotOnAllReplicas) -> None:
        """Go on without the promise of level ALL: it was applied, and its results are remembered.

        The error speaks for the whole request. Which of its operations failed by themselves, say by a condition,
        only the results tell.
        """
        assert self.not_on_all is None, "a write at level QUORUM waits for no further replica"
        self.not_on_all = error
        self.batch += _AT_QUORUM

    def token(self, position: int, count: int) -> OutcomeToken:
        """Return the name of `count` of its operations, for who asks for their outcome later."""
        assert self.session is not None, "only a write with a session can be asked for"
        return OutcomeToken(self.lane.partition, self.session.id, self.sequence, position, count)

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

    def fail(self, error: KVError, *, until: float = math.inf) -> None:
        """Fail the calls whose deadline is not after `until`, each with its own instance of `error`.

        Where nobody knows whether they were applied, each gets the token by which to ask.
        """
        unknown = self.session is not None and not error.definite and not error.applied
        position = 0
        for call in self.calls:
            if not call.done and call.deadline <= until:
                self.token_given |= unknown
                call.fail(fresh(error), self.token(position, call.count) if unknown else None)
            position += call.count
