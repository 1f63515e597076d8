"""ReadIndex: reads that wait for proof that this replica still leads (pure).

Ongaro 2014, section 6.4: note the commit index, let a quorum confirm the term with a
round that began after the read arrived, wait until that index is applied, read. One
round serves all reads that wait; at most one round is open at a time, so under load a
round carries everything that came during the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kv.raft.api import ReadProof

READS_WAITING_MAX = 65_536
"""Reads that may wait for one group's read index; one more is refused as if leadership were lost."""

Done = Callable[[ReadProof | None], None]
"""Told the proof once its read index is confirmed and applied, or None if leadership was lost."""


@dataclass(slots=True)
class Round:
    """One confirmation round: who confirmed `term` after it began."""

    sequence: int
    term: int
    proof: ReadProof
    """What the round proves once a quorum confirmed it."""
    reads: list[Done]
    confirmed: set[str] = field(default_factory=set)


class ReadIndexQueue:
    """The reads of one group: waiting, in a round, and confirmed but not yet applied."""

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum
        self._waiting: list[Done] = []
        self.idle = True
        """Whether no read waits for anything: each turn asks, so it is no method."""
        self._round: Round | None = None
        self._confirmed: list[tuple[ReadProof, list[Done]]] = []
        self._sequence = 0

    def __len__(self) -> int:
        open_reads = 0 if self._round is None else len(self._round.reads)
        return len(self._waiting) + open_reads + sum(len(reads) for _, reads in self._confirmed)

    def add(self, done: Done) -> None:
        """Takes a read that arrived now."""
        self._waiting.append(done)
        self.idle = False

    @property
    def can_begin(self) -> bool:
        """Whether reads wait and no round is open."""
        return bool(self._waiting) and self._round is None

    def begin(self, term: int, commit_index: int, now: float) -> int:
        """Opens a round for all reads that wait; returns the sequence that its probes, sent after `now`, carry."""
        assert self._round is None
        sequence = self.take_sequence()
        self._round = Round(sequence, term, ReadProof(commit_index, now), self._waiting)
        self._waiting = []
        self._settle_round()
        return sequence

    def take_sequence(self) -> int:
        """A sequence for probes: above all before, so that to answer it confirms the open round as well."""
        self._sequence += 1
        return self._sequence

    @property
    def proved_any(self) -> bool:
        """Whether any read is proved, and was not served when it was looked at last."""
        return bool(self._confirmed)

    @property
    def open_sequence(self) -> int | None:
        """Sequence of the open round, for probes that are sent again."""
        return None if self._round is None else self._round.sequence

    def confirm(self, member: str, term: int, sequence: int) -> None:
        """Counts a member's reply to a probe; replies to earlier rounds or terms count for nothing."""
        current = self._round
        if current is None or sequence < current.sequence or term != current.term:
            return
        current.confirmed.add(member)
        self._settle_round()

    def skip_round(self, commit_index: int, now: float) -> None:
        """Lets every waiting read pass unconfirmed. Only for the mutant that shows why rounds exist."""
        reads, self._waiting = self._waiting, []
        self._confirmed.append((ReadProof(commit_index, now), reads))

    def proved(self, proof: ReadProof, done: Done) -> None:
        """Takes a read whose index is proved already, and not yet applied."""
        self._confirmed.append((proof, [done]))
        self.idle = False

    def _settle_round(self) -> None:
        current = self._round
        if current is not None and 1 + len(current.confirmed) >= self._quorum:
            self._round = None
            self._confirmed.append((current.proof, current.reads))

    def ready(self, applied_index: int) -> list[tuple[ReadProof, Done]]:
        """Takes the confirmed reads whose index is applied."""
        if not self._confirmed:
            return []
        confirmed, self._confirmed = self._confirmed, []
        out: list[tuple[ReadProof, Done]] = []
        for proof, reads in confirmed:
            if proof.index <= applied_index:
                out += [(proof, done) for done in reads]
            else:
                self._confirmed.append((proof, reads))
        self.idle = not (self._waiting or self._confirmed) and self._round is None
        return out

    def drop(self) -> list[Done]:
        """Leadership or the term is lost: takes every read that was not served."""
        out = list(self._waiting)
        if self._round is not None:
            out += self._round.reads
        for _, reads in self._confirmed:
            out += reads
        self._waiting, self._round, self._confirmed = [], None, []
        self.idle = True
        return out
