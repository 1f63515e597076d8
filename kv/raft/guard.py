"""The rules that make the consensus core safe: decisions only.

Everything here is a function, or a small book-keeper, from what is known to what is
to be done: no clock, no I/O, no randomness, no core. `group.py` asks these
questions at the core's two edges, the transport and the journal, and acts.

The core (PySyncObj 0.3.17) loses acknowledged writes when it is used as shipped;
each rule closes one hole. Its number is that of the list in DESIGN.md, and `Rules`
names it, so that a test (and the simulator's mutants) can switch one off and show
what it prevents. Production code always runs `Rules()`: all on.

Terms and the names of messages: Ongaro, "Consensus: Bridging Theory and Practice"
(2014), chapter 3; pre-vote and check-quorum sections 9.6 and 6.2; ReadIndex 6.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Rules:
    """Which rules are in force; each defaults to on and is off in tests only."""

    envelope: bool = True  # 1: group, epoch, sender and term are checked
    terms: bool = True  # 2: lower terms are answered, higher ones raise ours first
    keep_agreed: bool = True  # 3: an append never truncates what agrees
    proved_commit: bool = True  # 4: commit index never above what the message proved
    current_acks: bool = True  # 5: acknowledgements count in their own term only
    durable_self: bool = True  # 6: the leader's own copy counts when it is synced
    durable_before_sent: bool = True  # 7: acknowledged means on disk
    commit_from_snapshot: bool = True  # 8: no stored commit index is trusted at start
    votes_by_member: bool = True  # 9: votes are collected, not counted
    snapshot_guard: bool = True  # 10: a snapshot never moves a replica back
    compact_below_checkpoint: bool = True  # 11: the log keeps what is not checkpointed
    entry_limits: bool = True  # 13: only no-op typed entries of bounded size enter the core
    confirm_reads: bool = True  # 14: a quorum confirms the term before a read is served
    reads_after_own_commit: bool = True  # 14: the term's first commit comes before its first read
    pre_vote: bool = True  # 15
    sticky_leader: bool = True  # 16
    hints: bool = True  # 17: a rejected append is repaired in one step
    send_once: bool = True  # 18: what the connection carries is not sent again
    snapshot_heartbeats: bool = True  # 19: empty appends while a snapshot travels
    apply_durable: bool = True  # 21: nothing is applied that is not on this disk
    lease_bounded: bool = True  # 22: a lease ends before those who gave it may elect another leader
    lease_confirmed: bool = True  # 22: it begins with a probe that a quorum confirmed
    votes_held_back: bool = True  # 23: who restarted, or knows of a leader by probes only, votes later too
    answers_matched: bool = True  # 24: a follower's read takes the answer to its own question only
    beats_matched: bool = True  # 25: a beat stands for the groups of which both ends hold the same line
    rest_checked: bool = True  # 25: and a member rests only if it holds what its line says
    beats_counted_since: bool = True  # 26: an answer counts for the groups for which its beat stood
    rest_remembered: bool = True  # 27: who wakes knows when it heard its leader's last beat


TERM_MAX: Final = 1 << 62
"""No group gets here: a message of a higher term is damaged, and the terms after ours must fit into 64 bits."""


class Contradiction(Exception):
    """A peer showed what correct replicas never show; the replica must stop."""


def could_be_a_log(prev_term: int, terms: Sequence[int], leader_term: int) -> bool:
    """Whether entries of these terms could follow one of `prev_term` in the log of a leader of `leader_term`.

    Terms never fall along a log, and no entry is of a term above its leader's (dissertation, 3.5).
    """
    if len(terms) == 1:  # nearly always
        return prev_term <= terms[0] <= leader_term
    along = [prev_term, *terms, leader_term]
    return along == sorted(along)


class LogView(Protocol):
    """What the rules may know of a replica's log."""

    @property
    def last(self) -> int:
        """Index of the last entry."""
        ...

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`, or None if the log does not hold it."""
        ...


class AppendPlan(NamedTuple):
    """How an append is handed to the core (a tuple: one is made for each append).

    prev, prev_term: where the core is told that the entries begin.
    skip: how many of the message's entries are left out at the front; None hands on none.
    commit: the commit index that the core is told.
    proved: the index that a success proves, where it is not the core's own answer.
    hint: the next index to ask for when the core refuses.
    """

    prev: int
    prev_term: int
    skip: int | None
    commit: int
    proved: int | None = None
    hint: int | None = None


def plan_append(
    log: LogView,
    commit: int,
    prev: int,
    prev_term: int,
    terms: Sequence[int],
    leader_commit: int,
    rules: Rules,
) -> AppendPlan:
    """Decides how entries (prev, prev + len(terms)] of `terms` meet our log (rules 3, 4, 17).

    `commit` is the core's commit index: entries at or below it are identical on every
    legal leader, so a disagreement there raises Contradiction.
    """
    if not rules.keep_agreed:
        return AppendPlan(prev, prev_term, 0, leader_commit)
    skip = 0
    if prev < commit:
        skip = commit - prev
        own_commit_term = _known(log.term_at(commit), commit)
        if skip > len(terms):  # the message ends below our commit index: nothing new in it
            return _hold(log, commit, leader_commit, commit, rules)
        if terms[skip - 1] != own_commit_term:
            raise Contradiction(f"the leader's entry {commit} contradicts a committed one")
        prev, prev_term = commit, own_commit_term
    if prev > log.last:
        return AppendPlan(prev, prev_term, None, leader_commit, hint=log.last + 1)
    if log.term_at(prev) != prev_term:
        if prev == commit:
            raise Contradiction(f"the leader's entry {commit} contradicts a committed one")
        return AppendPlan(
            prev, prev_term, None, leader_commit, hint=_conflict_start(log, prev, commit, rules)
        )
    agreed = prev + _agreeing(log, prev, terms, skip)
    new = prev + len(terms) - skip > agreed
    if new or agreed == log.last:
        return AppendPlan(
            agreed, _known(log.term_at(agreed), agreed), skip + agreed - prev if new else None, leader_commit
        )
    return _hold(log, agreed, leader_commit, agreed, rules)


def _hold(log: LogView, proved: int, leader_commit: int, ceiling: int, rules: Rules) -> AppendPlan:
    """Our log is longer than what the message proves: keep the tail, answer what was proved."""
    commit = min(leader_commit, ceiling) if rules.proved_commit else leader_commit
    return AppendPlan(log.last, _known(log.term_at(log.last), log.last), None, commit, proved=proved)


def _agreeing(log: LogView, prev: int, terms: Sequence[int], skip: int) -> int:
    """Counts the entries after `prev` that our log holds with the same term."""
    if not terms:
        return 0
    count = 0
    limit = min(len(terms) - skip, log.last - prev)
    while count < limit and log.term_at(prev + 1 + count) == terms[skip + count]:
        count += 1
    return count


def _conflict_start(log: LogView, prev: int, commit: int, rules: Rules) -> int:
    """First index above commit of the term that conflicts at `prev` (dissertation, 3.5)."""
    if not rules.hints:
        return prev
    term, index = log.term_at(prev), prev
    while index - 1 > commit and log.term_at(index - 1) == term:
        index -= 1
    return max(index, commit + 1)


def _known(term: int | None, index: int) -> int:
    assert term is not None, f"the log must hold entry {index}"
    return term


def log_is_current(last_term: int, last_index: int, own_term: int, own_index: int) -> bool:
    """Whether a candidate's log is at least as good as ours (dissertation, 3.6.1)."""
    return (last_term, last_index) >= (own_term, own_index)


class VoteBox:
    """Votes by (term, member): a repeated reply is one vote (rule 9)."""

    def __init__(self) -> None:
        self._term = 0
        self._members: set[str] = set()

    def is_new(self, term: int, member: str, rules: Rules) -> bool:
        """Counts the vote; False if this member's vote of this term was counted before."""
        if term != self._term:
            self._term, self._members = term, set()
        seen = member in self._members
        self._members.add(member)
        return not seen or not rules.votes_by_member


class AckBook:
    """What each follower of this term has proved, and what the core was told of it (rules 5, 6)."""

    def __init__(self) -> None:
        self.match: dict[str, int] = {}
        self._told: dict[str, int] = {}

    def success(self, member: str, next_index: int, durable: int, rules: Rules) -> int:
        """Notes that `member` agrees below `next_index`; returns the next index the core may be told.

        The core counts itself for every index that it believes a follower has, so it is
        never told of more than our own disk holds.
        """
        match = self.match.setdefault(member, 0)
        if next_index - 1 > match:
            match = self.match[member] = next_index - 1
        allowed = match + 1
        if rules.durable_self and durable < match:
            allowed = durable + 1
        if allowed > self._told.get(member, 0):
            self._told[member] = allowed
        return allowed

    def after_sync(self, durable: int) -> list[tuple[str, int]]:
        """What the core may now be told besides, only where it is more than it knows."""
        news = []
        for member, match in self.match.items():
            allowed = min(match, durable) + 1
            if allowed > self._told.get(member, 0):
                self._told[member] = allowed
                news.append((member, allowed))
        return news

    def rejection(self, member: str, next_index: int, last: int) -> int:
        """Clamps where to go on to what can be right: above what was proved, not beyond our end."""
        return max(min(next_index, last + 1), self.match.get(member, 0) + 1)


class SendWindow:
    """What a connection already carries to each follower, and how much of it is unproved (rule 18)."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._sent: dict[str, int] = {}
        self._in_flight: dict[str, list[tuple[int, int]]] = {}
        self._bytes: dict[str, int] = {}
        self._deferred: dict[str, int] = {}

    def carried(self, member: str) -> int:
        """Highest index that the connection to `member` carries; 0 if unknown."""
        return self._sent.get(member, 0)

    def full(self, member: str) -> bool:
        """Whether `bytes_max` or more are sent and not proved."""
        return self._bytes.get(member, 0) >= self._bytes_max

    def sent(self, member: str, index: int, size: int) -> None:
        """Notes that entries up to `index`, `size` bytes, went out."""
        self._sent[member] = max(index, self.carried(member))
        self._in_flight.setdefault(member, []).append((index, size))
        self._bytes[member] = self._bytes.get(member, 0) + size

    def deferred(self, member: str) -> bool:
        """Whether entries are held back from this member."""
        return member in self._deferred

    def defer(self, member: str, index: int) -> None:
        """Notes that entries from `index` on were held back because the window is full."""
        held = self._deferred.get(member)
        self._deferred[member] = index if held is None else min(index, held)

    def proved(self, member: str, match: int) -> int | None:
        """Frees what is proved; returns the index to go on from if something was held back."""
        flights = self._in_flight.get(member)
        if flights:
            done = 0
            while done < len(flights) and flights[done][0] <= match:
                self._bytes[member] -= flights[done][1]
                done += 1
            del flights[:done]
        if self._bytes.get(member, 0) * 2 > self._bytes_max:
            return None
        return self._deferred.pop(member, None)

    def reset(self, member: str, next_index: int) -> None:
        """The follower asks from `next_index` on: what was sent above did not arrive in order."""
        self.forget(member)
        self._sent[member] = next_index - 1

    def forget(self, member: str) -> None:
        """The connection is gone, and whatever was in flight with it."""
        self._sent.pop(member, None)
        self._in_flight.pop(member, None)
        self._bytes.pop(member, None)
        self._deferred.pop(member, None)

    def clear(self) -> None:
        """A new term begins: nothing of the old one counts."""
        for member in list(self._sent.keys() | self._bytes.keys() | self._deferred.keys()):
            self.forget(member)
