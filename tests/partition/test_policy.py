"""When a checkpoint is due, and how much log stays below it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.partition.policy import (
    OVERDUE_TIMES,
    QUIET_OPERATIONS_MIN,
    QUIET_S,
    TIMED_TOGETHER_MAX,
    CheckpointLimits,
    CheckpointPolicy,
    ReplayBudget,
)

LIMITS = CheckpointLimits(
    checkpoint_bytes_max=1000,
    checkpoint_ops_max=10,
    checkpoint_interval_s=5.0,
    log_retain_entries=100,
    log_retain_bytes=2000,
)


def test_nothing_applied() -> None:
    """Without an applied entry no checkpoint is ever due."""
    policy = CheckpointPolicy(LIMITS, ReplayBudget(1000))
    assert not policy.due(0.0)
    assert not policy.due(1e9)


@pytest.mark.parametrize(
    ("entry_bytes", "operations", "large"), [(999, 9, False), (1000, 1, True), (1, 10, True), (1, 0, False)]
)
def test_size(entry_bytes: int, operations: int, large: bool) -> None:
    """A checkpoint is due at once at the limit of bytes or of operations, not below."""
    policy = CheckpointPolicy(LIMITS, ReplayBudget(1000))
    policy.applied(entry_bytes, operations)
    assert policy.large() == policy.due(7.0) == large


def test_age() -> None:
    """Otherwise it is due the interval after the first time that something applied was seen."""
    policy = CheckpointPolicy(LIMITS, ReplayBudget(1000))
    assert not policy.due(0.0)
    policy.applied(1, 1)
    assert not policy.due(100.0)
    policy.applied(1, 1)
    assert not policy.due(104.9)
    assert policy.due(105.0)
    policy.checkpointed(50)
    assert not policy.due(200.0)


def test_quiet() -> None:
    """After a load that has ended a checkpoint is due soon, if there is enough to apply again; each entry puts it off."""
    policy = CheckpointPolicy(replace(LIMITS, checkpoint_ops_max=1 << 30), ReplayBudget(1 << 30))
    policy.applied(1, QUIET_OPERATIONS_MIN - 1)
    assert not policy.due(10.0)
    assert not policy.due(10.0 + QUIET_S)
    policy.applied(1, 1)
    assert not policy.due(10.5 + QUIET_S)
    assert not policy.due(10.4 + 2 * QUIET_S)
    assert policy.due(10.5 + 2 * QUIET_S)
    policy.checkpointed(50)
    assert not policy.due(30.0)


def test_rolled_back() -> None:
    """After a rollback the count begins anew."""
    policy = CheckpointPolicy(LIMITS, ReplayBudget(1000))
    policy.applied(5000, 100)
    policy.rolled_back()
    assert not policy.due(0.0)


def test_retain_entries() -> None:
    """The log keeps the configured number of entries below a checkpoint."""
    policy = CheckpointPolicy(LIMITS, ReplayBudget(1000))
    assert policy.checkpointed(90) == 0
    assert policy.checkpointed(250) == 150


def test_retain_bytes() -> None:
    """Large entries are let go at the newest checkpoint that still leaves the retained bytes above it."""
    policy = CheckpointPolicy(LIMITS, ReplayBudget(1000))
    targets = []
    for index in (10, 20, 30, 40, 50):
        policy.applied(1000, 1)
        targets.append(policy.checkpointed(index))
    assert targets == [0, 0, 10, 20, 30]


def test_budget_of_the_node() -> None:
    """At the bound over all replicas those are due that have their share or more; below it none is."""
    budget = ReplayBudget(12)
    large, small = CheckpointPolicy(LIMITS, budget), CheckpointPolicy(LIMITS, budget)
    large.applied(1, 8)
    small.applied(1, 3)
    assert not large.due(0.0)
    small.applied(1, 1)
    assert (large.due(0.0), small.due(0.0)) == (True, False)
    large.checkpointed(50)
    assert (large.due(0.0), small.due(0.0), budget.operations) == (False, False, 4)


def test_budget_counts_what_is_left() -> None:
    """What a rollback or a checkpoint takes away no longer counts."""
    budget = ReplayBudget(12)
    one, other = CheckpointPolicy(LIMITS, budget), CheckpointPolicy(LIMITS, budget)
    one.applied(1, 7)
    other.applied(1, 5)
    one.rolled_back()
    assert (other.due(0.0), budget.operations) == (False, 5)
    other.checkpointed(50)
    assert budget.operations == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=300))
def test_budget_is_kept(applied: list[tuple[int, int]]) -> None:
    """If each replica makes the checkpoints that are due, no order of work brings the sum a step above the bound."""
    limits = replace(LIMITS, checkpoint_ops_max=1000)
    budget = ReplayBudget(20)
    policies = [CheckpointPolicy(limits, budget) for _ in range(5)]
    for number, operations in applied:
        policies[number].applied(1, operations)
        for policy in policies:
            if policy.due(0.0):
                policy.checkpointed(1)
        assert budget.operations < 20


def test_time_alone_makes_few_due_at_once() -> None:
    """Of many replicas whose time has come some are due at this moment and the others at the next; size waits for none."""
    budget = ReplayBudget(1 << 30)
    policies = [CheckpointPolicy(LIMITS, budget) for _ in range(TIMED_TOGETHER_MAX + 2)]
    for policy in policies:
        policy.applied(1, 1)
        assert not policy.due(0.0)
    due = [policy for policy in policies if policy.due(5.0)]
    assert due == policies[:TIMED_TOGETHER_MAX]
    for policy in due:
        policy.checkpointed(10)
    assert [policy for policy in policies if policy.due(5.5)] == policies[TIMED_TOGETHER_MAX:]
    for policy in policies:
        policy.applied(1, 10)
    assert all(policy.due(5.5) for policy in policies)


def test_large_checkpoints_come_one_after_another() -> None:
    """They stand in line for one thread: a replica waits for its turn, but not beyond twice what it may gather."""
    budget = ReplayBudget(1 << 30)
    first, second = CheckpointPolicy(LIMITS, budget), CheckpointPolicy(LIMITS, budget)
    for policy in (first, second):
        policy.applied(1, LIMITS.checkpoint_ops_max)
        assert policy.due(0.0)
    first.begun()
    assert not second.due(0.0)
    second.applied(1, (OVERDUE_TIMES - 1) * LIMITS.checkpoint_ops_max - 1)
    assert not second.due(0.0)
    second.applied(1, 1)
    assert second.due(0.0)
    second.begun()
    first.ended()
    first.ended()  # whatever became of it: counted once
    assert budget.under_way == 1
    second.ended()
    assert budget.under_way == 0


def test_bytes_do_not_wait_for_ever_either() -> None:
    """As for operations."""
    budget = ReplayBudget(1 << 30)
    first, second = CheckpointPolicy(LIMITS, budget), CheckpointPolicy(LIMITS, budget)
    first.applied(1, 1)
    first.begun()
    second.applied(OVERDUE_TIMES * LIMITS.checkpoint_bytes_max - 1, 0)
    assert not second.due(0.0)
    second.applied(1, 0)
    assert second.due(0.0)
