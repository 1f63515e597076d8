"""The router's limits: how much, how many, how long.

Here lives `RouterConfig` only, validated as a whole. Times are in milliseconds or seconds as
their names say; what happens at each bound is said beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kv.config import KIB, MIB, NodeConfig
from kv.errors import InvalidArgument
from kv.ids import REQUEST_BYTES_MAX

REQUEST_TIMEOUT_MAX_MS: Final = 60_000
"""The default bound; an operator whose default timeout is longer raises it with that."""


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """What the operator may change about the router. Raises `InvalidArgument` if two fields disagree."""

    request_timeout_ms: int = 5_000
    """For a request that brings neither a timeout nor a deadline."""
    request_timeout_max_ms: int = REQUEST_TIMEOUT_MAX_MS
    """A longer timeout is cut to this."""
    attempt_timeout_ms: int = 1_500
    """A request that may be repeated is sent elsewhere if its attempt has no answer for so long; doubles with
    each such repetition, so that a slow partition is not buried under copies."""
    deadline_tick_ms: int = 10
    """Deadlines fire up to this late: requests that end in the same tick share one timer."""

    backoff_ms: int = 10
    """The first pause after every replica has refused; doubles with each pause."""
    backoff_max_ms: int = 200
    """A pause is never longer: about the time in which an election is noticed."""

    requests_in_flight_max: int = 16_384
    """Requests inside this router; one more is refused with OVERLOADED."""
    session_requests_in_flight_max: int = 512
    """Writes in flight in the router's own session of a partition; more wait for one to end."""
    session_waiting_max: int = 4_096
    """Writes that wait for the router's own session of a partition; one more is refused with OVERLOADED."""

    forward_in_flight_max: int = 4_096
    """Requests between two nodes, one way; one more is refused with OVERLOADED, by the sender or the receiver."""
    forward_waiting_bytes_max: int = 64 * MIB
    """Bytes of requests that wait for one node's stream to take them; more is refused with OVERLOADED."""
    forward_message_bytes_max: int = 1 * MIB
    """Requests or replies are joined up to this; a larger one travels alone."""

    streams_max: int = 1_000
    """Pipeline streams at this node; one more is refused with OVERLOADED."""
    pipeline_in_flight_max: int = 1_024
    """Batches in flight on one stream; while it has so many, none is started and the stream is not read."""
    idle_stream_s: float = 300.0
    """A Pipeline stream on which nothing arrives and nothing is in flight for so long is closed."""

    scans_max: int = 64
    """Scans at this node, each with up to two pages per partition in memory; one more is refused with OVERLOADED."""
    scan_items_max: int = 16_384
    """Items that a scan asks of all partitions together in one round: a partition's page is its share."""
    scan_page_items: int = 1_000
    """Items in the page of one partition, at most."""
    scan_fetches_max: int = 64
    """Pages that one scan asks for at the same time."""
    scan_response_bytes_max: int = 1 * MIB
    """One ScanResponse; a single larger item travels alone."""

    health_interval_ms: int = 500
    """How often the health of each partition is published."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise InvalidArgument(f"{name} must be above 0, not {getattr(self, name)}")
        for low, high in _ORDERED:
            if getattr(self, low) > getattr(self, high):
                raise InvalidArgument(f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}")

    @classmethod
    def of(cls, config: NodeConfig) -> RouterConfig:
        """Return the router's part of a node's configuration."""
        return cls(
            request_timeout_ms=config.request_timeout_ms,
            request_timeout_max_ms=max(REQUEST_TIMEOUT_MAX_MS, config.request_timeout_ms),
            forward_in_flight_max=config.forward_in_flight_max,
            streams_max=config.streams_max,
            idle_stream_s=float(config.idle_stream_s),
            scan_page_items=config.scan_page_items,
        )


_ORDERED: Final = (
    ("request_timeout_ms", "request_timeout_max_ms"),
    ("backoff_ms", "backoff_max_ms"),
    ("scan_fetches_max", "requests_in_flight_max"),
)

MESSAGE_HEADROOM_BYTES: Final = 64 * KIB
"""What the message around a batch of the greatest size may add to it."""

PUBLIC_MESSAGE_BYTES_MAX: Final = REQUEST_BYTES_MAX + MESSAGE_HEADROOM_BYTES
"""The largest message that a node receives from a client."""

PEER_MESSAGE_BYTES_MAX: Final = 4 * REQUEST_BYTES_MAX
"""The largest message that a node receives from another: joined batches, or one reply of the greatest size."""
