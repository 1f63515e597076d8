"""How far each node's disk had come: term, vote and checkpoint must never go back on it. Pure.

Here lives the book of what completed syncs and checkpoints told, kept outside of the process that
wrote it. It is one of the ledger's properties; which records a sync held is looked up in `properties.py`.
"""

from __future__ import annotations

HardState = tuple[int, str | None]
"""Term, and who got the vote in it."""


def follows(before: HardState, after: HardState) -> bool:
    """Whether a replica that had stored `before` may store `after`: terms grow, a vote of a term stays."""
    if after[0] != before[0]:
        return after[0] > before[0]
    return before[1] is None or before[1] == after[1]


class DurableMarks:
    """The newest hard state and checkpoint that each replica made durable, by node and group."""

    def __init__(self) -> None:
        self._hard_states: dict[tuple[str, int], HardState] = {}
        self._checkpoints: dict[tuple[str, int], int] = {}

    def synced(self, node: str, group: int, hard_state: HardState) -> None:
        """A sync completed that held this record of term and vote."""
        before = self._hard_states.get((node, group))
        if before is None or follows(before, hard_state):
            self._hard_states[node, group] = hard_state

    def checkpointed(self, node: str, group: int, index: int) -> None:
        """The state of a replica is durable up to `index`."""
        self._checkpoints[node, group] = max(index, self._checkpoints.get((node, group), 0))

    def found(self, node: str, group: int, hard_state: HardState, checkpoint: int) -> str | None:
        """Compare what a start found; returns what went back. What was found is durable from now on."""
        before = self._hard_states.get((node, group), hard_state)
        reached = self._checkpoints.get((node, group), 0)
        self._hard_states[node, group] = hard_state
        self._checkpoints[node, group] = checkpoint
        where = f"{node} group {group}"
        if not follows(before, hard_state):
            return f"{where}: term and vote {before} were synced, the start found {hard_state}"
        if checkpoint < reached:
            return f"{where}: the checkpoint {reached} was durable, the start found {checkpoint}"
        return None
