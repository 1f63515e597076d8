"""Reads of one replica, at each level: who may serve, what has to be proved first, and what the evidence says.

Here lives the meaning of the levels. How a batch is answered from a state is in `read`; how an index is proved
is the Raft floor's. Pure: the clock is given, the engine calls.

- LINEARIZABLE: the index of a round that began after the read came; at a follower the leader's (Raft
  dissertation, section 6.4).
- LEASE: as LINEARIZABLE, and the round may be replaced by the leader's lease (6.4.1).
- SESSION: an index that the caller names is applied; the request waits for it for a bounded time.
- BOUNDED: a proof began no longer ago than the caller allows, on this replica's own clock; the way of
  the proof counts as age.
- STALE, and QUORUM and ALL of which each replica sees one: at once.
- A page of an open scan: the state at the scan's index, which was proved when its first page was read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kv.config import PartitionConfig
from kv.errors import BehindSession, KVError, LeaseRefused, NotLeader, TooStale
from kv.partition.batch import PAGE, Batch, Operation
from kv.partition.evidence import Form, Witness, age_ms
from kv.partition.limits import page_limits, snapshot_limits
from kv.partition.machine import Outcome
from kv.partition.options import AS_STALE, PLAIN
from kv.partition.queue import Request, RequestQueue
from kv.partition.read import ReadView, read_page, read_results
from kv.partition.scan_snapshots import ScanSnapshots
from kv.raft.api import GroupHandle, ReadProof
from kv.v1 import kv_pb2

PROOF_REFRESH_S: Final = 0.1
"""A read at a level that may be old asks for a new proof if the last one is older: so that ages stay known."""

# Under names of their own: those of the generated module are slow to look up.
_LINEARIZABLE: Final[int] = kv_pb2.READ_LEVEL_LINEARIZABLE
_LEASE: Final[int] = kv_pb2.READ_LEVEL_LEASE
_SESSION: Final[int] = kv_pb2.READ_LEVEL_SESSION
_BOUNDED: Final[int] = kv_pb2.READ_LEVEL_BOUNDED


class Home(Protocol):
    """What reads need of their replica."""

    @property
    def partition_id(self) -> int:
        """The partition."""

    @property
    def applied_index(self) -> int:
        """The index of the last applied entry."""

    @property
    def checkpointing(self) -> bool:
        """Whether there is nothing to read from at the moment."""

    @property
    def raft(self) -> GroupHandle:
        """The group."""

    def guarded(self, step: Callable[[], None]) -> None:
        """Run a step whose failure stops the replica."""

    def not_leader(self) -> NotLeader:
        """Return the refusal that names the leader."""


class Reads:
    """The reads of one replica."""

    def __init__(
        self,
        home: Home,
        state: ReadView,
        config: PartitionConfig,
        node: str,
        queue: RequestQueue,
        witness: Witness,
        answer: Callable[[Request, Outcome], None],
    ) -> None:
        """`answer` ends an admitted request."""
        self.snapshots: ScanSnapshots[_Seen] = ScanSnapshots(snapshot_limits(config))
        self._home = home
        self._state = state
        self._node = node
        self._queue = queue
        self._witness = witness
        self._answer = answer
        self._limits = page_limits(config)
        self._session_wait_s = config.session_wait_s
        self._confirming: dict[Request, None] = {}  # in order: answers must not depend on addresses
        self.behind: dict[Request, tuple[int, float]] = {}
        """The SESSION reads that wait: index awaited, deadline; deadlines grow."""
        self._known: ReadProof | None = None
        self._refreshing = False

    # --- the door ------------------------------------------------------------------------------------

    def refusal(self, batch: Batch) -> KVError | None:
        """Return why this replica does not take the read."""
        if not self._home.raft.is_leader:
            free = _page_of_snapshot(batch) or self.needs_no_leadership(batch)
            return None if free else self._home.not_leader()
        if batch.level == _LEASE and not (self._home.raft.lease_allowed or _page_of_snapshot(batch)):
            return LeaseRefused("this cluster's configuration does not allow reads by lease")
        return None

    def needs_no_leadership(self, batch: Batch) -> bool:
        """Whether a replica that does not lead may serve the read."""
        level = batch.level
        if level in (kv_pb2.READ_LEVEL_UNSPECIFIED, _LINEARIZABLE):
            return batch.options.local or batch.options.node == self._node
        return level != _LEASE

    def at_once(self, batch: Batch) -> Outcome | None:
        """Answer a read for which nothing has to be proved any more; None: it has to be admitted, and waits."""
        level = batch.level
        if level in AS_STALE or _page_of_snapshot(batch):
            return self.stale(batch)
        if level == _SESSION:
            wanted = batch.options.after_index(self._home.partition_id)
            return self.stale(batch) if self._home.applied_index >= wanted else None
        if level == _BOUNDED:
            outcome = self._bounded(batch, self._proof())
            return None if isinstance(outcome, TooStale) else outcome
        return None

    def stale(self, batch: Batch) -> Outcome:
        """Answer from what this replica has."""
        self._refresh()
        proof = self._proof()
        seen = self._seen(batch.level, None if proof is None else proof.began_at)
        return self._read(batch, seen, self._home.raft.now)

    # --- what has to wait ------------------------------------------------------------------------------

    def pump(self) -> None:
        """Begin the rounds for the admitted reads: one for those that share a kind of proof."""
        reads = self._queue.take_reads()
        if not reads:
            return
        round_, leased = [], []
        for request in reads:
            level = request.batch.level
            if level <= _LINEARIZABLE or level == _BOUNDED:
                round_.append(request)
            elif level == _LEASE:
                leased.append(request)
            else:
                self._wait(request)
        self._confirming.update(dict.fromkeys((*round_, *leased)))
        self.applied()
        if round_:
            self._confirm(round_, lease=False)
        if leased:
            self._confirm(leased, lease=True)

    def _wait(self, request: Request) -> None:
        assert request.batch.level == _SESSION, "reads at other levels are answered at once or confirmed"
        wanted = request.batch.options.after_index(self._home.partition_id)
        self.behind[request] = (wanted, self._home.raft.now + self._session_wait_s)

    def applied(self) -> None:
        """Answer the SESSION reads whose index is applied now."""
        if self.behind and not self._home.checkpointing:
            index = self._home.applied_index
            for request in [one for one, (wanted, _) in self.behind.items() if wanted <= index]:
                outcome = self.stale(
                    request.batch
                )  # before it is taken out: a failure answers what is still in
                del self.behind[request]
                self._answer(request, outcome)

    def tick(self, now: float) -> None:
        """Refuse the SESSION reads that waited long enough; forget the scans that nobody goes on with."""
        if self.behind:
            self._refuse_behind(now)
        if self.snapshots.opened:
            self.snapshots.expire(now)

    def _refuse_behind(self, now: float) -> None:
        for request in [one for one, (_, deadline) in self.behind.items() if deadline <= now]:
            wanted, _ = self.behind.pop(request)
            had = self._home.applied_index
            self._answer(
                request,
                BehindSession(
                    f"this replica stands at {had}, the session has seen {wanted}",
                    metadata={"index": wanted, "applied_index": had},
                ),
            )

    def overdue(self, now: float) -> bool:
        """Whether `tick` would refuse a SESSION read."""
        return bool(self.behind) and next(iter(self.behind.values()))[1] <= now

    def take_all(self) -> list[Request]:
        """Take every read that waits here, to be answered otherwise."""
        taken = [*self._confirming, *self.behind]
        self._confirming, self.behind = {}, {}
        return taken

    def _confirm(self, reads: Sequence[Request], *, lease: bool) -> None:
        def done(proof: ReadProof | None) -> None:
            self._home.guarded(lambda: self._serve(reads, proof))

        self._home.raft.read_index(done, lease=lease)

    def _serve(self, reads: Sequence[Request], proof: ReadProof | None) -> None:
        """Answer the reads whose round ended, unless they were answered meanwhile."""
        if proof is not None:
            assert self._home.applied_index >= proof.index, "a linearizable read waits for its index"
            self._learn(proof)
        seen, now = self._confirmed(proof), self._home.raft.now
        for request in reads:
            if request in self._confirming:
                if request.batch.level == _BOUNDED:
                    outcome = self._bounded(request.batch, proof)
                else:
                    outcome = (
                        self._home.not_leader() if seen is None else self._read(request.batch, seen, now)
                    )
                del self._confirming[request]
                self._answer(request, outcome)

    def _confirmed(self, proof: ReadProof | None) -> _Seen | None:
        if proof is None:
            return None
        return self._seen(_LEASE if proof.leased else _LINEARIZABLE, None)

    def _bounded(self, batch: Batch, proof: ReadProof | None) -> Outcome:
        limit_ms, now = batch.options.max_age_ms, self._home.raft.now
        if proof is not None and age_ms(proof.began_at, now) <= limit_ms:
            return self._read(batch, self._seen(batch.level, proof.began_at), now)
        return TooStale(
            f"this replica cannot prove that its state is at most {limit_ms} ms old",
            metadata={"max_age_ms": limit_ms},
        )

    # --- proofs and ages -------------------------------------------------------------------------------

    def _proof(self) -> ReadProof | None:
        """Return the newest proof that the applied state satisfies: it stays true, whoever leads now."""
        newest = self._home.raft.proof
        if newest is not None:
            self._learn(newest)
        known = self._known
        return known if known is not None and known.index <= self._home.applied_index else None

    def _learn(self, proof: ReadProof) -> None:
        """Remember a proof, unless it rests on a lease: only LEASE says so in its evidence."""
        newer = self._known is None or proof.began_at > self._known.began_at
        if newer and not proof.leased and proof.index <= self._home.applied_index:
            self._known = proof

    def _refresh(self) -> None:
        """Have a new proof made if the last one is missing or old; the present read does not wait for it."""
        proof = self._proof()
        if self._refreshing or (
            proof is not None and self._home.raft.now - proof.began_at <= PROOF_REFRESH_S
        ):
            return
        self._refreshing = True
        self._home.raft.read_index(self._refreshed)

    def _refreshed(self, proof: ReadProof | None) -> None:
        self._refreshing = False
        if proof is not None:
            self._learn(proof)

    # --- the answer ------------------------------------------------------------------------------------

    def _seen(self, level: int, began_at: float | None) -> _Seen:
        return _Seen(self._home.applied_index, self._home.raft.term, level, began_at)

    def _read(self, batch: Batch, seen: _Seen, now: float) -> Outcome:
        """Answer from the applied state, or from a scan's."""
        if batch.options is not PLAIN and _holds_page(batch):
            return self._page(batch.operations[0], seen, now)
        results, revision = read_results(self._state, batch, self._limits)
        return results + self._evidence(seen, revision, now)

    def _page(self, operation: Operation, seen: _Seen, now: float) -> Outcome:
        number = operation[6]
        if not number:
            part, revision, _ = read_page(
                self._state, operation, self._limits, lambda: self.snapshots.open(seen.index, seen, now)
            )
            return part + self._evidence(seen, revision, now)
        try:
            snapshot = self.snapshots.get(number, now)
        except KVError as gone:
            return gone
        view = self.snapshots.view(number, self._state)
        part, revision, more = read_page(view, operation, self._limits, lambda: number)
        if not more:
            self.snapshots.close(number)
        return part + self._evidence(snapshot.told, revision, now)

    def _evidence(self, seen: _Seen, revision: int, now: float) -> bytes:
        if seen.form is None or seen.began_at is not None:
            age = None if seen.began_at is None else age_ms(seen.began_at, now)
            seen.form = self._witness.form(seen.term, seen.index, seen.level, age)
        return seen.form.part(revision)


@dataclass(slots=True)
class _Seen:
    """The state that answers are read from, and what was proved of it. The pages of a scan share one."""

    index: int
    term: int
    level: int
    began_at: float | None
    """When the proof began by which the age is told; None: no age is told."""
    form: Form | None = None


def _holds_page(batch: Batch) -> bool:
    """Whether it is a page of a scan at one index, which is alone in its batch."""
    return len(batch.operations) == 1 and bool(batch.operations[0][0] == PAGE)


def _page_of_snapshot(batch: Batch) -> bool:
    """Whether it is such a page behind the first."""
    return _holds_page(batch) and bool(batch.operations[0][6])
