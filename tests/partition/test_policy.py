"""When a checkpoint is due, and how much log stays below it."""

from __future__ import annotations

import pytest

from kv.partition.policy import CheckpointLimits, CheckpointPolicy

LIMITS = CheckpointLimits(
    checkpoint_bytes_max=1000,
    checkpoint_ops_max=10,
    checkpoint_interval_s=5.0,
    log_retain_entries=100,
    log_retain_bytes=2000,
)


def test_nothing_applied() -> None:
    """Without an applied entry no checkpoint is ever due."""
    policy = CheckpointPolicy(LIMITS)
    assert not policy.due(0.0)
    assert not policy.due(1e9)


@pytest.mark.parametrize(
    ("entry_bytes", "operations", "large"), [(999, 9, False), (1000, 1, True), (1, 10, True), (1, 0, False)]
)
def test_size(entry_bytes: int, operations: int, large: bool) -> None:
    """A checkpoint is due at once at the limit of bytes or of operations, not below."""
    policy = CheckpointPolicy(LIMITS)
    policy.applied(entry_bytes, operations)
    assert policy.large() == policy.due(7.0) == large


def test_age() -> None:
    """Otherwise it is due the interval after the first time that something applied was seen."""
    policy = CheckpointPolicy(LIMITS)
    assert not policy.due(0.0)
    policy.applied(1, 1)
    assert not policy.due(100.0)
    policy.applied(1, 1)
    assert not policy.due(104.9)
    assert policy.due(105.0)
    policy.checkpointed(50)
    assert not policy.due(200.0)


def test_rolled_back() -> None:
    """After a rollback the count begins anew."""
    policy = CheckpointPolicy(LIMITS)
    policy.applied(5000, 100)
    policy.rolled_back()
    assert not policy.due(0.0)


def test_retain_entries() -> None:
    """The log keeps the configured number of entries below a checkpoint."""
    policy = CheckpointPolicy(LIMITS)
    assert policy.checkpointed(90) == 0
    assert policy.checkpointed(250) == 150


def test_retain_bytes() -> None:
    """Large entries are let go at the newest checkpoint that still leaves the retained bytes above it."""
    policy = CheckpointPolicy(LIMITS)
    targets = []
    for index in (10, 20, 30, 40, 50):
        policy.applied(1000, 1)
        targets.append(policy.checkpointed(index))
    assert targets == [0, 0, 10, 20, 30]
