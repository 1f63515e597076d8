"""When a replica makes a checkpoint, and how much log it keeps below one.

Here lives the counting and nothing else. Pure: `now` is a parameter, in seconds, monotonic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

QUIET_S: Final = 2.0
QUIET_OPERATIONS_MIN: Final = 1000
"""After so long without an entry so many operations are worth a checkpoint: a restart has nothing to apply then, and
the memory of the load can go."""

TIMED_TOGETHER_MAX: Final = 8
"""Checkpoints for which time alone is the reason, at one moment of a node: they stand in line for one thread, and each holds up
its partition meanwhile. The others come with a later turn."""

OVERDUE_TIMES: Final = 2
"""A large checkpoint waits until no other of its node is under way, and goes on applying; but not above so many times its limit."""


@dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """A checkpoint is due at the first of these; 0 applied entries never make one due."""

    checkpoint_bytes_max: int
    checkpoint_ops_max: int
    checkpoint_interval_s: float
    log_retain_entries: int
    """Entries kept below a checkpoint, so that a short absence never costs a snapshot..."""
    log_retain_bytes: int
    """...but no more than about this many bytes of them."""


class ReplayBudget:
    """What all replicas of a node together would apply again after a crash: applying it is what a restart takes.

    At `operations_max` and above a replica makes a checkpoint as soon as it has its share of the sum or more, and no other is
    under way. So the next one after another does, and a replica that has little to gain writes nothing.
    """

    def __init__(self, operations_max: int) -> None:
        self.operations_max = operations_max
        self.operations = 0
        self.replicas = 0
        self.under_way = 0
        """Checkpoints that were begun and not ended."""
        self._moment = 0.0
        self._timed = 0

    def has_room_at(self, now: float) -> bool:
        """Whether one more checkpoint may be made at this moment only because of the time; counts it."""
        if now != self._moment:
            self._moment, self._timed = now, 0
        self._timed += 1
        return self._timed <= TIMED_TOGETHER_MAX


class CheckpointPolicy:
    """Counts what was applied since the last checkpoint."""

    def __init__(self, limits: CheckpointLimits, budget: ReplayBudget) -> None:
        self._limits = limits
        self._budget = budget
        budget.replicas += 1
        self._entries = 0
        self._bytes = 0
        self._operations = 0
        self._since: float | None = None
        self._seen_entries = 0
        self._seen_at = 0.0
        self._total_bytes = 0
        self._history: deque[tuple[int, int]] = deque()  # (checkpoint index, total bytes then)
        self._under_way = False

    def applied(self, entry_bytes: int, operations: int) -> None:
        """Count one applied entry."""
        self._entries += 1
        self._bytes += entry_bytes
        self._operations += operations
        self._budget.operations += operations

    def begun(self) -> None:
        """Count a checkpoint as under way."""
        assert not self._under_way
        self._under_way = True
        self._budget.under_way += 1

    def ended(self) -> None:
        """Count it no more, whatever became of it."""
        if self._under_way:
            self._under_way = False
            self._budget.under_way -= 1

    def large(self) -> bool:
        """Whether so much was applied that a checkpoint is due whatever the time."""
        limits, budget, operations = self._limits, self._budget, self._operations
        if self._bytes >= limits.checkpoint_bytes_max or operations >= limits.checkpoint_ops_max:
            return True
        return (
            budget.operations >= budget.operations_max and operations * budget.replicas >= budget.operations
        )

    def due(self, now: float) -> bool:
        """Whether a checkpoint should be made now."""
        if not self._entries:
            return False
        if self._since is None:
            self._since = now
        if self.large():
            return not self._budget.under_way or self._overdue()
        if self._entries != self._seen_entries:
            self._seen_entries, self._seen_at = self._entries, now
        quiet = self._operations >= QUIET_OPERATIONS_MIN and now - self._seen_at >= QUIET_S
        by_time = quiet or now - self._since >= self._limits.checkpoint_interval_s
        return by_time and self._budget.has_room_at(now)

    def _overdue(self) -> bool:
        limits = self._limits
        return (
            self._bytes >= OVERDUE_TIMES * limits.checkpoint_bytes_max
            or self._operations >= OVERDUE_TIMES * limits.checkpoint_ops_max
        )

    def rolled_back(self) -> None:
        """Forget what was applied since the last checkpoint: it will be applied again."""
        self._budget.operations -= self._operations
        self._entries = self._seen_entries = self._bytes = self._operations = 0
        self._since = None

    def checkpointed(self, index: int) -> int:
        """Start to count anew, and return the index below which the log is not needed (0: keep all)."""
        self._total_bytes += self._bytes
        self.rolled_back()
        self._history.append((index, self._total_bytes))
        while len(self._history) > 1 and self._retained_above(1) >= self._limits.log_retain_bytes:
            self._history.popleft()
        oldest = self._history[0][0]
        by_bytes = oldest if self._retained_above(0) >= self._limits.log_retain_bytes else 0
        return max(by_bytes, index - self._limits.log_retain_entries, 0)

    def _retained_above(self, position: int) -> int:
        return self._total_bytes - self._history[position][1]
