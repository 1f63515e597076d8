"""Reads at a replica that does not lead: it asks the leader for an index that a quorum confirmed (pure; rule 24).

Ongaro 2014, section 6.4: a follower may serve linearizable reads if it asks the leader for a current
read index, and waits until that is applied. One question serves all reads that wait; at most one is open
at a time, and a read joins only a question that is first sent after it came. An answer counts if it is the
leader's, of the question's term and number; numbers begin at random, so that an answer to the process before
this one is none to this one.

The sending is in `reading.py`; the leader's own reads are in `read_index.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kv.raft.api import ReadProof
from kv.raft.read_index import Done

_FIRST_BELOW = 1 << 52
"""Numbers begin below this: all that a float's draw can tell apart, and far from the end of 64 bits."""


@dataclass(slots=True)
class Question:
    """One question to the leader of `term`, and the reads that wait for its answer or for what it said to be applied."""

    sequence: int
    term: int
    leader: str
    began_at: float
    sent_at: float
    reads: list[Done]
    proof: ReadProof | None = None


class FollowerReads:
    """The reads of one replica that does not lead. Times: this replica's clock, seconds.

    A question lives `life_s` from its beginning; what is neither answered nor applied by then is given up.
    `matched` is off only for the mutant that shows why answers must fit their question.
    """

    def __init__(self, life_s: float, rng: Callable[[], float], *, matched: bool = True) -> None:
        self._life_s, self._rng, self._matched = life_s, rng, matched
        self._sequence: int | None = None  # drawn when first needed: most replicas never ask
        self._waiting: list[Done] = []
        self.idle = True
        """Whether no read waits for anything: each turn asks, so it is no method."""
        self._open: Question | None = None
        self._answered: list[Question] = []

    def __len__(self) -> int:
        open_reads = 0 if self._open is None else len(self._open.reads)
        return len(self._waiting) + open_reads + sum(len(question.reads) for question in self._answered)

    @property
    def can_begin(self) -> bool:
        """Whether reads wait and no question is open."""
        return bool(self._waiting) and self._open is None

    @property
    def open(self) -> Question | None:
        """The question that is not answered yet."""
        return self._open

    def add(self, done: Done) -> None:
        """Takes a read that arrived now."""
        self._waiting.append(done)
        self.idle = False

    def begin(self, term: int, leader: str, now: float) -> Question:
        """Opens a question to `leader` for all reads that wait, to be sent now."""
        assert self._open is None
        if self._sequence is None:
            self._sequence = int(self._rng() * _FIRST_BELOW)
        self._sequence += 1
        self._open = Question(self._sequence, term, leader, now, now, self._waiting)
        self._waiting = []
        return self._open

    def due(self, now: float, every_s: float) -> Question | None:
        """The open question if it is to be sent again, after each `every_s`: it, or its answer, may be lost."""
        question = self._open
        if question is None or now - question.sent_at < every_s:
            return None
        question.sent_at = now
        return question

    def answered(self, sender: str, term: int, sequence: int, index: int) -> ReadProof | None:
        """The leader answered `index`; returns the proof that this gives, or None if it answers no open question."""
        question = self._open
        if question is None or not self._answers(question, sender, term, sequence):
            return None
        self._open = None
        question.proof = ReadProof(index, question.began_at)
        self._answered.append(question)
        return question.proof

    def refused(self, sender: str, term: int, sequence: int) -> list[Done]:
        """Who was asked does not lead: takes the reads of the question, and those that would ask the same next."""
        question = self._open
        if question is None or not self._answers(question, sender, term, sequence):
            return []
        out = question.reads + self._waiting
        self._open, self._waiting = None, []
        self.idle = not self._answered
        return out

    def _answers(self, question: Question, sender: str, term: int, sequence: int) -> bool:
        asked = (question.leader, question.term, question.sequence)
        return not self._matched or (sender, term, sequence) == asked

    def ready(self, applied_index: int) -> list[tuple[ReadProof, Done]]:
        """Takes the reads whose question is answered and whose index is applied."""
        out: list[tuple[ReadProof, Done]] = []
        kept: list[Question] = []
        for question in self._answered:
            assert question.proof is not None
            if question.proof.index <= applied_index:
                out += [(question.proof, done) for done in question.reads]
            else:
                kept.append(question)
        self._answered = kept
        self._note_idle()
        return out

    def expire(self, now: float) -> list[Done]:
        """Takes the reads of the questions whose time is over. Those that wait get a question of their own."""
        out: list[Done] = []
        if self._open is not None and now - self._open.began_at >= self._life_s:
            out += self._open.reads
            self._open = None
        for question in self._answered:
            if now - question.began_at >= self._life_s:
                out += question.reads
        self._answered = [q for q in self._answered if now - q.began_at < self._life_s]
        self._note_idle()
        return out

    def _note_idle(self) -> None:
        self.idle = not (self._waiting or self._answered) and self._open is None

    def drop(self) -> list[Done]:
        """The term is over, or the leader out of reach: takes every read that was not served."""
        out = list(self._waiting) + ([] if self._open is None else self._open.reads)
        for question in self._answered:
            out += question.reads
        self._waiting, self._open, self._answered = [], None, []
        self.idle = True
        return out
