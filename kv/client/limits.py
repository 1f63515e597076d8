"""The limits of a client: how much it joins, holds and waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kv.client.session import REQUESTS_IN_FLIGHT_MAX
from kv.errors import InvalidArgument
from kv.ids import REQUEST_BYTES_MAX

HEADROOM_BYTES: Final = 64 * 1024
"""Left in a request for what goes around its operations."""

OPS_PER_REQUEST_MAX: Final = 9999
"""An outcome token has so many digits for the place of an operation in its request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the client joins, holds and waits."""

    ops_per_request_max: int = 1024
    """More operations of one batch wait for the next request."""
    ops_joined_max: int = 512
    """Calls are joined up to so many operations, and up to half of those without an answer, if that is a request's worth
    (`pipeline_ops_min`). What still waits then follows in a message of its own (by gRPC, in one with whatever is queued): this
    process deals with the answers to one half, and makes the next request of it, while the nodes work on the other.
    Requests of all that waits would take turns with them."""
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
    lane_requests_min: int = 2
    """So many may be under way however long they take: a node then has the next one when it has done with one."""
    lane_on_wire_s: float = 0.5
    """Beyond those none leaves while the nodes will be busy for longer with what is under way: a queue belongs into the
    process that can still say no to it."""
    session_requests_max: int = REQUESTS_IN_FLIGHT_MAX
    """Write requests of one partition that are not ended, those that wait for another attempt included."""
    lane_waiting_ops_max: int = 16_384
    """Operations that wait in one lane; one more is refused with OVERLOADED."""
    lane_waiting_bytes_max: int = 1 << 28
    """Bytes that wait in one lane; one more operation is refused with OVERLOADED, unless it waits alone."""
    burst_wait_share: float = 0.5
    """A call that would probably spend more than this part of its time in a lane is refused with OVERLOADED. What is left is
    for its answer, or for a leader that fails meanwhile."""
    standing_wait_share: float = 0.2
    """The same where many have waited for `standing_s` and the lane always had something to do. A queue takes up a burst; one
    that does not go away only makes everybody late (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 2012)."""
    standing_s: float = 1.0
    """So long may many wait in a lane before its queue is one that stands."""
    attempt_timeout_s: float = 2.0
    """A request without an answer for so long is tried at another node; it doubles with each attempt."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise InvalidArgument(f"{name} must be above 0, not {getattr(self, name)}")
        if not self.standing_wait_share <= self.burst_wait_share <= 1.0:
            raise InvalidArgument(
                f"standing_wait_share {self.standing_wait_share} and burst_wait_share {self.burst_wait_share}"
                " must rise, up to 1"
            )
        if self.ops_per_request_max > OPS_PER_REQUEST_MAX:
            raise InvalidArgument(
                f"ops_per_request_max {self.ops_per_request_max} is above {OPS_PER_REQUEST_MAX}"
            )
        if self.request_bytes_max > REQUEST_BYTES_MAX - HEADROOM_BYTES:
            raise InvalidArgument(
                f"request_bytes_max {self.request_bytes_max} is above REQUEST_BYTES_MAX {REQUEST_BYTES_MAX}"
                f" less {HEADROOM_BYTES} for what goes around the operations"
            )
