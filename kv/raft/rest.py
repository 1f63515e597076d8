"""How one replica rests: when it may, what passes by without waking it, and what it is told when it wakes.

A group at rest sends no heartbeats and has no timer of its own: the beats of its leader's node stand for them
(`beats.py`, `pulse.py`). Nothing of its Raft state changes while it rests; whatever would change any of it ends the rest
first. What a replica would have learnt from heartbeats, it is told when it wakes or is asked: when the leader
was heard (timer), who answered when (core, lease, proofs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kv.internal.v1 import raft_pb2
from kv.raft.beats import BeatListener, BeatSender, Line

if TYPE_CHECKING:
    from kv.raft.group import Group

REST_AFTER_HEARTBEATS: Final = 2
"""A leader whose group did nothing for so long puts it to rest."""
EVER_S: Final = 1e18
"""Later than any deadline: who is not overdue even then waits for nothing that time decides."""
_PAIR: Final = 2
"""A quorum of this size is a leader and the member that heard it."""
_PASS_BY: Final = frozenset({"probe", "probe_reply", "read_index_request", "read_index_reply"})
"""What concerns reads, and in its own term changes nothing else."""


class Rest:
    """One group's rest, as this replica takes part in it. Times: own clock, seconds."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.allowed = True
        """Off only where a test holds each message in its own hand."""
        self.resting = False
        self._senders: Mapping[str, BeatSender] = {}
        self._listener: BeatListener | None = None
        self._after_s = REST_AFTER_HEARTBEATS * group.config.heartbeat_s
        self._active_at = group.now

    def active(self) -> None:
        """Something happened in the group: a leader does not put it to rest soon."""
        self._active_at = self._group.now

    @property
    def line(self) -> Line:
        """What this replica holds."""
        group = self._group
        return Line(group.group_id, group.epoch, group.core.term, group.journal.last)

    # ------------------------------------------------------------ going to rest

    def due(self, now: float, durable_seq: int) -> bool:
        """Leader: whether the group should go to rest: nothing happens, and who can be reached has all there is.

        A member that cannot be reached sleeps through it: its connection, when it comes, wakes the leader.
        """
        group = self._group
        return (
            now - self._active_at >= self._after_s
            and self.allowed
            and not self.resting
            and group.is_leader
            and len(group.connected) + 1 >= group.quorum
            and self._is_settled(durable_seq)
            and group.connected.isdisjoint(group.behind(group.journal.last))
        )

    def _is_settled(self, durable_seq: int) -> bool:
        """Whether nothing is under way here: the log ends in its own term, committed, applied and durable."""
        group, core, journal = self._group, self._group.core, self._group.journal
        last = journal.last
        return (
            core.commit_index == last
            and core.applied_index == last
            and group.machine.applied_index == last
            and journal.last_term == core.term
            and journal.seq <= durable_seq
            and not group.suspended
            and not group.installing
            and group.failure is None
            and group.transfers.idle
        )

    def lead(self, senders: Mapping[str, BeatSender]) -> None:
        """The leader rests; the beats of these senders stand for its heartbeats."""
        assert not self.resting
        self.resting, self._senders = True, senders

    def follow(self, line: Line, leader: str, listener: BeatListener, durable_seq: int) -> bool:
        """A beat of the leader's node names this group: rests, or False if we do not hold what it says (rule 25)."""
        group = self._group
        if not self.allowed or self.resting or group.failure is not None or group.core.is_leader:
            return False
        agrees = group.core.leader == leader and line == self.line and self._is_settled(durable_seq)
        if not agrees and group.rules.rest_checked:
            return False
        self.resting, self._listener = True, listener
        group.campaign.timer.rest(listener)
        return True

    # ------------------------------------------------------------ at rest

    @property
    def dozing(self) -> bool:
        """Whether time alone decides nothing here: it rests, and nobody waits for a read."""
        group = self._group
        return self.resting and group.reading.idle and not group.machine.overdue(EVER_S)

    def passes(self, message: raft_pb2.RaftMessage) -> bool:
        """Whether a message leaves the core as it is, so that it need not wake the group."""
        body = message.WhichOneof("body")
        return body == "pre_vote" or (body in _PASS_BY and message.term == self._group.core.term)

    def learn(self) -> None:
        """Takes note, for reads, of what the beats have proved until now."""
        if not self.resting:
            return
        group = self._group
        if self._listener is not None:
            self._learn_here(self._listener)
        elif group.quorum > 1:
            proved = (sender.proved(group.group_id) for sender in self._senders.values())
            at = sorted((beat.at for beat in proved if beat is not None), reverse=True)
            if len(at) >= group.quorum - 1:
                group.reading.heard_by_quorum(at[group.quorum - _PAIR])

    def _learn_here(self, listener: BeatListener) -> None:
        """A leader that sent a beat after our answer led then, if we two are a quorum: nobody else can have."""
        if listener.proved_at is not None and self._group.quorum <= _PAIR:
            self._group.reading.heard_leader(listener.proved_at)

    # ------------------------------------------------------------ waking

    def end(self) -> None:
        """Wakes, if it rests: timer and core learn what heartbeats would have told them (rule 27)."""
        if not self.resting:
            return
        group, follows = self._group, self._listener is not None
        self.learn()
        senders, number = self._senders.items(), group.group_id
        answered = [(peer, one.answered_at) for peer, one in senders if one.proved(number) is not None]
        self.resting, self._senders, self._listener = False, {}, None
        self.active()
        group.host.roused(group)
        if follows:
            group.campaign.timer.wake(remember=group.rules.rest_remembered)
        for peer, at in answered:
            group.core.acknowledged(peer, group.journal.last + 1, at)
