"""What a group needs of whoever drives it: the engine in a process, a test otherwise.

Here lives the protocol and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kv.raft.group import Group


class Host(Protocol):
    """What a group needs of the engine that drives it."""

    def now(self) -> float:
        """Seconds on the node's steady clock."""

    def wake(self, group: Group) -> None:
        """Give the group a turn soon."""

    def remind(self, group: Group, delay_s: float) -> None:
        """Call the group's `reminded` once: after the delay, or with groups that asked before, after theirs."""

    def roused(self, group: Group) -> None:
        """The group rested, and does no more."""

    def run_blocking(self, work: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """Run `work` in a worker thread, then `then(error or None)` on the loop."""
