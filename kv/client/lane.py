"""Lanes: what waits for one partition.

A lane holds the calls of one partition and one route; what is joined from them and sent is a
`kv.client.request`. Here live a lane's state and how calls are taken; who sends and what
happens after is `kv.client.core`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from kv.client.calls import Call, all_bare
from kv.client.columns import keys_of
from kv.client.limits import Limits
from kv.client.route import Route
from kv.errors import KVError
from kv.ids import GroupId

if TYPE_CHECKING:
    from kv.client.request import Request

RATE_SMOOTHING: Final = 1 / 16
"""Weight of the newest answer in a lane's rate: twice as many as come in a bunch (`lane_requests_max`) count."""

CROWD_OPS_MIN: Final = 64
CROWD_OPS_MAX: Final = 2048
"""Bounds of how many may wait and be under way before somebody looks whether there is room and time for one more. A lane that
has less than a request's worth refuses nobody."""
CROWD_S: Final = 0.05
"""Between those bounds: what the lane serves in this time. A look at each call would cost as much as a tenth of a put."""

PASSED_MAX: Final = 256
"""Calls that wait for a key of the request being made, and that others pass, before it is sent as it is."""


class Lane:
    """The calls of one partition and one route."""

    __slots__ = (
        "_crowd_ops_max",
        "_interval_s",
        "_ops",
        "_served_at",
        "avoid",
        "cause",
        "crowd_ops",
        "crowded_at",
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

    def __init__(self, partition: GroupId, route: Route, crowd_ops_max: int = CROWD_OPS_MAX) -> None:
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
        self.crowd_ops = self._crowd_ops_max = min(crowd_ops_max, CROWD_OPS_MAX)
        """One more than so many, those under way included, is looked at: see `kv.client.admission`."""
        self.crowded_at = math.inf
        """When many were first seen to wait, since the lane had nothing to do; infinite while none were."""
        self.held_until = math.inf
        """Loop time from which it waits for no answers to what others sent; infinite while it does not wait for any."""
        self._ops = self._interval_s = 0.0
        """Operations of an answer that came while others waited, and the time since the one before, each smoothed: answers
        come in bunches, so that the mean of their quotients would be far above the rate. 0: not known."""
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
        if self._served_at is not None:
            interval_s = now - self._served_at
            weight = RATE_SMOOTHING if self._ops else 1.0
            self._ops += (ops - self._ops) * weight
            self._interval_s += (interval_s - self._interval_s) * weight
            crowd_s = max(self._interval_s, 1e-6)
            crowd_ops = max(int(self._ops / crowd_s * CROWD_S), CROWD_OPS_MIN)
            self.crowd_ops = min(crowd_ops, self._crowd_ops_max)
        self._served_at = now if self.waiting else None

    def wait_s(self) -> float:
        """Return when a call that came now would be answered, in seconds from now, as far as the lane knows.

        What is under way counts too: a node that has more to do than it can keeps most of a queue on its side.
        """
        return (self.waiting_ops + self.on_wire_ops) * self._interval_s / self._ops if self._ops else 0.0

    def on_wire_s(self) -> float:
        """Return when what is under way will have been answered, in seconds from now, as far as the lane knows."""
        return self.on_wire_ops * self._interval_s / self._ops if self._ops else 0.0

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
