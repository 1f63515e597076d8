"""Requests: calls of one lane that travel together, and what every attempt to send them shares.

Here live a request's bytes and its state; when it is sent, and what follows an answer or a
failure, is `kv.client.core`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kv.client.calls import Call
from kv.client.columns import Column, are_large, column_of, large_puts, write_column
from kv.client.lane import Lane
from kv.client.operations import fresh
from kv.client.route import Kind
from kv.client.session import Session
from kv.client.session_token import Seen
from kv.client.types import ReadLevel, WriteLevel
from kv.errors import KVError, NotOnAllReplicas
from kv.outcome import OutcomeToken
from kv.v1 import kv_pb2

if TYPE_CHECKING:
    from kv.client.link import Link

TIMEOUT_MS_MAX: Final = 2**32 - 1
"""What the wire's uint32 holds."""

SERVER_SHARE: Final = 0.75
"""The part of an attempt's time that the node may use. The rest is for its answer to arrive before we count
the attempt as lost: a node that gives up itself can often say that nothing was applied, silence never can."""

ALL_SHARE: Final = 0.5
"""The part of an attempt's time that the leader may wait for the last replica of a write at level ALL: less than
`SERVER_SHARE`, so that its answer is that the write stands, and not that nobody knows."""

_AT_QUORUM: Final = kv_pb2.BatchRequest(write_level=kv_pb2.WRITE_LEVEL_QUORUM).SerializeToString()
"""Behind a serialized batch it makes a write at level QUORUM of it: in protobuf the last one wins."""


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
        large: Sequence[bytes] = ()
        if self.column is Column.PUTS and are_large(self.calls, self.count):
            large = large_puts(self.calls)
        elif self.column is not None:
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
        raw = batch.SerializeToString()
        return b"".join((*large, raw)) if large else raw

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


def request_of(
    lane: Lane,
    calls: list[Call],
    session: Session | None,
    *,
    seen: Seen,
    attempt_timeout_s: float,
    now: float,
) -> Request:
    """Build the request that carries `calls`, with what their route asks for beside the operations."""
    route = lane.route
    if route.plain:
        return Request(lane, calls, session)
    after_index = all_timeout_ms = 0
    if route.level.kind is ReadLevel.SESSION:
        after_index = seen.indexes.get(lane.partition, 0)
    if route.write_level is WriteLevel.ALL:
        seconds = min(attempt_timeout_s, max(call.deadline for call in calls) - now)
        all_timeout_ms = max(1, min(int(seconds * ALL_SHARE * 1000), TIMEOUT_MS_MAX))
    return Request(lane, calls, session, after_index=after_index, all_timeout_ms=all_timeout_ms)
