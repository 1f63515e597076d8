"""Whether a call may wait in a lane: whether there is room for it, and time. Pure."""

from __future__ import annotations

from kv.client.calls import Call
from kv.client.lane import Lane
from kv.client.limits import Limits
from kv.errors import Overloaded


class Admission:
    """Refuses what a lane has no room for, and what would spend its time waiting there."""

    __slots__ = ("_limits", "crowd_bytes")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.crowd_bytes = limits.lane_waiting_bytes_max
        """A lane has room while no more than this waits, and no more than its `crowd_ops`: `check` is for calls beyond them."""

    def check(self, lane: Lane, call: Call, now: float) -> None:
        """Refuse a call for which the lane, in which others wait, has no room or no time. Raises `Overloaded`, definite."""
        limits = self._limits
        if lane.waiting_ops + call.count > limits.lane_waiting_ops_max:
            raise Overloaded(
                f"{lane.waiting_ops} operations of this client wait for partition {lane.partition} already",
                metadata={"lane_waiting_ops_max": limits.lane_waiting_ops_max},
            )
        if lane.waiting_bytes + call.size > limits.lane_waiting_bytes_max:
            raise Overloaded(
                f"{lane.waiting_bytes} bytes of this client wait for partition {lane.partition} already",
                metadata={"lane_waiting_bytes_max": limits.lane_waiting_bytes_max},
            )
        if lane.waiting_ops + lane.on_wire_ops + call.count > lane.crowd_ops:
            self._shed(lane, call, now)

    def _shed(self, lane: Lane, call: Call, now: float) -> None:
        """Refuse a call that would spend its time waiting: at once, instead of when that time is up."""
        limits = self._limits
        lane.crowded_at = min(lane.crowded_at, now)
        stands = now - lane.crowded_at >= limits.standing_s
        share = limits.standing_wait_share if stands else limits.burst_wait_share
        wait_s = lane.wait_s()
        if wait_s <= (call.deadline - now) * share:
            return
        raise Overloaded(
            f"{lane.waiting_ops} operations of this client wait for partition {lane.partition}, which would"
            f" take about {wait_s:.1f} s",
            metadata={"wait_ms": int(wait_s * 1000), "waiting_ops": lane.waiting_ops},
        )
