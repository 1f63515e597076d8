"""One replica of one Raft group: the guard around the core.

The path of a message can be read top to bottom: `receive` admits it and dispatches by
type, the handlers ask `guard.py` and tell the core, what the core sends comes back
through `_core_sends` and is posted into the outbox with the log record that must be
durable before it may leave. `settle` is the group's share of an engine turn: let the
core commit, apply what is committed AND durable, propose what waits, serve reads.

Ordering duties (design, section 4): a follower's entry is durable BEFORE it is
acknowledged (step 6: `_post(.., after=journal.seq)`); the leader counts its own copy only
when it is durable (step 7: `AckBook`); an entry is applied BEFORE it is answered (step 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from kv.config import RaftConfig
from kv.errors import DiskFull, KVError, NotLeader, ReplicaStopped, RequestTooLarge
from kv.internal.v1 import raft_pb2
from kv.raft.api import Entry, ReadProof, StateMachine, Tracer
from kv.raft.appends import Appends
from kv.raft.campaign import Campaign
from kv.raft.core import Core, Message
from kv.raft.guard import TERM_MAX, Contradiction, Rules
from kv.raft.host import Host
from kv.raft.install import Install
from kv.raft.journal import Journal
from kv.raft.outbox import Outbox, Outgoing
from kv.raft.reading import Reading
from kv.raft.replication import APPEND_BYTES_MAX, Replication
from kv.raft.rest import EVER_S, Rest
from kv.raft.transfers import Transfers
from kv.raft.view import View

APPLY_ENTRIES_MAX = 256
"""Entries applied in one go (rule 20): a turn stays short."""

log = structlog.get_logger(__name__)


class Group(View):
    """A replica; implements `GroupHandle`. Every call is on the loop's thread."""

    def __init__(
        self,
        *,
        group_id: int,
        epoch: int,
        me: str,
        members: Sequence[str],
        journal: Journal,
        machine: StateMachine,
        config: RaftConfig,
        host: Host,
        rng: Callable[[], float],
        now: float,
        rules: Rules | None = None,
    ) -> None:
        assert me in members, "a node that is no member must not run a replica"
        # At most 29 attributes: CPython gives an object with more a dictionary of its own, and each access takes longer.
        self.group_id, self.epoch, self.me = group_id, epoch, me
        self.peers = tuple(name for name in members if name != me)
        self.quorum = len(members) // 2 + 1
        self.journal, self.machine, self.config, self.rules = journal, machine, config, rules or Rules()
        self.outbox = Outbox(APPEND_BYTES_MAX)
        self.failure: str | None = None
        self.host = host
        self.tracer: Tracer | None = None
        self._traced_commit = 0
        self.connected: set[str] = set()
        self._led: tuple[bool, int] = (False, -1)
        self.suspended = False
        self.wants_turn = True
        """Whether what was received last asks for a turn; if not, at most an answer waits in the outbox."""
        self.campaign = Campaign(self, rng, now)
        self.appends = Appends(self)
        self.replication, self.transfers = Replication(self), Transfers(self)
        self.install = Install(self)
        self.reading = Reading(self, rng)
        self.rest = Rest(self)
        self.core = self._boot()
        machine.attach(self)
        self._handed_index = machine.applied_index
        self.log = log.bind(group=group_id, node=me)

    # ------------------------------------------------------------ the engine's calls

    @property
    def busy(self) -> bool:
        """Whether another turn is needed without any event: more is committed than was applied."""
        handed = self._handed_index
        if handed >= self.core.applied_index or self.failure is not None or self.machine.checkpointing:
            return False
        return handed < self._applicable()

    def receive(self, message: raft_pb2.RaftMessage, peer: str) -> None:
        """Takes a message that came over the connection of `peer`, and says in `wants_turn` what follows from it."""
        self.wants_turn = True
        if self.failure is not None or self.install.receiver is not None or not self._admits(message, peer):
            return
        if self.rest.resting and not self.rest.passes(message):
            self.rest.end()
        try:
            self._dispatch(message)
        except Contradiction as contradiction:
            self.stop(str(contradiction))
        self.notice_leadership()

    def settle(self, now: float) -> bool:
        """The group's share of a turn: commit, apply, propose, serve reads. True if it is `busy` then."""
        if self.failure is not None or self.install.receiver is not None:
            return self.busy
        core, machine = self.core, self.machine
        if self._tick_may_act(now):
            core.tick(now)
        self.notice_leadership()
        going = True
        if self._handed_index < core.applied_index or machine.failure is not None:
            going = self._apply()
        if going and not self.suspended:
            machine.pump()
            if self._handed_index < core.applied_index or machine.failure is not None:
                self._apply()
        machine.maybe_checkpoint(now)
        self.reading.serve()
        return self._handed_index < self.core.applied_index and self.busy

    def _tick_may_act(self, now: float) -> bool:
        """Whether a tick of the core could do anything.

        Besides committing and marking as applicable, a leader's tick sends and looks at its quorum. Time alone
        makes those due, a heartbeat after the last append, however many acknowledgements came meanwhile.
        """
        core = self.core
        committed = core.commit_index
        if committed > core.applied_index:
            return True
        may_commit = core.has_news and committed < self.journal.last
        return core.is_leader and not self.rest.resting and (may_commit or self._heartbeat_due(now))

    def _heartbeat_due(self, now: float) -> bool:
        return now - self.replication.last_append_at >= self.config.heartbeat_s

    def synced(self) -> bool:
        """A sync of the log ended: what it made durable counts now. True if the group needs a turn for it.

        It mostly does not: a member has acknowledged, and a leader waits for its members.
        """
        if self.failure is not None:
            return False
        if self.install.receiver is not None:
            self.install.after_sync(self.install.receiver)
            return True
        if self.tracer is not None:
            self.tracer.note("synced", self.journal.durable_index, "")
        self.replication.after_sync()
        return self.busy or self._tick_may_act(self.now) or self.machine.overdue(EVER_S)

    def reminded(self) -> float:
        """The delay of `Host.remind` is over; returns for how many seconds more to wait, 0 for not at all."""
        if self.failure is not None or self.install.receiver is not None:
            return 0.0
        return self.replication.reminded()

    def timer(self, now: float) -> bool:
        """Looks at what time alone decides; True if the group needs a turn."""
        if self.failure is not None or self.install.receiver is not None:
            return False
        if self.transfers.senders:
            self.transfers.check()
        if self.rest.resting:
            return self._timer_at_rest(now)
        if self.core.is_leader:
            return self._leader_timer(now)
        if self.campaign.timer.due(now) and not self.suspended:
            self.campaign.stand()
            return True
        return self.reading.follower_timer(now) or self.machine.overdue(now)

    def connection(self, peer: str, up: bool) -> None:
        """The connection to a peer came or went; whatever was in flight may be lost."""
        if peer not in self.peers or self.failure is not None:
            return
        if self.core.is_leader or peer == self.core.leader:
            self.rest.end()
        self.connected.add(peer) if up else self.connected.discard(peer)
        self.replication.connection_reset(peer)
        self.transfers.connection_reset(peer)
        self.reading.connection_reset(peer)
        self.outbox.forget(peer)
        self.core.connection(peer, up)

    def suspend(self, suspended: bool, now: float) -> None:
        """The log cannot be written (or can again): lead nothing, promise nothing, keep answering reads."""
        if suspended:
            self.rest.end()
        if suspended and not self.suspended and self.is_leader:
            self.core.raise_term(self.me, self.term + 1, now)
            self.notice_leadership()
        if self.suspended and not suspended:
            self.campaign.timer.arm(now)
        self.suspended = suspended

    def stop(self, reason: str) -> None:
        """Stops this replica for good; the process and its other groups go on."""
        if self.failure is not None:
            return
        self.rest.end()
        self.failure = reason
        self.log.error("replica stopped", reason=reason)
        self.reading.drop()
        self.transfers.stop()
        self.outbox.clear()
        self.machine.leadership(False, self.core.term)
        self.machine.reset_pending(ReplicaStopped(reason))

    # ------------------------------------------------------------ GroupHandle: the state machine's calls

    def propose(self, data: bytes, *, more: bool = False) -> int:
        """Appends a command to the leader's log and returns its index; see `GroupHandle.propose`."""
        self._check_proposal(data)
        self.rest.end()
        self.rest.active()
        index = self.journal.last + 1
        if more:
            self.core.hold(data)
        else:
            self.core.propose(data, self.now)
            self.notice_leadership()
        if self.journal.last < index or self.journal.entry(index)[0] is not data:
            raise self.not_leader()  # it stepped down in that very tick, and dropped the command
        if self.tracer is not None:
            self.tracer.note("appended", index, "")
        return index

    def read_index(self, done: Callable[[ReadProof | None], None], *, lease: bool = False) -> None:
        """Gets proof of how far a linearizable read must see; see `GroupHandle.read_index`."""
        self.reading.read_index(done, lease)

    def trace(self, tracer: Tracer | None) -> None:
        """Tells `tracer` what happens from now on; None: nobody any more."""
        self.tracer = tracer
        self._traced_commit = self.commit_index

    def wake(self) -> None:
        """Asks for a turn."""
        self.host.wake(self)

    def compact(self, index: int) -> None:
        """Lets the log drop what lies below `index - 1` (rule 11)."""
        if self.rules.compact_below_checkpoint:
            assert index <= self.machine.checkpoint_index, "the log must keep what is not checkpointed"
        held = self.transfers.held_index()
        index = min(index, self.core.applied_index, index if held is None else held)
        if index - 1 > self.journal.first:
            self.journal.compact_to(index)

    def entries(self, first: int, last: int) -> list[Entry]:
        """Committed entries first..last with their data."""
        journal = self.journal
        return [(journal.data(i), i, journal.entry(i)[2]) for i in range(first, last + 1)]

    # ------------------------------------------------------------ messages in

    def _admits(self, message: raft_pb2.RaftMessage, peer: str) -> bool:
        """Rule 1: the right group, epoch and sender, and the sender a member."""
        if not self.rules.envelope:
            return True
        return (
            message.group == self.group_id
            and message.epoch == self.epoch
            and message.sender == peer
            and peer in self.peers
            and message.term <= TERM_MAX
        )

    def _dispatch(self, message: raft_pb2.RaftMessage) -> None:  # noqa: C901, PLR0912 - a flat match, one line a type
        match message.WhichOneof("body"):
            case "append":
                self.appends.on_append(message)
            case "append_reply":
                self.replication.on_append_reply(message)
            case "probe":
                self._on_probe(message)
            case "probe_reply":
                self.reading.on_probe_reply(message)
            case "vote":
                self.campaign.on_vote(message)
            case "vote_reply":
                self.campaign.on_vote_reply(message)
            case "pre_vote":
                self.campaign.on_pre_vote(message)
            case "pre_vote_reply":
                self.campaign.on_pre_vote_reply(message)
            case "read_index_request":
                self.reading.on_request(message)
            case "read_index_reply":
                self.reading.on_reply(message)
            case "stale_term":
                self.core.raise_term(message.sender, message.term, self.now)
            case "snapshot_chunk":
                self.transfers.on_chunk(message)
            case "snapshot_reply":
                self.transfers.on_reply(message)
            case unknown:  # a newer peer's message: Raft tolerates its loss
                self.log.warning("unknown raft message dropped", body=unknown, peer=message.sender)

    def is_from_leader(self, message: raft_pb2.RaftMessage) -> bool:
        """Rule 2 for what only a leader sends: lower terms are answered with ours."""
        term = self.core.term
        if message.term < term:
            if self.rules.terms:
                self.post_stale_term(message.sender)
            return False
        if self.core.is_leader and message.term == term:
            raise Contradiction(f"{message.sender} also leads term {message.term}")
        self.campaign.timer.heard_leader(self.now)
        return True

    def _on_probe(self, message: raft_pb2.RaftMessage) -> None:
        if self.is_from_leader(message):
            # In our own term nothing changes but the time at which the leader was heard.
            self.wants_turn = message.term > self.core.term
            self.core.raise_term(message.sender, message.term, self.now)
            reply = self.envelope()
            reply.probe_reply.sequence = message.probe.sequence
            self.post(message.sender, reply)

    def post_stale_term(self, peer: str) -> None:
        """Tells a member of a lower term of ours (rule 2)."""
        message = self.envelope()
        message.stale_term.SetInParent()
        self.post(peer, message)

    # ------------------------------------------------------------ messages out

    def _core_sends(self, peer: str, message: Message) -> None:
        """What the core sends, by its own names; the commands it would forward are dropped."""
        match message["type"]:
            case "append_entries":
                self.replication.send_append(peer, message)
            case "next_node_idx":
                self.appends.send_reply(peer, message)
            case "request_vote":
                self.campaign.send_vote(peer, message)
            case "response_vote":
                self.campaign.send_vote_reply(peer)
            case "apply_command" | "apply_command_response":
                pass  # never forwarded: the state machine answers NOT_LEADER with a hint
            case unknown:
                raise AssertionError(f"the core sends {unknown!r}, which this version should not")

    def envelope(self) -> raft_pb2.RaftMessage:
        """A message of this member in its term, without a body.

        Its fields are set one by one: protobuf takes half as long for that as for a body that is made apart.
        """
        message = raft_pb2.RaftMessage()
        message.group, message.epoch, message.sender = self.group_id, self.epoch, self.me
        message.term = self.core.term
        return message

    def post(
        self,
        peer: str,
        message: raft_pb2.RaftMessage,
        *,
        after: int | None = None,
        size: int = 0,
        bulk: bool = False,
        entries: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        """Puts a message into the outbox, to leave once the log record `after` is durable (rule 7).

        Without `after`, that of term and vote. `entries`: of an append, which is without them; `size`: their bytes.
        """
        durable = self.journal.hard_state_seq if after is None else after
        self.outbox.post(
            Outgoing(durable if self.rules.durable_before_sent else 0, peer, message, bulk, entries), size
        )

    def _timer_at_rest(self, now: float) -> bool:
        waits = self.reading.leader_timer if self.core.is_leader else self.reading.follower_timer
        return waits(now) or self.machine.overdue(now)

    def _leader_timer(self, now: float) -> bool:
        heartbeat_due = self._heartbeat_due(now)
        return self.reading.leader_timer(now) or heartbeat_due

    def notice_leadership(self) -> None:
        """Tells the parts and the state machine if leadership or the term changed since the last call."""
        core, led = self.core, self._led
        if core.is_leader is not led[0] or core.term != led[1]:
            self._leadership_changed(core.is_leader, core.term)

    def _leadership_changed(self, is_leader: bool, term: int) -> None:
        (was_leader, _), self._led = self._led, (is_leader, term)
        self.reading.led()
        self.rest.active()
        if is_leader and not was_leader:
            self.log.info("leads", term=term)
        if was_leader:  # another term begins, if it leads still
            self._lost_leadership()
        if is_leader or was_leader:
            self.machine.leadership(is_leader, term)

    def _lost_leadership(self) -> None:
        self.transfers.end_all()
        self.campaign.timer.arm(self.now)

    # ------------------------------------------------------------ applying and reading

    def _applicable(self) -> int:
        applied = self.core.applied_index
        return min(applied, self.journal.durable_index) if self.rules.apply_durable else applied

    def _trace_commit(self, tracer: Tracer) -> None:
        if self.commit_index > self._traced_commit:
            self._traced_commit = self.commit_index
            tracer.note("committed", self._traced_commit, "")

    def _apply(self) -> bool:
        """Applies what is committed and on this disk, a bounded number of entries; False if it stopped us.

        Each entry is handed on once: `machine.applied_index` falls back while the store is full.
        """
        machine = self.machine
        if self.tracer is not None:
            self._trace_commit(self.tracer)
        first = self._handed_index + 1
        last = min(self._applicable(), first + APPLY_ENTRIES_MAX - 1)
        if first <= last and not machine.checkpointing:
            self._handed_index = last
            machine.apply([(self.data(i), i, self.journal.entry(i)[2]) for i in range(first, last + 1)])
            if self.tracer is not None:
                self.tracer.note("applied", machine.applied_index, "")
        if machine.failure is not None:
            self.stop(machine.failure)
        return self.failure is None

    def data(self, index: int) -> bytes:
        """The entry's data; one byte is a no-op, or the placeholder of data that left the cache."""
        data = self.journal.entry(index)[0]
        return self.journal.data(index) if len(data) == 1 else data

    def _check_proposal(self, data: bytes) -> None:
        if self.failure is not None:
            raise ReplicaStopped(self.failure)
        if self.suspended:
            raise DiskFull("the log has no room on this node: free space; the cluster goes on elsewhere")
        if self.rules.entry_limits and len(data) > self.entry_bytes_max:
            raise RequestTooLarge(f"a log entry has at most {self.entry_bytes_max} bytes")
        if not self.core.is_leader:
            raise self.not_leader()

    def not_leader(self) -> KVError:
        """The refusal that names the leader, if it is known."""
        return NotLeader(
            f"{self.me} does not lead partition {self.group_id}",
            metadata={"leader": self.leader or "", "partition": str(self.group_id)},
        )

    # ------------------------------------------------------------ the core

    def restart_core(self, handed_index: int) -> None:
        """Starts a fresh core on the journal's head; the state machine has got all up to `handed_index`."""
        self._handed_index = handed_index
        self.core.destroy()
        self.core = self._boot()
        for peer in sorted(self.connected):
            self.core.connection(peer, True)

    def _boot(self) -> Core:
        """A core that stands on the journal's head (rule 8: commits begin at the snapshot)."""
        return Core(
            self.me,
            self.peers,
            self.journal,
            self._core_sends,
            heartbeat_s=self.config.heartbeat_s,
            leader_fallback_s=self.config.leader_fallback_s,
            commit_index=self.journal.base if self.rules.commit_from_snapshot else self.journal.last,
            now=self.now,
        )
