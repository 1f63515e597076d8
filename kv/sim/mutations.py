"""What the mutants do to production objects: one function for each duty that can be left out.

Here live the patches and nothing else: which mutants exist, and how each is hunted, is in
`kv.sim.mutants`. A patch replaces methods on the objects of one incarnation of a node, so it is gone with
them; the few that must change a module (recovery runs before a node can be patched) are context
managers that put everything back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kv.errors import KVError, Unavailable
from kv.internal.v1 import raft_pb2
from kv.partition.batch import PUT, PUT_MANY, decode_batch
from kv.partition.checkpoint import Checkpoint
from kv.partition.partition import Replica
from kv.partition.proposals import Proposal
from kv.partition.record import decode_record
from kv.partition.session import Verdict
from kv.raft import wal_format
from kv.raft.api import Entry, SnapshotSink
from kv.raft.group import Group
from kv.raft.wal_format import Kind, Record
from kv.sim.inside import inside, put_inside
from kv.sim.node import SimNode
from kv.sim.wire import SimStream
from kv.v1 import kv_pb2

GroupPatch = Callable[[SimNode, Group], None]
"""Breaks a replica that was made and has not taken part yet."""

BEST: int = 1 << 60
"""Last index and term of a log that no other log beats."""


def replica_of(group: Group) -> Replica:
    """The state machine of a group."""
    replica = group.machine
    assert isinstance(replica, Replica)
    return replica


def patch(thing: object, name: str, method: Callable[..., Any]) -> None:
    """Replace a method of one object, which must exist."""
    put_inside(thing, name, method)


# ------------------------------------------------------------ what is durable before it is sent


def sent_early(*bodies: str) -> GroupPatch:
    """Messages of these types do not wait for the disk."""

    def early_ones(_: SimNode, group: Group) -> None:
        post = group.post

        def early(peer: str, message: raft_pb2.RaftMessage, *, after: int | None = None, **rest: Any) -> None:  # noqa: ANN401 - passed on
            post(peer, message, after=0 if message.WhichOneof("body") in bodies else after, **rest)

        patch(group, "post", early)

    return early_ones


def hard_state_lost(_: SimNode, group: Group) -> None:
    """Term and vote are kept in memory only."""
    patch(group.journal, "_log_hard_state", lambda: 0)


def vote_lost(_: SimNode, group: Group) -> None:
    """The term is written, the vote in it is not."""
    journal = group.journal
    log_hard_state = vars(type(journal))["_log_hard_state"]

    def without_vote() -> int:
        voted_for, vars(journal)["_voted_for"] = journal.voted_for, None
        written: int = log_hard_state(journal)
        vars(journal)["_voted_for"] = voted_for
        return written

    patch(journal, "_log_hard_state", without_vote)


class _Deaf:
    """A log that writes nothing down."""

    def __init__(self, seq: int) -> None:
        self._seq = seq

    def append(self, journal: object, kind: Kind, index: int, term: int, payload: bytes) -> int:
        """Forget the record."""
        return self._seq


def truncation_not_logged(_: SimNode, group: Group) -> None:
    """Entries are removed in memory, and the log on disk does not say so."""
    journal = group.journal
    truncate_from = journal.truncate_from

    def silently(index: int) -> None:
        log = inside(journal, "_log")
        vars(journal)["_log"] = _Deaf(journal.seq)
        try:
            truncate_from(index)
        finally:
            vars(journal)["_log"] = log

    patch(journal, "truncate_from", silently)


def failed_sync_ignored(node: SimNode) -> None:
    """A sync that failed is taken for one that worked."""
    writer, disk = inside(node.cluster.wal, "_writer"), node.disk

    def careless(name: str) -> None:
        try:
            disk.sync(name)
        except OSError:
            return

    patch(writer, "_sync", careless)


@contextmanager
def torn_tail_accepted() -> Iterator[None]:
    """Recovery takes any frame whose header looks right: the crc is not compared."""
    decode = wal_format.decode_frame

    def without_crc(buffer: bytes, offset: int, end: int, seed: int, position: int = 0) -> Record | None:
        record = decode(buffer, offset, end, seed, position)
        start = offset + wal_format.FRAME_HEADER_BYTES
        if record is not None or start > end:
            return record
        frame: tuple[Any, ...] = vars(wal_format)["_FRAME"].unpack_from(buffer, offset)
        magic, _, length, batch, group, kind, flags, index, term = frame
        kinds = vars(wal_format)["_KINDS"]
        if magic != wal_format.RECORD_MAGIC or length > end - start or kind not in kinds:
            return None
        last = bool(flags & wal_format.END_OF_BATCH)
        payload = buffer[start : start + length]
        return Record(offset + position, batch, last, group, kinds[kind], index, term, payload)

    vars(wal_format)["decode_frame"] = without_crc
    try:
        yield
    finally:
        vars(wal_format)["decode_frame"] = decode


# ------------------------------------------------------------ votes, terms, commit


def commit_index_trusted(_: SimNode, group: Group) -> None:
    """The core starts with its log's end as commit index, as if that had been stored and were true."""
    core = inside(group.core, "_core")
    name = "_SyncObj__raftCommitIndex"
    assert name in vars(core), "the core keeps its commit index elsewhere"
    vars(core)[name] = group.core.commit_index = max(group.core.commit_index, group.journal.last)


def votes_for_any_log(_: SimNode, group: Group) -> None:
    """A candidate's log is not compared with one's own."""
    campaign = group.campaign
    on_vote, on_pre_vote = campaign.on_vote, campaign.on_pre_vote

    def vote(message: raft_pb2.RaftMessage) -> None:
        message.vote.last_index = message.vote.last_term = BEST
        on_vote(message)

    def pre_vote(message: raft_pb2.RaftMessage) -> None:
        message.pre_vote.last_index = message.pre_vote.last_term = BEST
        on_pre_vote(message)

    patch(campaign, "on_vote", vote)
    patch(campaign, "on_pre_vote", pre_vote)


# ------------------------------------------------------------ reads


def old_confirmations_count(_: SimNode, group: Group) -> None:
    """A reply to a probe that was sent before the read arrived confirms the leader all the same."""
    reads = group.reading.queue
    confirm = reads.confirm
    patch(reads, "confirm", lambda member, term, _: confirm(member, term, BEST))


def followers_read(_: SimNode, group: Group) -> None:
    """Any replica answers a linearizable read from what it has."""
    replica = replica_of(group)
    submit = replica.submit
    read = vars(type(replica))["_read_stale"]

    def submitted(raw: bytes, reply: Callable[[bytes | KVError], None]) -> None:
        def answered(outcome: bytes | KVError) -> None:
            reply(outcome)

        if group.is_leader:
            submit(raw, answered)
            return
        batch = decode_batch(raw)
        if batch.writes:
            submit(raw, answered)
        else:
            reply(read(replica, _Read(batch)))

    patch(replica, "submit", submitted)


class _Read:
    """As much of a request as a read needs."""

    def __init__(self, batch: object) -> None:
        self.batch = batch


# ------------------------------------------------------------ the state machine


def retry_applied_twice(_: SimNode, group: Group) -> None:
    """A repeated request is applied again, whatever its session remembers."""
    sessions = inside(replica_of(group), "_sessions")
    check = sessions.check

    def forgetful(*request: int) -> object:
        verdict = check(*request)
        if isinstance(verdict, bytes):
            inside(sessions, "_sessions")[request[0]].results.pop(request[1])  # or its own assertion sees it
            return Verdict.NEW
        return verdict

    patch(sessions, "check", forgetful)


def snapshot_without_sessions(_: SimNode, group: Group) -> None:
    """The sessions of a snapshot are not taken over."""
    replica = replica_of(group)
    install = replica.install

    def installed(sink: SnapshotSink, index: int) -> None:
        install(sink, index)
        inside(replica, "_sessions").load([])

    patch(replica, "install", installed)


def sessions_expire_by_wall_clock(node: SimNode, group: Group) -> None:
    """Each replica expires sessions by its own clock instead of the command's time."""
    sessions = inside(replica_of(group), "_sessions")
    expire = sessions.expire
    patch(sessions, "expire", lambda _: expire(node.clock.wall_ms()))


def checkpoint_without_sessions(_: SimNode, group: Group) -> None:
    """A checkpoint holds the keys, not what the sessions did."""
    store = inside(replica_of(group), "_store")
    begin = store.begin_checkpoint
    patch(store, "begin_checkpoint", lambda at, _, then: begin(at, (), then))


def checkpoint_without_index(_: SimNode, group: Group) -> None:
    """On disk a checkpoint keeps the applied index of the first one: after a crash entries are applied again."""
    store = inside(replica_of(group), "_store")
    begin, end, first = store.begin_checkpoint, store.end_checkpoint, store.last
    begun: list[Checkpoint] = []

    def backdated(
        at: Checkpoint, sessions: Sequence[tuple[int, bytes | None]], then: Callable[[], None]
    ) -> None:
        begun.append(at)
        vars(store)["last"] = first
        begin(first._replace(keys=at.keys), sessions, then)

    def ended() -> None:
        end()
        vars(store)["last"] = begun.pop()  # the process that runs knows better

    patch(store, "begin_checkpoint", backdated)
    patch(store, "end_checkpoint", ended)


def checkpoint_counted_when_begun(_: SimNode, group: Group) -> None:
    """The log is compacted while the checkpoint still waits for the disk."""
    replica = replica_of(group)
    store, policy = inside(replica, "_store"), inside(replica, "_policy")
    begin = store.begin_checkpoint

    def hasty(at: Checkpoint, sessions: Sequence[tuple[int, bytes | None]], then: Callable[[], None]) -> None:
        begin(at, sessions, then)
        store.last = at
        target = policy.checkpointed(at.applied_index)
        if target > group.first_index + 1:
            group.compact(target)

    patch(store, "begin_checkpoint", hasty)


def checkpoint_ahead_of_log(_: SimNode, group: Group) -> None:
    """A checkpoint does not wait until the log of this node holds what is applied."""
    replica = replica_of(group)
    store, sessions, policy = (inside(replica, name) for name in ("_store", "_sessions", "_policy"))

    def careless(_: Callable[[], None]) -> None:
        if replica.applied_index > replica.checkpoint_index:
            at = inside(replica, "_at")._replace(keys=store.keys)
            store.checkpoint(at, sessions.take_changes())
            replica.checkpoints_made += 1
            target = policy.checkpointed(replica.applied_index)
            if target > group.first_index + 1:
                group.compact(target)

    patch(replica, "_begin_checkpoint", careless)


def compacted_when_applied(_: SimNode, group: Group) -> None:
    """The log drops what is applied, not only what is checkpointed."""
    replica = replica_of(group)
    apply = replica.apply

    def applied(entries: Sequence[Entry]) -> None:
        apply(entries)
        if replica.failure is None:
            group.compact(replica.applied_index)

    patch(replica, "apply", applied)


# ------------------------------------------------------------ answers


def replied_when_proposed(_: SimNode, group: Group) -> None:
    """A put is answered when it is in the leader's log, with the result that it will probably have."""
    replica = replica_of(group)
    proposals, store = inside(replica, "_proposals"), inside(replica, "_store")
    add = proposals.add

    def guess(index: int, proposal: Proposal) -> None:
        add(index, proposal)
        for request in [one for one in proposal.requests if _only_puts(one.batch)]:
            proof = kv_pb2.Evidence(
                partition=group.group_id, map_epoch=1, term=proposal.term, index=index, node=group.me
            )
            response = kv_pb2.BatchResponse(evidence=[proof])
            for operation in request.batch.operations:
                result = response.results.add()
                if operation[0] == PUT:
                    version = _next_version(store.get(operation[1]))
                    result.put.CopyFrom(kv_pb2.PutResult(revision=index, version=version))
                else:
                    versions = [_next_version(store.get(key)) for key in operation[1]]
                    result.put_many.CopyFrom(kv_pb2.PutManyResult(revision=index, versions=versions))
            request.reply(response.SerializeToString())
            request.reply = _nobody

    patch(proposals, "add", guess)


def _nobody(_: bytes | KVError) -> None:
    """The answer was given already."""


def _only_puts(batch: Any) -> bool:  # noqa: ANN401 - a decoded batch
    return all(
        operation[0] == PUT_MANY or (operation[0] == PUT and operation[3] is None)
        for operation in batch.operations
    )


def _next_version(record: bytes | None) -> int:
    return 1 if record is None else decode_record(record)[2] + 1


def lost_when_deposed(_: SimNode, group: Group) -> None:
    """A leader that steps down calls what it had proposed failed, though it may be committed yet."""
    replica = replica_of(group)
    leadership = replica.leadership

    def told(is_leader: bool, term: int) -> None:
        leadership(is_leader, term)
        if not is_leader:
            for _, proposal in inside(replica, "_proposals").take_all():
                vars(type(replica))["_lose"](replica, proposal)

    patch(replica, "leadership", told)


def lost_when_index_reused(_: SimNode, group: Group) -> None:
    """A proposal is called failed when the same replica proposes something else at its index."""
    replica = replica_of(group)
    proposals = inside(replica, "_proposals")
    add = proposals.add

    def reused(index: int, proposal: Proposal) -> None:
        for older in proposals.decided(index):
            vars(type(replica))["_lose"](replica, older)
        add(index, proposal)

    patch(proposals, "add", reused)


def forward_lost_is_definite(node: SimNode) -> None:
    """A router that loses its stream to the leader says that what it had sent was not applied."""
    cluster = node.cluster
    forwarder_to = cluster.forwarder

    def forwarder(name: str) -> object:
        found: Any = forwarder_to(name)
        if "send" not in vars(found) or not hasattr(vars(found)["send"], "definite"):
            vars(found)["send"] = _definite(vars(found)["send"])
        return found

    patch(cluster, "forwarder", forwarder)


def _definite(send: Callable[..., int]) -> Callable[..., int]:
    def sent(*request: Any) -> int:  # noqa: ANN401 - passed on
        *rest, reply = request
        return send(*rest, lambda outcome: reply(_as_definite(outcome)))

    sent.definite = True  # type: ignore[attr-defined]
    return sent


def _as_definite(outcome: bytes | KVError) -> bytes | KVError:
    if isinstance(outcome, KVError) and not outcome.definite:
        return Unavailable("nobody knows, and it is said all the same")
    return outcome


@contextmanager
def client_lost_is_definite() -> Iterator[None]:
    """A client that loses its connection takes all that was under way for not sent."""
    send, end = vars(SimStream)["send"], vars(SimStream)["_end"]

    def sent(stream: SimStream, request_id: int, raw: bytes) -> None:
        vars(stream).setdefault("all", []).append(request_id)
        send(stream, request_id, raw)

    def ended(stream: SimStream, _: object) -> None:
        end(stream, tuple(vars(stream).get("all", ())))

    type.__setattr__(SimStream, "send", sent)
    type.__setattr__(SimStream, "_end", ended)
    try:
        yield
    finally:
        type.__setattr__(SimStream, "send", send)
        type.__setattr__(SimStream, "_end", end)
