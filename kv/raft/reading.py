"""How one replica proves what a read must see: rounds and the lease on a leader, questions to it elsewhere.

The decisions are in `read_index.py` (rounds), `lease.py` and `follower_reads.py`; here they meet the group:
probes and questions are posted, answers come in, and time passes. What a read then sees is the state
machine's business.

A proof says that a state at or above its index holds all that was acknowledged before it began. That stays
true for ever, whoever leads: so the newest proof is kept over terms and snapshots, and whoever uses it compares
its index with what is applied then. One that rests on a lease is not kept: its age would rest on two clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kv.internal.v1 import raft_pb2
from kv.raft.api import ReadProof
from kv.raft.follower_reads import FollowerReads
from kv.raft.lease import Lease, Sent, lease_allowed
from kv.raft.read_index import READS_WAITING_MAX, Done, ReadIndexQueue

if TYPE_CHECKING:
    from kv.raft.group import Group

LEASE_RENEWED_S: Final = 5.0
"""For so long after a read asked for a lease its leader goes on to renew it, in seconds."""
ELECTION_TIMEOUTS_OF_A_MUTANT: Final = 3
"""How many of the longest election timeouts a lease lasts where rule 22 is switched off."""


class Reading:
    """One group's reads, as this replica takes part in them."""

    def __init__(self, group: Group, rng: Callable[[], float]) -> None:
        config, rules = group.config, group.rules
        self._group = group
        self.queue = ReadIndexQueue(group.quorum)
        self.asking = FollowerReads(config.election_min_s, rng, matched=rules.answers_matched)
        self.lease_allowed = lease_allowed(config.lease_s, config.election_min_s, config.clock_drift_max)
        lease_s = (
            config.lease_s if rules.lease_bounded else ELECTION_TIMEOUTS_OF_A_MUTANT * config.election_max_s
        )
        self.lease = Lease(group.quorum, lease_s, on_sent=not rules.lease_confirmed)
        self.proof: ReadProof | None = None
        self._renew_every_s = min(config.heartbeat_s, config.lease_s / 3)
        self._last_probe_at = group.now
        self._renew_until: float | None = None
        self._asked: dict[str, int] = {}

    @property
    def idle(self) -> bool:
        """Whether no read waits for anything."""
        return self.queue.idle and self.asking.idle

    # ------------------------------------------------------------ reads in

    def read_index(self, done: Done, lease: bool) -> None:
        """Takes a read; see `GroupHandle.read_index`."""
        group = self._group
        if group.failure is not None or len(self.queue) + len(self.asking) >= READS_WAITING_MAX:
            done(None)
        elif not group.core.is_leader:
            self._ask(done)
        elif not (lease and self.lease_allowed) or not self._by_lease(done):
            self.queue.add(done)
            group.wake()

    def _by_lease(self, done: Done) -> bool:
        """Rule 22: answers from the lease; False if it does not hold now."""
        group = self._group
        # The time is taken here, after the read came. One from before, as that of the turn's beginning, could lie
        # in a lease that ended before the read began, and somebody else's write could lie between them.
        now = group.now
        self._renew_until = now + LEASE_RENEWED_S
        group.rest.learn()
        if not self.lease.valid(group.term, now) or not self._may_read():
            return False
        proof = ReadProof(group.commit_index, now, leased=True)
        if group.tracer is not None:
            group.tracer.note("lease", proof.index, "")
        if self._readable_index() >= proof.index:
            done(proof)
        else:
            self.queue.proved(proof, done)
            group.wake()
        return True

    def _ask(self, done: Done) -> None:
        leader = self._group.leader
        if leader is None or leader not in self._group.connected or self._group.installing:
            done(None)
            return
        self.asking.add(done)
        self._group.wake()

    # ------------------------------------------------------------ turns and time

    def serve(self) -> None:
        """The group's turn: begins what waits, answers what is proved and applied."""
        if self._group.core.is_leader and not self.queue.idle:
            self._serve_leader()
        elif not self.asking.idle:
            self._serve_follower()

    def _serve_leader(self) -> None:
        group, queue = self._group, self.queue
        if queue.can_begin and self._may_read():
            if group.rules.confirm_reads:
                self._begin_round()
            else:
                queue.skip_round(group.core.commit_index, group.now)
        for proof, done in queue.ready(self._readable_index()):
            done(proof)

    def _begin_round(self) -> None:
        group, now = self._group, self._group.now
        sequence = self.queue.begin(group.term, group.core.commit_index, now)
        if self.queue.open_sequence is None:  # the only member has confirmed itself
            self._learn(ReadProof(group.core.commit_index, now))
        else:
            self._send_probes(sequence)

    def _serve_follower(self) -> None:
        group, asking = self._group, self.asking
        if asking.can_begin:
            leader = group.leader
            if leader is None:
                _refuse(asking.drop())
                return
            self._send_question(asking.begin(group.term, leader, group.now).sequence, leader)
        for proof, done in asking.ready(self._readable_index()):
            done(proof)

    def _readable_index(self) -> int:
        """The index of the state that can be read now; below all others while there is none."""
        machine = self._group.machine
        return -1 if machine.checkpointing else machine.applied_index

    def follower_timer(self, now: float) -> bool:
        """Asks again, and gives up what was asked for too long; True if the group needs a turn."""
        asking = self.asking
        if asking.idle:
            return False
        _refuse(asking.expire(now))
        question = asking.due(now, self._group.config.heartbeat_s)
        if question is not None:
            self._send_question(question.sequence, question.leader)
        return not asking.idle

    def leader_timer(self, now: float) -> bool:
        """Probes again, and renews the lease while it is used; True if the group needs a turn."""
        since = now - self._last_probe_at
        if self.queue.open_sequence is not None:
            if since >= self._group.config.heartbeat_s:
                self._send_probes(self.queue.open_sequence)
        elif self._renew_until is not None and since >= self._renew_every_s and self._group.peers:
            if self._group.rest.resting:  # the beats renew it
                return not self.queue.idle
            if now < self._renew_until:
                self._send_probes(self.queue.take_sequence())
            else:
                self._renew_until = None
        return not self.queue.idle

    def _may_read(self) -> bool:
        """Rule 14: before the term's first commit a leader does not know what is committed."""
        group = self._group
        if not group.rules.reads_after_own_commit:
            return True
        return group.journal.term_at(group.core.commit_index) == group.term

    # ------------------------------------------------------------ probes

    def _send_probes(self, sequence: int) -> None:
        group = self._group
        self._last_probe_at = now = group.now
        index = group.core.commit_index
        self.lease.sent(Sent(sequence, now, index if self._may_read() else None))
        for peer in group.peers:
            message = group.envelope()
            message.probe.sequence = sequence
            group.post(peer, message)
            if group.tracer is not None:
                group.tracer.note("probed", index, peer)

    def on_probe_reply(self, message: raft_pb2.RaftMessage) -> None:
        """A member heard our probe (rule 14: in our term; rule 22: it holds its vote back)."""
        group, sequence = self._group, message.probe_reply.sequence
        if message.term > group.term:
            group.core.raise_term(message.sender, message.term, group.now)
            return
        if message.term == group.term and group.core.is_leader:
            if group.tracer is not None:
                group.tracer.note("confirmed", 0, message.sender)
            self.queue.confirm(message.sender, message.term, sequence)
            self.lease.confirm(message.sender, sequence)
            probe = self.lease.confirmed
            if probe is not None and probe.index is not None:
                self._learn(ReadProof(probe.index, probe.at))
        group.wants_turn = self.queue.proved_any  # else a round is open still, or only the lease was renewed

    # ------------------------------------------------------------ what beats prove of a group at rest

    def heard_by_quorum(self, at: float) -> None:
        """Leader: a quorum heard us after `at`, when the log was as it is, all of it committed in our own term."""
        index = self._group.core.commit_index
        self.lease.heard(Sent(0, at, index))
        self._learn(ReadProof(index, at))

    def heard_leader(self, asked_at: float) -> None:
        """Member: who led after `asked_at` had the log that we have, all of it committed."""
        self._learn(ReadProof(self._group.core.commit_index, asked_at))

    def _learn(self, proof: ReadProof) -> None:
        if self.proof is None or proof.began_at > self.proof.began_at:
            self.proof = proof

    # ------------------------------------------------------------ questions and answers

    def _send_question(self, sequence: int, leader: str) -> None:
        message = self._group.envelope()
        message.read_index_request.sequence = sequence
        self._group.post(leader, message)
        if self._group.tracer is not None:
            self._group.tracer.note("asked leader", 0, leader)

    def on_request(self, message: raft_pb2.RaftMessage) -> None:
        """A member asks for our read index. Of each one question is open, its newest."""
        group, peer, sequence = self._group, message.sender, message.read_index_request.sequence
        if message.term < group.term:
            if group.rules.terms:
                group.post_stale_term(peer)
            return
        group.core.raise_term(peer, message.term, group.now)
        if not group.core.is_leader or len(self.queue) >= READS_WAITING_MAX:
            self._post_answer(peer, sequence, None)
        elif sequence > self._asked.get(peer, -1):
            self._asked[peer] = sequence
            self.queue.add(lambda proof: self._answer(peer, sequence, proof))

    def _answer(self, peer: str, sequence: int, proof: ReadProof | None) -> None:
        if self._asked.get(peer) == sequence:  # else a newer question took its place, or its asker is gone
            del self._asked[peer]
            self._group.replication.tell_commit()  # the asker waits until it has applied what it is told of
            self._post_answer(peer, sequence, proof)

    def _post_answer(self, peer: str, sequence: int, proof: ReadProof | None) -> None:
        message = self._group.envelope()
        reply = message.read_index_reply
        reply.sequence = sequence
        if proof is not None:
            reply.index, reply.confirmed = proof.index, True
        self._group.post(peer, message)

    def on_reply(self, message: raft_pb2.RaftMessage) -> None:
        """Who was asked answers (rule 24: only to what is open, from whom it was asked, in this term)."""
        group, reply = self._group, message.read_index_reply
        if message.term > group.term:
            group.core.raise_term(message.sender, message.term, group.now)
        elif not reply.confirmed:
            _refuse(self.asking.refused(message.sender, message.term, reply.sequence))
        else:
            proof = self.asking.answered(message.sender, message.term, reply.sequence, reply.index)
            if proof is not None:
                self._learn(proof)
                if group.tracer is not None:
                    group.tracer.note("answered", proof.index, message.sender)

    # ------------------------------------------------------------ what ends reads

    def led(self) -> None:
        """The term or the role changed: no lease, and nothing that was asked or noted before holds."""
        self.lease.begin(self._group.term)
        self.drop()

    def drop(self) -> None:
        """Tells every read that waits that nothing was proved."""
        _refuse(self.queue.drop() + self.asking.drop())

    def connection_reset(self, peer: str) -> None:
        """Whoever asked may be another process now, and who was asked may be gone."""
        self._asked.pop(peer, None)
        question = self.asking.open
        if question is not None and question.leader == peer:
            _refuse(self.asking.drop())


def _refuse(reads: list[Done]) -> None:
    for done in reads:
        done(None)
