"""Which part of the configuration each pure piece of the partition gets.

Here live the translations, and nothing is decided: the pieces know their limits, not the configuration.
"""

from __future__ import annotations

from kv.config import PartitionConfig
from kv.partition.policy import CheckpointLimits
from kv.partition.read import PageLimits
from kv.partition.scan_snapshots import SnapshotLimits
from kv.partition.session import SessionLimits


def session_limits(config: PartitionConfig) -> SessionLimits:
    """Return the bounds of the session table. They must be equal on all replicas of a partition."""
    return SessionLimits(
        sessions_max=config.sessions_max,
        session_results_max=config.session_results_max,
        session_result_bytes_max=config.session_result_bytes_max,
        ttl_ms=int(config.session_ttl_s * 1000),
    )


def page_limits(config: PartitionConfig) -> PageLimits:
    """Return the bounds of one page of a range."""
    return PageLimits(config.scan_page_items, config.scan_page_bytes)


def snapshot_limits(config: PartitionConfig) -> SnapshotLimits:
    """Return the bounds of the states that open scans read."""
    return SnapshotLimits(
        config.scan_snapshots_max, config.scan_snapshot_bytes_max, config.scan_snapshot_idle_s
    )


def checkpoint_limits(
    config: PartitionConfig, log_retain_entries: int, log_retain_bytes: int
) -> CheckpointLimits:
    """Return when a checkpoint is due and how much log stays below it."""
    return CheckpointLimits(
        checkpoint_bytes_max=config.checkpoint_bytes_max,
        checkpoint_ops_max=config.checkpoint_ops_max,
        checkpoint_interval_s=config.checkpoint_interval_s,
        log_retain_entries=log_retain_entries,
        log_retain_bytes=log_retain_bytes,
    )
