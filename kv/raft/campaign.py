"""How one replica stands for election and votes: the timer, pre-votes and votes of its group.

When to stand and whom to let stand is decided in `elections.py` and `guard.py`; here the
decisions meet the core. A vote or the wish for one leaves only when term and vote are on
disk (rule 7), which is what `after=journal.seq` asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kv.internal.v1 import raft_pb2
from kv.raft.core import Message
from kv.raft.elections import Elections
from kv.raft.guard import VoteBox, log_is_current

if TYPE_CHECKING:
    from kv.raft.group import Group


class Campaign:
    """One group's elections, as this replica takes part in them."""

    def __init__(self, group: Group, rng: Callable[[], float], now: float) -> None:
        config = group.config
        self._group = group
        self._votes = VoteBox()
        self.elections = 0
        self.timer = Elections(group.me, group.quorum, config.election_min_s, config.election_max_s, rng, now)

    def on_vote(self, message: raft_pb2.RaftMessage) -> None:
        """A candidate asks for our vote (rules 16 and 23: not while a leader lives, or may live)."""
        vote, rules = message.vote, self._group.rules
        live = not self.timer.quiet(self._group.now) or self._group.core.is_leader
        # After a restart, or if only its probes came, a leader's name is not known here. But it may count on us.
        known = rules.votes_held_back or self._group.core.leader is not None
        if rules.sticky_leader and not vote.transfer and live and known:
            return
        if not self._group.suspended:
            self._group.core.vote_request(
                message.sender, message.term, vote.last_index, vote.last_term, self._group.now
            )

    def send_vote(self, peer: str, request: Message) -> None:
        """The core asks a member for its vote."""
        message = self._group.envelope()
        ask = message.vote
        ask.last_index, ask.last_term = request["last_log_index"], request["last_log_term"]
        self._group.post(peer, message, after=self._group.journal.seq)

    def send_vote_reply(self, peer: str) -> None:
        """The core votes for a member; our own timer begins anew."""
        self.timer.arm(self._group.now)
        message = self._group.envelope()
        message.vote_reply.SetInParent()
        self._group.post(peer, message, after=self._group.journal.seq)

    def on_vote_reply(self, message: raft_pb2.RaftMessage) -> None:
        """A member voted for us (rule 9: once for each term)."""
        if message.term > self._group.term:
            self._group.core.raise_term(message.sender, message.term, self._group.now)
        elif (
            message.term == self._group.term
            and not self._group.suspended
            and self._votes.is_new(message.term, message.sender, self._group.rules)
        ):
            self._group.core.vote(message.sender, message.term, self._group.now)

    def on_pre_vote(self, message: raft_pb2.RaftMessage) -> None:
        """A member asks whether we would vote for it (rule 15)."""
        ask = message.pre_vote
        granted = (
            message.term > self._group.term
            and not self._group.suspended
            and not self._group.core.is_leader
            and self.timer.quiet(self._group.now)
            and log_is_current(
                ask.last_term, ask.last_index, self._group.journal.last_term, self._group.journal.last
            )
        )
        reply = self._group.envelope()
        reply.term = message.term if granted else self._group.term
        reply.pre_vote_reply.SetInParent()
        reply.pre_vote_reply.granted = granted
        self._group.post(message.sender, reply)

    def on_pre_vote_reply(self, message: raft_pb2.RaftMessage) -> None:
        """A member says whether it would vote for us."""
        if not message.pre_vote_reply.granted:
            self._group.core.raise_term(message.sender, message.term, self._group.now)
        elif (
            message.term == self._group.term + 1
            and not self._group.suspended
            and not self._group.core.is_leader
            and self.timer.pre_vote(message.sender, message.term)
        ):
            self._elect()

    def stand(self) -> None:
        """The election timer ran out (rule 15: ask first, raise the term only if a quorum agrees)."""
        if self._group.peers and not self._group.connected:
            self.timer.arm(self._group.now)
            return
        term = self._group.term + 1
        if not self._group.rules.pre_vote or self.timer.begin_pre_vote(term, self._group.now):
            self._elect()
            return
        for peer in self._group.peers:
            message = self._group.envelope()
            message.term, ask = term, message.pre_vote
            ask.last_index, ask.last_term = self._group.journal.last, self._group.journal.last_term
            self._group.post(peer, message)

    def _elect(self) -> None:
        self.elections += 1
        self.timer.arm(self._group.now)
        self._group.core.elect(self._group.now)
