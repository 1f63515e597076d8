"""What must hold in every state of a cluster: Raft's properties, as a test can see them.

What lives here: the properties of figure 3.2 of the dissertation (election safety, log matching as seen by
what is applied, leader completeness, state machine safety), durability of the quorum, and linearizable
reads. What must not: schedules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kv.raft.api import Entry

Copy = Callable[[int], int | None]
"""Term of the entry that a member's disk holds at an index, 0 if a snapshot covers it, None if it is not there."""


class Violation(AssertionError):
    """A property does not hold; the text begins with its name."""


@dataclass
class Checker:
    """Everything seen so far, and the checks against it."""

    quorum: int
    leaders: dict[int, str] = field(default_factory=dict)
    committed: dict[int, Entry] = field(default_factory=dict)
    committed_in: dict[int, int] = field(default_factory=dict)
    """Index to the term in which it was committed, or a later one."""
    applied: dict[int, Entry] = field(default_factory=dict)
    acknowledged: dict[int, Entry] = field(default_factory=dict)

    def leads(self, name: str, term: int, holds: Copy) -> None:
        """Election safety; leader completeness when a term's leader is first seen."""
        known = self.leaders.setdefault(term, name)
        if known != name:
            raise Violation(f"two leaders: {known} and {name} lead term {term}")
        for index, entry in self.committed.items():
            # Entries of older terms count from the term in which they were committed (3.6.2): a leader that was
            # deposed without knowing it need not hold what its successor has committed since.
            if self.committed_in[index] < term and holds(index) not in (0, entry[2]):
                raise Violation(
                    f"incomplete leader: {name} leads term {term} without committed entry {index}"
                )

    def commits(self, name: str, entry: Entry, copies: list[Copy], in_term: int) -> None:
        """A committed entry is on a quorum's disks, and never changes. `in_term`: the term of who tells it."""
        _, index, term = entry
        known = self.committed.get(index)
        if known is None:
            holders = sum(copy(index) in (0, term) for copy in copies)
            if holders < self.quorum:
                raise Violation(
                    f"no durable quorum: {name} commits {index} of term {term} on {holders} disks"
                )
            self.committed[index] = entry
            self.committed_in[index] = in_term
        elif known != entry:
            raise Violation(f"committed entry changed: {index} was {known}, {name} has {entry}")

    def applies(self, name: str, entry: Entry) -> None:
        """State machine safety: no two members apply different entries at one index."""
        known = self.applied.setdefault(entry[1], entry)
        if known != entry:
            raise Violation(f"applied sequences differ: {name} applies {entry}, another applied {known}")

    def acknowledges(self, entry: Entry) -> None:
        """A leader answered the client of this entry."""
        self.acknowledged[entry[1]] = entry

    def acknowledged_index(self) -> int:
        """What a read that begins now must see."""
        return max(self.acknowledged, default=0)

    def reads(self, name: str, begun_at: int, served_at: int) -> None:
        """A read sees all that was acknowledged before it began."""
        if served_at < begun_at:
            raise Violation(f"stale read: {name} serves {served_at}, {begun_at} was acknowledged before")

    def survives(self, name: str, entries: list[Entry]) -> None:
        """What was acknowledged is in the final state."""
        final = {entry[1]: entry for entry in entries}
        for index, entry in self.acknowledged.items():
            if final.get(index) != entry:
                raise Violation(f"acknowledged entry lost: {name} has {final.get(index)} instead of {entry}")
