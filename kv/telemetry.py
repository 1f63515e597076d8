"""How a node tells what it does: structured logs and metrics.

Here live the set-up of structlog and the metrics of one node in a registry of its own, so that
several nodes can run in one process. Nothing here decides anything or knows other parts of `kv`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Literal, Self, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "pretty"]

LATENCY_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""From an in-memory read to the default request timeout and beyond."""


def configure_logging(level: LogLevel, log_format: LogFormat, stream: TextIO) -> None:
    """Send this process's log to `stream`: JSON, one object a line, or for people if it is a terminal.

    The one global effect is `structlog.configure`; calling it again replaces the former set-up.
    """
    pretty = log_format == "pretty" or (log_format == "auto" and stream.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *_renderers(pretty, colors=stream.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,  # or loggers made before a second call would keep the first stream
    )


def _renderers(pretty: bool, *, colors: bool) -> list[structlog.typing.Processor]:
    if pretty:
        return [structlog.dev.ConsoleRenderer(colors=colors)]
    return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one node. Names on the wire begin with `kv_`; seconds and bytes are base units."""

    registry: CollectorRegistry
    requests: Counter
    """Finished requests by `method` and `outcome` (OK or the reason of the error)."""
    request_seconds: Histogram
    """From arrival to reply, by `method`."""
    pending_requests: Gauge
    """Requests accepted and not yet answered."""
    direct_streams: Gauge
    """Pipeline streams whose messages go over a TCP connection beside them."""
    commits: Counter
    """Log entries committed."""
    applied_ops: Counter
    """Operations applied to the state."""
    wal_syncs: Counter
    """Syncs of the write-ahead log."""
    wal_sync_seconds: Histogram
    """Duration of one sync."""
    wal_bytes: Counter
    """Bytes appended to the write-ahead log."""
    leader_groups: Gauge
    """Groups that this node leads."""
    raft_messages: Counter
    """Raft messages by `direction`: in or out."""
    elections: Counter
    """Elections that this node started."""
    snapshots: Counter
    """Snapshots by `direction`: in (installed) or out (sent)."""
    checkpoints: Counter
    """Checkpoints written."""

    @classmethod
    def create(cls) -> Self:
        """Return fresh metrics in a registry of their own."""
        registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="kv", registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(name, text, labels, namespace="kv", registry=registry, buckets=LATENCY_BUCKETS_S)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace="kv", registry=registry)

        return cls(
            registry=registry,
            requests=counter("requests", "Finished requests.", "method", "outcome"),
            request_seconds=histogram("request_seconds", "From arrival to reply.", "method"),
            pending_requests=gauge("pending_requests", "Requests accepted and not yet answered."),
            direct_streams=gauge("direct_streams", "Pipeline streams whose messages take the direct way."),
            commits=counter("commits", "Log entries committed."),
            applied_ops=counter("applied_ops", "Operations applied to the state."),
            wal_syncs=counter("wal_syncs", "Syncs of the write-ahead log."),
            wal_sync_seconds=histogram("wal_sync_seconds", "Duration of one sync of the log."),
            wal_bytes=counter("wal_bytes", "Bytes appended to the write-ahead log."),
            leader_groups=gauge("leader_groups", "Groups that this node leads."),
            raft_messages=counter("raft_messages", "Raft messages.", "direction"),
            elections=counter("elections", "Elections that this node started."),
            snapshots=counter("snapshots", "Snapshots.", "direction"),
            checkpoints=counter("checkpoints", "Checkpoints written."),
        )

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
