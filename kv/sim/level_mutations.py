"""What the mutants of read levels, outcomes and write levels do to production objects.

Here live patches and nothing else, as in `kv.sim.mutations`; which mutants exist is in `kv.sim.level_mutants`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from kv.client.session_token import Seen
from kv.partition.batch import Batch
from kv.partition.checkpoint import Checkpoint
from kv.partition.machine import Outcome
from kv.partition.session import Fate, Session
from kv.raft.api import ReadProof, SnapshotSink
from kv.raft.group import Group
from kv.raft.read_index import Done
from kv.sim.inside import inside
from kv.sim.mutations import patch, replica_of
from kv.sim.node import SimNode
from kv.v1 import kv_pb2

# ------------------------------------------------------------ proofs


def proof_dated_by_its_answer(_: SimNode, group: Group) -> None:
    """A follower takes what its leader answers for the state of when the answer came, not of when it asked."""
    asking = group.reading.asking
    answered = asking.answered

    def dated(sender: str, term: int, sequence: int, index: int) -> ReadProof | None:
        question = asking.open
        proof = answered(sender, term, sequence, index)
        if question is None or proof is None:
            return proof
        question.proof = replace(proof, began_at=group.now)
        return question.proof

    patch(asking, "answered", dated)


def read_before_applied(_: SimNode, group: Group) -> None:
    """A follower's read does not wait until the index that its leader named is applied."""
    asking = group.reading.asking
    ready = asking.ready

    def at_once(applied_index: int) -> list[tuple[ReadProof, Done]]:
        found = ready(1 << 60)
        return [(replace(proof, index=min(proof.index, applied_index)), done) for proof, done in found]

    patch(asking, "ready", at_once)


# ------------------------------------------------------------ levels


def session_token_ignored(_: SimNode, group: Group) -> None:
    """A SESSION read is answered from what is there, whatever the session has seen."""
    reads = inside(replica_of(group), "_reads")
    at_once = reads.at_once

    def careless(batch: Batch) -> Outcome | None:
        found: Outcome | None = (
            reads.stale(batch) if batch.level == kv_pb2.READ_LEVEL_SESSION else at_once(batch)
        )
        return found

    patch(reads, "at_once", careless)


@contextmanager
def nothing_seen() -> Iterator[None]:
    """A client does not note how far the answers that it got prove."""
    note = vars(Seen)["note"]
    type.__setattr__(Seen, "note", lambda _, __, ___: None)
    try:
        yield
    finally:
        type.__setattr__(Seen, "note", note)


def any_proof_is_young(_: SimNode, group: Group) -> None:
    """A BOUNDED read takes the newest proof that there is, however old."""
    reads = inside(replica_of(group), "_reads")
    bounded, seen, read = (vars(type(reads))[name] for name in ("_bounded", "_seen", "_read"))

    def careless(batch: Batch, proof: ReadProof | None) -> Outcome:
        if proof is None:
            refused: Outcome = bounded(reads, batch, proof)
            return refused
        now = inside(reads, "_home").raft.now
        answer: Outcome = read(reads, batch, seen(reads, batch.level, proof.began_at), now)
        return answer

    patch(reads, "_bounded", careless)


def pages_of_now(_: SimNode, group: Group) -> None:
    """Each page of a scan reads the state of its own moment."""
    snapshots = inside(replica_of(group), "_snapshots")
    patch(snapshots, "view", lambda _, state: state)


def new_keys_not_remembered(_: SimNode, group: Group) -> None:
    """Of a key that did not exist nothing is kept for the scans that are open: they see it appear."""
    snapshots = inside(replica_of(group), "_snapshots")
    remember = snapshots.remember

    def only_old(key: bytes, state: object) -> None:
        if state.get(key) is not None:  # type: ignore[attr-defined]
            remember(key, state)

    patch(snapshots, "remember", only_old)


def all_means_quorum(_: SimNode, group: Group) -> None:
    """A write at level ALL is answered as soon as it is committed."""
    held = inside(replica_of(group), "_answers").held
    patch(held, "take_proved", lambda _: held.take_all())


# ------------------------------------------------------------ outcomes


def outcome_without_fence(_: SimNode, group: Group) -> None:
    """An outcome query says that a request was not applied, and nothing keeps the request from coming yet."""
    sessions = inside(replica_of(group), "_sessions")
    outcome = sessions.outcome

    def unfenced(session_id: int, sequence: int) -> Fate | bytes:
        fate: Fate | bytes = outcome(session_id, sequence)
        if fate is Fate.FENCED:
            inside(sessions, "_sessions")[session_id].fences.clear()
        return fate

    patch(sessions, "outcome", unfenced)


def fences_not_in_checkpoints(_: SimNode, group: Group) -> None:
    """A checkpoint holds what the sessions did, not what they must never do."""
    store = inside(replica_of(group), "_store")
    begin = store.begin_checkpoint

    def unfenced(
        at: Checkpoint, sessions: Sequence[tuple[int, bytes | None]], then: Callable[[], None]
    ) -> None:
        begin(at, [(one, _without_fences(encoded)) for one, encoded in sessions], then)

    patch(store, "begin_checkpoint", unfenced)


def _without_fences(encoded: bytes | None) -> bytes | None:
    if encoded is None:
        return None
    session = Session.decode(encoded)
    session.fences.clear()
    return session.encode()


def fences_not_in_snapshots(_: SimNode, group: Group) -> None:
    """What the sessions must never do is not taken over from a snapshot."""
    replica = replica_of(group)
    install = replica.install

    def installed(sink: SnapshotSink, index: int) -> None:
        install(sink, index)
        for session in inside(inside(replica, "_sessions"), "_sessions").values():
            session.fences.clear()

    patch(replica, "install", installed)
