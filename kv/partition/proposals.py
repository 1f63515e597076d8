"""The commands that this replica put into the log and that are not decided yet (pure).

An index is decided when an entry is applied there, not before. An entry of ours that another
leader overwrote in our own log may live on in other logs, win an election there, and be
committed after all: so a proposal stays undecided, even when we lead again and propose
something else at the same index, until the log has spoken.
"""

from __future__ import annotations

from dataclasses import dataclass

from kv.partition.queue import Request


@dataclass(slots=True)
class Proposal:
    """A command of ours in the log, not applied yet."""

    term: int
    time_ms: int
    requests: list[Request]


class Proposals:
    """Undecided proposals by index; several at one index are of different terms."""

    def __init__(self) -> None:
        self._by_index: dict[int, list[Proposal]] = {}
        self._of_term: dict[int, int] = {}

    def add(self, index: int, proposal: Proposal) -> None:
        """Takes a proposal that was appended at `index`."""
        self._by_index.setdefault(index, []).append(proposal)
        self._of_term[proposal.term] = self._of_term.get(proposal.term, 0) + 1

    def in_flight(self, term: int) -> int:
        """Proposals of this term: those of an earlier one do not hold up a leader."""
        return self._of_term.get(term, 0)

    def find(self, index: int, term: int) -> Proposal | None:
        """Our proposal that is the entry at `index` of `term`, if there is one."""
        held = self._by_index.get(index, ())
        return next((proposal for proposal in held if proposal.term == term), None)

    def decided(self, index: int) -> list[Proposal]:
        """An entry was applied at `index`: takes every proposal that was appended there."""
        proposals = self._by_index.pop(index, [])
        for proposal in proposals:
            self._count_out(proposal)
        return proposals

    def take_all(self) -> list[tuple[int, Proposal]]:
        """Takes every proposal: what becomes of them will not be seen here."""
        taken = [(index, proposal) for index, held in self._by_index.items() for proposal in held]
        self._by_index, self._of_term = {}, {}
        return taken

    def _count_out(self, proposal: Proposal) -> None:
        self._of_term[proposal.term] -= 1
        if not self._of_term[proposal.term]:
            del self._of_term[proposal.term]
