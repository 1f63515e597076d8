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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
    UnknownOutcome,
    WrongPartition,
)
from kv.internal.v1 import log_pb2
from kv.partition.batch import Batch, decode_batch
from kv.partition.checkpoint import Checkpoint
from kv.partition.limits import checkpoint_limits, page_limits, session_limits
from kv.partition.machine import Outcome, apply_command
from kv.partition.policy import CheckpointPolicy
from kv.partition.proposals import Proposal, Proposals
from kv.partition.queue import BATCH_FRAME_BYTES, COMMAND_FRAME_BYTES, Reply, Request, RequestQueue
from kv.partition.read import read_batch
from kv.partition.session import SessionTable
from kv.partition.snapshot import FileSink, FileSource
from kv.partition.store import ContentHash, Store, StoreFull
from kv.raft.api import ENTRY_PREFIX, Entry, GroupHandle, SnapshotSink
from kv.v1 import cluster_pb2, kv_pb2

CATCH_UP_ENTRIES: Final = 256
"""Entries read from the log at once when the state is rebuilt from its checkpoint."""

STORE_RETRY_S: Final = 1.0
"""Pause between two attempts to write a store that was full."""

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
    ) -> None:
        """`owns` says whether a key hashes into the partition; `wall_ms` is the wall clock since 1970."""
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
        self._page_limits = page_limits(config)
        self._group: GroupHandle | None = None
        self._queue = RequestQueue(config.pending_requests_max, config.pending_bytes_max)
        self._proposals = Proposals()
        self._reading: dict[Request, None] = {}  # in order: answers must not depend on addresses
        self._sessions = SessionTable(session_limits(config))
        self._policy = CheckpointPolicy(checkpoint_limits(config, log_retain_entries, log_retain_bytes))
        self._proposed_time_ms = 0
        self._store_retry_at = 0.0
        self._sources_made = 0
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
    def is_leader(self) -> bool:
        """Whether this replica leads and works."""
        return self.failure is None and self._raft.is_leader

    @property
    def leader(self) -> str | None:
        """The node id of the leader, if known."""
        return self._raft.leader

    @property
    def term(self) -> int:
        """The current Raft term of this replica."""
        return self._raft.term

    def status(self) -> cluster_pb2.ReplicaStatus:
        """Return the state of this replica, for people."""
        raft = self._raft
        role = cluster_pb2.REPLICA_ROLE_LEADER if raft.is_leader else cluster_pb2.REPLICA_ROLE_FOLLOWER
        return cluster_pb2.ReplicaStatus(
            partition=self.partition_id,
            epoch=raft.epoch,
            role=role if self.failure is None else cluster_pb2.REPLICA_ROLE_STOPPED,
            leader=raft.leader or "",
            term=raft.term,
            commit_index=raft.commit_index,
            applied_index=self.applied_index,
            first_index=raft.first_index,
            last_index=raft.last_index,
            durable_index=raft.durable_index,
            checkpoint_index=self.checkpoint_index,
            failure=self.failure or "",
            keys=self._store.keys,
            sessions=len(self._sessions),
        )

    def content_hasher(self) -> Callable[[], ContentHash]:
        """Make a checkpoint and return a function for a worker thread that hashes it (blocking).

        Raises `Unavailable` while no checkpoint can be made.
        """
        self._guarded(self._checkpoint_if_durable)
        if self.failure is not None or self.checkpoint_index != self.applied_index:
            raise Unavailable("the replica cannot make a checkpoint at the moment")
        return self._store.content_hash

    def close(self) -> None:
        """Make a last checkpoint if possible and close the store. The replica is not used afterwards."""
        if self._group is not None:
            self._guarded(self._checkpoint_if_durable)
        self._store.close()

    def abandon(self) -> None:
        """Close the store as a crash would leave it: at its last checkpoint."""
        self._store.close()

    # --- requests ------------------------------------------------------------------------------------

    def submit(self, raw: bytes, reply: Reply) -> None:
        """Take one serialized `kv.v1.BatchRequest`; `reply` is called once, perhaps before this returns."""
        try:
            batch = decode_batch(raw)
        except KVError as error:
            reply(error)
            return
        refusal = self._refusal(raw, batch)
        if refusal is not None:
            reply(refusal)
            return
        request = Request(raw, batch, reply)
        if batch.stale and not batch.writes:
            reply(self._read_stale(request))
            return
        overloaded = self._queue.admit(request)
        if overloaded is not None:
            reply(overloaded)
            return
        self._raft.wake()

    def pump(self) -> None:
        """Join what waits into commands and propose them."""
        self._guarded(self._pump)

    def leadership(self, is_leader: bool, term: int) -> None:
        """Tell of a change: what was not proposed cannot be any more."""
        _log.debug("leadership", partition=self.partition_id, is_leader=is_leader, term=term)
        if not is_leader:
            for request in self._queue.take_all():
                self._answer(request, self._not_leader())

    def reset_pending(self, why: KVError) -> None:
        """Answer all requests: the proposed ones UNKNOWN_OUTCOME, the others with `why`."""
        self._forget_proposals()
        reading, self._reading = self._reading, {}
        for request in (*reading, *self._queue.take_all()):
            self._answer(request, why)

    def _refusal(self, raw: bytes, batch: Batch) -> KVError | None:
        """Return why the request is refused at the door: each reason is definite."""
        if self.failure is not None:
            return self._stopped()
        refusal = self._refusal_of_keys(batch)
        if refusal is not None or (batch.stale and not batch.writes):
            return refusal
        if not self._raft.is_leader:
            return self._not_leader()
        if batch.writes and self.store_full:
            return DiskFull(f"the store of partition {self.partition_id} has no room")
        if len(raw) + BATCH_FRAME_BYTES + COMMAND_FRAME_BYTES > self._raft.entry_bytes_max:
            return RequestTooLarge(
                f"the batch does not fit into a log entry of {self._raft.entry_bytes_max} bytes"
            )
        return None

    def _refusal_of_keys(self, batch: Batch) -> KVError | None:
        if not all(map(self._owns, batch.keys())):
            return WrongPartition(
                f"partition {self.partition_id} does not own all keys of the batch",
                metadata={"map_epoch": self._map_epoch(), "partition": self.partition_id},
            )
        return None

    def _pump(self) -> None:
        reads = self._queue.take_reads()
        if reads:
            self._reading.update(dict.fromkeys(reads))
            self._raft.read_index(lambda index: self._guarded(lambda: self._serve(reads, index)))
        while self._queue.writes and self._may_propose():
            self._propose()

    def _may_propose(self) -> bool:
        return self._proposals.in_flight(self._raft.term) < self._config.commands_in_flight_max

    def _propose(self) -> None:
        limit = min(self._config.command_bytes_max, self._raft.entry_bytes_max)
        requests = self._queue.take_command(limit)
        time_ms = max(self._at.time_ms, self._proposed_time_ms, self._wall_ms())
        command = log_pb2.Command(time_ms=time_ms, batches=[request.raw for request in requests])
        try:
            index = self._raft.propose(ENTRY_PREFIX + command.SerializeToString())
        except KVError as error:
            for request in requests:
                self._answer(request, error)
            return
        assert index > self.applied_index, "propose returns before the entry is applied"
        self._proposed_time_ms = time_ms
        self._proposals.add(index, Proposal(self._raft.term, time_ms, requests))

    def _serve(self, reads: Sequence[Request], index: int | None) -> None:
        """Answer the reads whose leadership check ended, unless `reset_pending` answered them meanwhile."""
        assert index is None or self.applied_index >= index, "a linearizable read waits for its index"
        evidence = self._read_evidence(kv_pb2.READ_LEVEL_LINEARIZABLE)  # one for all: they share the index
        for request in reads:
            if request in self._reading:
                outcome: Outcome = self._not_leader() if index is None else self._read(request, evidence)
                del self._reading[request]
                self._answer(request, outcome)

    def _read_stale(self, request: Request) -> Outcome:
        outcomes: list[Outcome] = []
        evidence = self._read_evidence(kv_pb2.READ_LEVEL_STALE)
        self._guarded(lambda: outcomes.append(self._read(request, evidence)))
        return outcomes[0] if outcomes else self._stopped()

    def _read(self, request: Request, evidence: bytes) -> bytes:
        return read_batch(self._store, request.batch, self._page_limits) + evidence

    def _read_evidence(self, level: kv_pb2.ReadLevel.ValueType) -> bytes:
        return self._evidence(self._raft.term, self.applied_index, level)

    def _evidence(self, term: int, index: int, level: kv_pb2.ReadLevel.ValueType) -> bytes:
        """Return the evidence in a form that can be put behind any serialized BatchResponse."""
        evidence = kv_pb2.Evidence(
            partition=self.partition_id,
            map_epoch=self._map_epoch(),
            term=term,
            index=index,
            node=self._node,
            level=level,
        )
        return kv_pb2.BatchResponse(evidence=[evidence]).SerializeToString()

    def _answer(self, request: Request, outcome: Outcome) -> None:
        self._queue.answered(request)
        try:
            request.reply(outcome)
        except Exception:  # noqa: BLE001 - whatever the caller's code does
            # the request is decided and the state is whole: one broken caller must not stop the others
            _log.exception("reply_failed", partition=self.partition_id)

    # --- the log -----------------------------------------------------------------------------------

    def attach(self, group: GroupHandle) -> None:
        """Bind to the group; called once, before anything else."""
        assert self._group is None
        assert group.group_id == self.partition_id
        self._group = group

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries, contiguous with those of the call before. Never raises.

        While `store_full` they are only noted, and fetched from the log later.
        """
        if entries:
            self._guarded(lambda: self._take_committed(entries))

    def maybe_checkpoint(self, now: float) -> None:
        """Make a checkpoint if one is due; retry a full store. `now`: seconds, monotonic."""
        if self.store_full:
            if now >= self._store_retry_at:
                self._store_retry_at = now + STORE_RETRY_S
                self._guarded(self._recover)
        elif self._policy.due(now):
            self._guarded(self._checkpoint_if_durable)

    def _take_committed(self, entries: Sequence[Entry]) -> None:
        assert entries[0][1] == self._handed_index + 1, "entries come in order, each once"
        self._handed_index = entries[-1][1]
        if not self.store_full:
            self._apply(entries)

    def _apply(self, entries: Sequence[Entry]) -> None:
        for data, index, term in entries:
            self._apply_entry(data, index, term)
        if self._queue.writes and self._may_propose():
            self._raft.wake()

    def _apply_entry(self, data: bytes, index: int, term: int) -> None:
        assert index == self.applied_index + 1, f"entry {index} after {self.applied_index}"
        assert data[:1] == ENTRY_PREFIX, "an entry begins with its prefix"
        ours = self._proposals.find(index, term)
        time_ms, batches = self._decode(data, ours)
        # the new leader's clock may be behind the old one's: time stands still, it never goes back
        time_ms = max(self._at.time_ms, time_ms)
        outcomes = apply_command(self._store, self._sessions, index, time_ms, batches)
        self._at = Checkpoint(self.partition_id, index, term, self._at.term, time_ms)
        operations = sum(len(batch.operations) for batch in batches)
        self.operations_applied += operations
        self._policy.applied(len(data), operations)
        # not before: a store that is full undoes the entry, which is applied again later
        for proposal in self._proposals.decided(index):
            if proposal is ours:
                self._answer_applied(proposal, outcomes, index, term)
            else:
                self._lose(proposal)

    def _decode(self, data: bytes, ours: Proposal | None) -> tuple[int, list[Batch]]:
        if ours is not None:
            return ours.time_ms, [request.batch for request in ours.requests]
        if len(data) == len(ENTRY_PREFIX):
            return 0, []
        command = log_pb2.Command.FromString(data[len(ENTRY_PREFIX) :])
        return command.time_ms, [decode_batch(raw) for raw in command.batches]

    def _answer_applied(self, proposal: Proposal, outcomes: Sequence[Outcome], index: int, term: int) -> None:
        evidence = self._evidence(term, index, kv_pb2.READ_LEVEL_UNSPECIFIED)
        for request, outcome in zip(proposal.requests, outcomes, strict=True):
            self._answer(request, outcome + evidence if isinstance(outcome, bytes) else outcome)

    def _lose(self, proposal: Proposal) -> None:
        """Answer a proposal whose index another committed entry took: it did not happen and will not."""
        for request in proposal.requests:
            self._answer(request, self._not_leader())

    def _forget_proposals(self) -> None:
        for index, proposal in self._proposals.take_all():
            for request in proposal.requests:
                self._answer(request, UnknownOutcome(f"the fate of the entry {index} is not known"))

    # --- checkpoint, rollback, failure ----------------------------------------------------------------

    def _load(self) -> None:
        """Take the position and the sessions of the last checkpoint."""
        self._at = self._store.last
        self._sessions.load(self._store.sessions())

    def _checkpoint_if_durable(self) -> None:
        if self._raft.durable_index < self.applied_index or self.applied_index == self.checkpoint_index:
            return
        at = replace(self._at, keys=self._store.keys)
        self._store.checkpoint(at, self._sessions.take_changes())
        self.checkpoints_made += 1
        target = self._policy.checkpointed(self.applied_index)
        if target > self._raft.first_index + 1:
            self._raft.compact(target)

    def _guarded(self, step: Callable[[], None]) -> None:
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
            entries = self._raft.entries(self.applied_index + 1, last)
            assert len(entries) == last - self.applied_index, "the log keeps what is above the checkpoint"
            self._apply(entries)
            if self._policy.large():
                self._checkpoint_if_durable()
        self._checkpoint_if_durable()

    def _return_to_checkpoint(self, error: StoreFull) -> bool:
        """Undo what was applied since the checkpoint; return whether there is more room now."""
        _log.warning("store_full", partition=self.partition_id, detail=str(error))
        grew = self._store.rollback(grow=error.map_full)
        self._policy.rolled_back()
        self._load()
        return grew

    def _stop(self, reason: str) -> None:
        self.failure = reason
        self.reset_pending(self._stopped())

    def _stopped(self) -> ReplicaStopped:
        return ReplicaStopped(
            f"the replica of partition {self.partition_id} on {self._node} stopped itself",
            metadata={"partition": self.partition_id, "cause": self.failure},
        )

    def _not_leader(self) -> NotLeader:
        leader = self._raft.leader
        return NotLeader(
            f"{self._node} does not lead partition {self.partition_id}",
            metadata={
                "leader": leader if leader and leader != self._node else "",
                "partition": self.partition_id,
            },
        )

    @property
    def _raft(self) -> GroupHandle:
        assert self._group is not None, "attach comes first"
        return self._group

    # --- snapshots -----------------------------------------------------------------------------------

    def snapshot_source(self) -> FileSource:
        """Return a source of the last checkpoint as of its `prepare`."""
        self._sources_made += 1
        return FileSource(self._store, str(self._sources_made))

    def snapshot_sink(self, index: int, total_bytes: int) -> FileSink:
        """Return a sink for a snapshot at `index` of `total_bytes`. Raises `OSError`."""
        return FileSink(self._store.directory, self.partition_id, index, total_bytes)

    def install(self, sink: SnapshotSink, index: int) -> None:
        """Replace the state by that of a finished sink. Blocks for a rename, and for readers in worker threads."""
        assert sink.index == index
        self._guarded(lambda: self._install(index))

    def _install(self, index: int) -> None:
        assert index > self._handed_index, "the applied index never goes back"
        self._store.install(index)
        self._load()
        self._policy.rolled_back()
        self._handed_index = index
        self.store_full = False
        self._forget_proposals()
