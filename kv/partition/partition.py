"""One node's copy of one partition: the shell around the state machine.

Steps 4, 8 and 9 of the path of a write: check limits and ownership, join what waits into one
command, apply it in log order, answer with the evidence. Here live the order of these steps and
the fate of each request; what a command means is in `machine`, what the disk holds in `store`, who
leads in the Raft floor. No asyncio, clock or randomness: the engine calls, and passes the time.

Rules that the order of the code keeps:

- Applied before replied: a reply is given after the whole entry was applied.
- A reply is definite only if the fate is known: a request not proposed yet, or one whose index was
  taken by an entry of another term, did not happen and will not; any other lost proposal is unknown.
- A checkpoint never overtakes the local log: an entry can be committed by the others before it is
  on disk here, and a store ahead of its log could not tell which log it belongs to.
- While a checkpoint waits for the disk the log goes on, and the state stands: no entry is handed in, and reads
  wait for its end. A read that is answered at once waits here, on the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

import structlog

from kv.config import PartitionConfig
from kv.errors import (
    DiskFull,
    KVError,
    NotLeader,
    ReplicaStopped,
    RequestTooLarge,
    Unavailable,
    WrongPartition,
)
from kv.partition.answers import Answers
from kv.partition.batch import Batch, decode_again, decode_batch
from kv.partition.checkpoint import Checkpoint
from kv.partition.command import decode_command, encode_command
from kv.partition.evidence import Witness
from kv.partition.limits import checkpoint_limits, session_limits
from kv.partition.machine import Outcome, apply_command
from kv.partition.options import PLAIN
from kv.partition.policy import CheckpointPolicy, ReplayBudget
from kv.partition.proposals import Proposal, Proposals
from kv.partition.queue import BATCH_FRAME_BYTES, COMMAND_FRAME_BYTES, Reply, Request, RequestQueue
from kv.partition.reads import Reads
from kv.partition.scan_snapshots import RememberingView
from kv.partition.session import SessionTable
from kv.partition.snapshot import FileSink, FileSource
from kv.partition.status import status_of
from kv.partition.store import ContentHash, Store, StoreFull
from kv.partition.writer import nothing
from kv.raft.api import ENTRY_PREFIX, Entry, GroupHandle, SnapshotSink
from kv.v1 import cluster_pb2, kv_pb2

CATCH_UP_ENTRIES: Final = 256
"""Entries read from the log at once when the state is rebuilt from its checkpoint."""

RELEASE_OPERATIONS_MIN: Final = 1000
"""Applied since the store gave memory back: fewer cannot have made it hold much."""

STORE_RETRY_S: Final = 1.0
"""Pause between two attempts to write a store that was full."""

_source_numbers = count(1)
"""They tell the copies apart that a replica makes at the same time; each replica has a directory of its own."""

_log = structlog.get_logger(__name__)


class Replica:
    """A `kv.raft.api.StateMachine` that answers requests. All methods on the loop thread."""

    def __init__(
        self,
        store: Store,
        *,
        node: str,
        config: PartitionConfig,
        log_retain_entries: int,
        log_retain_bytes: int,
        owns: Callable[[bytes], bool],
        map_epoch: Callable[[], int],
        wall_ms: Callable[[], int],
        budget: ReplayBudget | None = None,
    ) -> None:
        """`owns` says whether a key hashes into the partition; `wall_ms` is the wall clock since 1970.

        `budget` is shared by the replicas of a node; None: this one is alone.
        """
        # At most 25 attributes, as in `kv.raft.group`: the simulator puts four more in.
        self.partition_id = store.group_id
        self.failure: str | None = None
        self.store_full = False
        self.operations_applied = 0
        self.checkpoints_made = 0
        self._store = store
        self._node = node
        self._config = config
        self._owns = owns
        self._map_epoch = map_epoch
        self._wall_ms = wall_ms
        self.raft: GroupHandle
        """The group: from `attach` on, and before it nothing is called but what closes."""
        self._ended: ReplicaStopped | None = None
        self._queue = RequestQueue(config.pending_requests_max, config.pending_bytes_max)
        self._proposals = Proposals()
        witness = Witness(self.partition_id, node, map_epoch)
        self._answers = Answers(self, self._queue, witness, node, config.all_write_timeout_s)
        self._reads = Reads(self, store, config, node, self._queue, witness, self._answers.answer)
        self._snapshots = self._reads.snapshots
        self._sessions = SessionTable(session_limits(config))
        self._policy = CheckpointPolicy(
            checkpoint_limits(config, log_retain_entries, log_retain_bytes),
            budget or ReplayBudget(config.checkpoint_ops_max),
        )
        self._proposed_time_ms = 0
        self._store_retry_at = 0.0
        self._released_operations = 0
        self._at = store.last
        self._load()
        self._handed_index = self.applied_index

    # --- what others see ---------------------------------------------------------------------------

    @property
    def applied_index(self) -> int:
        """The index of the last applied entry. Falls back to `checkpoint_index` while `store_full`."""
        return self._at.applied_index

    @property
    def checkpoint_index(self) -> int:
        """The applied index that would survive a crash now."""
        return self._store.last.applied_index

    @property
    def checkpointing(self) -> bool:
        """Whether a checkpoint waits for the disk: nothing can be applied or read until it has ended."""
        return self._store.checkpointing

    @property
    def stopped_because(self) -> str | None:
        """Why this replica has stopped, by its own failure or that of its group; None while it works."""
        if self.failure is not None or self._ended is None:
            return self.failure
        return self._ended.message

    @property
    def is_leader(self) -> bool:
        """Whether this replica leads and works."""
        return self.failure is None and self.raft.is_leader

    @property
    def leader(self) -> str | None:
        """The node id of the leader, if known."""
        return self.raft.leader

    @property
    def term(self) -> int:
        """The current Raft term of this replica."""
        return self.raft.term

    def status(self) -> cluster_pb2.ReplicaStatus:
        """Return the state of this replica, for people."""
        return status_of(self, self._store.keys, len(self._sessions))

    def content_hasher(self) -> Callable[[], ContentHash]:
        """Make a checkpoint and return a function for a worker thread that hashes it (blocking).

        Raises `Unavailable` while no checkpoint can be made.
        """
        self._finish_checkpoint()
        self.guarded(self._checkpoint_now)
        if self.failure is not None or self.checkpoint_index != self.applied_index:
            raise Unavailable("the replica cannot make a checkpoint at the moment")
        return self._store.content_hash

    def close(self) -> None:
        """Make a last checkpoint if possible and close the store. The replica is not used afterwards."""
        if hasattr(self, "raft"):
            self._finish_checkpoint()
            self.guarded(self._checkpoint_now)
        self._store.close()

    def abandon(self) -> None:
        """Close the store as a crash would leave it: at its last checkpoint."""
        self._store.close()

    # --- requests ------------------------------------------------------------------------------------

    def submit(self, raw: bytes, reply: Reply) -> None:
        """Take one serialized `kv.v1.BatchRequest`; `reply` is called once, perhaps before this returns."""
        try:
            # who does not lead refuses most of it, and is asked again while there is no leader
            batch = decode_batch(raw) if self.raft.is_leader else decode_again(raw)
        except KVError as error:
            reply(error)
            return
        refusal = self._refusal(raw, batch)
        if refusal is not None:
            reply(refusal)
            return
        request = Request(raw, batch, reply)
        outcome = None
        if batch.options is not PLAIN or batch.level > kv_pb2.READ_LEVEL_LINEARIZABLE:
            self._answers.begin(request)
            outcome = None if batch.writes else self._at_once(batch)
        if outcome is None:
            outcome = self._ended or self._queue.admit(request)
        if outcome is None:
            self.raft.wake()
        else:
            self._answers.reply(request, outcome)

    def pump(self) -> None:
        """Join what waits into commands and propose them."""
        if self._queue.writes or self._queue.reads:
            self.guarded(self._pump)

    def leadership(self, is_leader: bool, term: int) -> None:
        """Tell of a change: what was not proposed cannot be any more."""
        _log.debug("leadership", partition=self.partition_id, is_leader=is_leader, term=term)
        if not is_leader:
            waiting = self._queue.take_of_leader(self._reads.needs_no_leadership)
            self._answers.refused(waiting, self.not_leader())
            self._answers.release()

    def reset_pending(self, why: KVError) -> None:
        """Answer all requests: the proposed ones UNKNOWN_OUTCOME, the applied ones as what they are, the others with `why`."""
        self._forget_proposals()
        if isinstance(why, ReplicaStopped):
            self._ended = why  # the group gets no turn any more: whatever waited for one would wait for ever
        self._answers.give_up()
        self._answers.refused((*self._reads.take_all(), *self._queue.take_all()), why)

    def _refusal(self, raw: bytes, batch: Batch) -> KVError | None:
        """Return why the request is refused at the door: each reason is definite."""
        if self.failure is not None:
            return self._stopped()
        if not all(map(self._owns, batch.keys())):
            return WrongPartition(
                f"partition {self.partition_id} does not own all keys of the batch",
                metadata={"map_epoch": self._map_epoch(), "partition": self.partition_id},
            )
        return self._refusal_of_write(raw) if batch.writes else self._reads.refusal(batch)

    def _refusal_of_write(self, raw: bytes) -> KVError | None:
        if not self.raft.is_leader:
            return self.not_leader()
        if self.store_full:
            return DiskFull(f"the store of partition {self.partition_id} has no room")
        if len(raw) + BATCH_FRAME_BYTES + COMMAND_FRAME_BYTES > self.raft.entry_bytes_max:
            return RequestTooLarge(
                f"the batch does not fit into a log entry of {self.raft.entry_bytes_max} bytes"
            )
        return None

    def _pump(self) -> None:
        self._reads.pump()
        while self._queue.writes and (room := self._commands_room()) > 0:
            self._propose(room)

    def _commands_room(self) -> int:
        """How many commands more may be under way."""
        return self._config.commands_in_flight_max - self._proposals.in_flight(self.raft.term)

    def _propose(self, room: int) -> None:
        limit = min(self._config.command_bytes_max, self.raft.entry_bytes_max)
        requests = self._queue.take_command(limit)
        more = room > 1 and bool(self._queue.writes)
        time_ms = max(self._at.time_ms, self._proposed_time_ms, self._wall_ms())
        try:
            index = self.raft.propose(
                encode_command(time_ms, [request.raw for request in requests]), more=more
            )
        except KVError as error:
            self._answers.refused(requests, error)
            return
        assert index > self.applied_index, "propose returns before the entry is applied"
        self._proposed_time_ms = time_ms
        self._proposals.add(index, Proposal(self.raft.term, time_ms, requests))
        self._answers.appended(requests, index)

    def _at_once(self, batch: Batch) -> Outcome | None:
        """Answer a read that waits for nothing; None if it has to wait."""
        self._finish_checkpoint()
        return self._read_now(lambda: self._reads.at_once(batch))

    def _read_stale(self, request: Request) -> Outcome:
        return self._read_now(lambda: self._reads.stale(request.batch)) or self._stopped()

    def _read_now(self, read: Callable[[], Outcome | None]) -> Outcome | None:
        outcomes: list[Outcome | None] = []
        self.guarded(lambda: outcomes.append(read()))
        return outcomes[0] if outcomes else self._stopped()

    # --- the log -----------------------------------------------------------------------------------

    def attach(self, group: GroupHandle) -> None:
        """Bind to the group; called once, before anything else."""
        assert not hasattr(self, "raft")
        assert group.group_id == self.partition_id
        self.raft = group

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries, contiguous with those of the call before. Never raises.

        While `store_full` they are only noted, and fetched from the log later.
        """
        if entries:
            self.guarded(lambda: self._take_committed(entries))

    def maybe_checkpoint(self, now: float) -> None:
        """Make a checkpoint if one is due; retry a full store; end what waited long enough. `now`: seconds, monotonic."""
        if self._queue.reads:  # here too: a replica whose log is full is not pumped, and still reads
            self.guarded(self._reads.pump)
        if self._reads.behind or self._snapshots.opened:  # looked at here: each turn of each group comes by
            self._reads.tick(now)
        if self._answers.held.waiting:
            self._answers.tick(now)
        if self.store_full:
            if now >= self._store_retry_at:
                self._store_retry_at = now + STORE_RETRY_S
                self.guarded(self._recover)
        elif not self.checkpointing and self._policy.due(now):
            self.guarded(lambda: self._begin_checkpoint(self._checkpoint_is_durable))

    def overdue(self, now: float) -> bool:
        """Whether a read has waited long enough for its index, or a write at level ALL for the last replica."""
        waiting = self._reads.behind or self._answers.held.waiting
        return bool(waiting) and (self._reads.overdue(now) or self._answers.overdue(now))

    def _take_committed(self, entries: Sequence[Entry]) -> None:
        assert entries[0][1] == self._handed_index + 1, "entries come in order, each once"
        self._handed_index = entries[-1][1]
        if not self.store_full:
            self._apply(entries)

    def _apply(self, entries: Sequence[Entry]) -> None:
        for data, index, term in entries:
            self._apply_entry(data, index, term)
        self._reads.applied()
        if self._queue.writes and self._commands_room() > 0:
            self.raft.wake()

    def _apply_entry(self, data: bytes, index: int, term: int) -> None:
        assert index == self.applied_index + 1, f"entry {index} after {self.applied_index}"
        assert data[:1] == ENTRY_PREFIX, "an entry begins with its prefix"
        ours = self._proposals.find(index, term)
        if ours is None:
            time_ms, batches = decode_command(data)
        else:
            time_ms, batches = ours.time_ms, [request.batch for request in ours.requests]
        # the new leader's clock may be behind the old one's: time stands still, it never goes back
        time_ms = max(self._at.time_ms, time_ms)
        state = RememberingView(self._store, self._snapshots) if self._snapshots.opened else self._store
        outcomes = apply_command(state, self._sessions, index, time_ms, batches)
        self._at = Checkpoint(self.partition_id, index, term, self._at.term, time_ms)
        operations = sum([batch.count for batch in batches])
        self.operations_applied += operations
        self._policy.applied(len(data), operations)
        # not before: a store that is full undoes the entry, which is applied again later
        for proposal in self._proposals.decided(index):
            if proposal is ours:
                self._answers.applied(proposal.requests, outcomes, index, term)
            else:
                self._lose(proposal)

    def _lose(self, proposal: Proposal) -> None:
        """Answer a proposal whose index another committed entry took: it did not happen and will not."""
        self._answers.refused(proposal.requests, self.not_leader())

    def _forget_proposals(self) -> None:
        for index, proposal in self._proposals.take_all():
            self._answers.lost(proposal.requests, index)

    # --- checkpoint, rollback, failure ----------------------------------------------------------------

    def _load(self) -> None:
        """Take the position and the sessions of the last checkpoint."""
        self._at = self._store.last
        self._sessions.load(self._store.sessions())

    def _begin_checkpoint(self, then: Callable[[], None]) -> None:
        """Begin a checkpoint, unless the log has to come first or there is nothing new; `then` is called when it can end."""
        if self.raft.durable_index < self.applied_index or self.applied_index == self.checkpoint_index:
            return
        at = self._at._replace(keys=self._store.keys)
        self._policy.begun()
        self._store.begin_checkpoint(at, self._sessions.take_changes(), then)

    def _checkpoint_is_durable(self) -> None:
        if self._store.checkpointed:  # else it was ended by whoever could not wait
            self._finish_checkpoint()

    def _finish_checkpoint(self) -> None:
        """End a checkpoint that was begun, if there is one (blocking), and go on."""
        if self.checkpointing and self.failure is None:
            calm = not self._policy.large()
            self.guarded(self._end_checkpoint)
            if calm:
                self.guarded(self._release_memory)
            self.raft.wake()

    def _end_checkpoint(self) -> None:
        self._policy.ended()
        self._store.end_checkpoint()
        self.checkpoints_made += 1
        target = self._policy.checkpointed(self.applied_index)
        if target > self.raft.first_index + 1:
            self.raft.compact(target)

    def _checkpoint_now(self) -> None:
        """Make a checkpoint and wait for it (blocking)."""
        self._begin_checkpoint(nothing)
        if self.checkpointing:
            self._end_checkpoint()

    def _release_memory(self) -> None:
        """Under load the store would take it again at once, so this is for a replica whose checkpoint was due by time."""
        clean = self.checkpoint_index == self.applied_index
        if clean and self.operations_applied - self._released_operations >= RELEASE_OPERATIONS_MIN:
            self._released_operations = self.operations_applied
            self._store.release_memory()

    def guarded(self, step: Callable[[], None]) -> None:
        """Run `step`. The one place where a failure is caught: it stops this replica, and nothing else."""
        if self.failure is not None:
            return
        try:
            try:
                step()
            except StoreFull as error:
                self.store_full = True
                if self._return_to_checkpoint(error):
                    self._recover()
        except Exception as error:  # noqa: BLE001 - rule 12 of the guard: nothing may reach the core
            _log.exception("replica_stopped", partition=self.partition_id, applied_index=self.applied_index)
            self._stop(f"{type(error).__name__}: {error}")

    def _recover(self) -> None:
        """Rebuild the state from the last checkpoint and the log; a checkpoint proves that there is room again."""
        while True:
            try:
                self._catch_up()
                break
            except StoreFull as error:
                if not self._return_to_checkpoint(error):
                    return  # until the next attempt
        self.store_full = self.checkpoint_index < self.applied_index
        _log.info("store_recovered", partition=self.partition_id, applied_index=self.applied_index)

    def _catch_up(self) -> None:
        while self.applied_index < self._handed_index:
            last = min(self.applied_index + CATCH_UP_ENTRIES, self._handed_index)
            entries = self.raft.entries(self.applied_index + 1, last)
            assert len(entries) == last - self.applied_index, "the log keeps what is above the checkpoint"
            self._apply(entries)
            if self._policy.large():
                self._checkpoint_now()
        self._checkpoint_now()

    def _return_to_checkpoint(self, error: StoreFull) -> bool:
        """Undo what was applied since the checkpoint; return whether there is more room now."""
        _log.warning("store_full", partition=self.partition_id, detail=str(error))
        self._snapshots.drop_all("the store of this replica was full")
        grew = self._store.rollback(grow=error.map_full)
        self._policy.ended()
        self._policy.rolled_back()
        self._load()
        return grew

    def _stop(self, reason: str) -> None:
        self.failure = reason
        self._policy.ended()
        self._snapshots.drop_all("this replica stopped")
        self.reset_pending(self._stopped())

    def _stopped(self) -> ReplicaStopped:
        return ReplicaStopped(
            f"the replica of partition {self.partition_id} on {self._node} stopped itself",
            metadata={"partition": self.partition_id, "cause": self.failure},
        )

    def not_leader(self) -> NotLeader:
        """Return the refusal that names the leader."""
        leader = self.raft.leader
        return NotLeader(
            f"{self._node} does not lead partition {self.partition_id}",
            metadata={
                "leader": leader if leader and leader != self._node else "",
                "partition": self.partition_id,
            },
        )

    # --- snapshots -----------------------------------------------------------------------------------

    def snapshot_source(self) -> FileSource:
        """Return a source of the last checkpoint as of its `prepare`."""
        return FileSource(self._store, str(next(_source_numbers)))

    def snapshot_sink(self, index: int, total_bytes: int) -> FileSink:
        """Return a sink for a snapshot at `index` of `total_bytes`. Raises `OSError`."""
        return FileSink(self._store.directory, self.partition_id, index, total_bytes)

    def install(self, sink: SnapshotSink, index: int) -> None:
        """Replace the state by that of a finished sink. Blocks for a rename, and for readers in worker threads."""
        assert sink.index == index
        self._finish_checkpoint()
        self.guarded(lambda: self._install(index))

    def _install(self, index: int) -> None:
        assert index > self._handed_index, "the applied index never goes back"
        self._snapshots.drop_all("this replica took over another's state")
        self._store.install(index)
        self._load()
        self._policy.rolled_back()
        self._handed_index = index
        self.store_full = False
        self._forget_proposals()
