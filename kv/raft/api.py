"""The two faces between a Raft group and the state machine above it.

Here live the Protocols that `kv.raft` implements for `kv.partition` (`GroupHandle`) and the
other way round (`StateMachine`, `SnapshotSource`, `SnapshotSink`), and the constants both
sides rely on. No code that does anything may live here.

All methods are called on the loop thread and never block, except those marked
"blocking": they are called in a worker thread, one at a time for each object.

Duties of order, written where the caller reads them (steps of a write, see the design):

- an entry is passed to `StateMachine.apply` only when a quorum has it on disk;
- a result is replied only after its entry was applied;
- `GroupHandle.compact` names an index only at or below the last durable checkpoint;
- `StateMachine.install` is called only when the log holds the durable snapshot mark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from kv.errors import KVError

Entry: TypeAlias = tuple[bytes, int, int]
"""(data, index, term) of one log entry; `data` begins with `ENTRY_PREFIX`."""

ENTRY_PREFIX: Final = b"\x01"
"""First byte of every entry's data. An entry that is nothing else is a no-op."""

BOOTSTRAP_INDEX: Final = 2
"""A new group starts from the empty snapshot at this index: two no-op entries, indexes 1 and 2, term 0."""


@dataclass(slots=True)
class ReadProof:
    """Proof that a state at or above `index` holds every write acknowledged before `began_at`.

    Nobody changes one. It is not frozen: each beat makes some, and a frozen one takes four times as long to make.
    """

    index: int
    began_at: float
    """Seconds on the clock of `GroupHandle.now`: when the round of confirmation began, or the lease was looked at."""
    leased: bool = False
    """It rests on the leader's lease, so on clocks."""


class Tracer(Protocol):
    """Is told what happens in a group, to explain one request to a person."""

    def note(self, step: str, index: int, detail: str) -> None:
        """Take one event; `detail` names the peer, if one is concerned.

        With a log index: "appended", "synced", "acknowledged", "committed", "applied". For reads, with the read
        index or 0: "probed", "confirmed", "lease", "asked leader", "answered".
        """


class GroupHandle(Protocol):
    """One Raft group on this node, as the state machine above it sees it."""

    @property
    def group_id(self) -> int:
        """The number of the group."""

    @property
    def epoch(self) -> int:
        """The group's configuration epoch."""

    @property
    def is_leader(self) -> bool:
        """Whether this replica leads, as far as it knows."""

    @property
    def term(self) -> int:
        """The current term of this replica."""

    @property
    def leader(self) -> str | None:
        """The node id of the leader of the current term, if known."""

    @property
    def commit_index(self) -> int:
        """The highest index known to be committed."""

    @property
    def first_index(self) -> int:
        """The first index that the log still stands on."""

    @property
    def last_index(self) -> int:
        """The last index of the log."""

    @property
    def durable_index(self) -> int:
        """The last index whose record is on disk here."""

    @property
    def entry_bytes_max(self) -> int:
        """The largest `data` that `propose` takes, in bytes."""

    def propose(self, data: bytes, *, more: bool = False) -> int:
        """Append `data` (begins with `ENTRY_PREFIX`) to the leader's log and return its index.

        Its term is `term`; it is not applied before this returns. With `more` it leaves in one message with what
        is proposed next, which has to follow at once. Raises a definite `KVError` if
        nothing was appended: `NotLeader`, `DiskFull`, `RequestTooLarge`, `ReplicaStopped`.
        """

    @property
    def now(self) -> float:
        """Seconds on the node's steady clock, as it shows at this moment."""

    @property
    def lease_allowed(self) -> bool:
        """Whether the configured bounds on clocks allow a leader to answer from its lease."""

    @property
    def all_durable_index(self) -> int:
        """Leader: up to here every member has proved that the log is on its disk, in this term. Otherwise 0."""

    @property
    def lagging(self) -> Sequence[str]:
        """Leader: the members that hold `all_durable_index` back. Otherwise empty."""

    def behind(self, index: int) -> Sequence[str]:
        """Leader: the members that have not proved in this term that they hold the log up to `index`. Otherwise empty."""

    @property
    def proof(self) -> ReadProof | None:
        """The newest proof that this replica was given, by a round of its own or by its leader, if any.

        Kept over terms, role and snapshots: what was acknowledged before a time is never taken back. None
        rests on a lease.
        """

    def read_index(self, done: Callable[[ReadProof | None], None], *, lease: bool = False) -> None:
        """Get proof of how far a linearizable read must see (Raft dissertation, section 6.4).

        On the leader a quorum answers a probe sent after this call, or, with `lease` and if it holds, nobody is
        asked (6.4.1); where the lease does not hold the proof comes from a round, and is not `leased`. On any
        other replica the leader is asked for its confirmed index. Calls `done(proof)` once, as soon as
        `StateMachine.applied_index >= proof.index`. `done(None)`: nothing was proved, because leadership, the
        term or the connection was lost first, no leader is known, too many reads wait, or, where this replica
        does not lead, an election timeout has passed. May call `done` before it returns.
        """

    def trace(self, tracer: Tracer | None) -> None:
        """Tell `tracer` what happens from now on; None: nobody any more."""

    def wake(self) -> None:
        """Ask the engine for a turn, in which it calls `StateMachine.pump` once."""

    def compact(self, index: int) -> None:
        """Allow the log to drop the entries below `index - 1`; `index <= checkpoint_index`."""

    def entries(self, first: int, last: int) -> Sequence[Entry]:
        """Return the committed entries first..last, both inclusive, with their whole data.

        For a state machine that fell back to its checkpoint. The caller asks for slices;
        `first` is above the last `compact`ed index. May read the disk (blocking, rare).
        """


class SnapshotSource(Protocol):
    """A snapshot of the last checkpoint, to be read in pieces. Call `prepare` first, `close` last."""

    @property
    def index(self) -> int:
        """The index of the last entry that the snapshot covers."""

    @property
    def index_term(self) -> int:
        """The term of the entry at `index`."""

    @property
    def previous_term(self) -> int:
        """The term of the entry at `index - 1`."""

    @property
    def total_bytes(self) -> int:
        """The size of the snapshot."""

    def prepare(self) -> None:
        """Make the copy (blocking). Raises `OSError` if there is no room for it."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset` (a local file; short at the end only)."""

    def close(self) -> None:
        """Remove the copy. May be called at any time, also twice."""


class SnapshotSink(Protocol):
    """A snapshot on its way in. Ends with either `finish` (then `install`) or `abort`."""

    @property
    def index(self) -> int:
        """The index at which the snapshot will stand."""

    def write(self, offset: int, data: bytes) -> None:
        """Write one piece; pieces come in order without gaps. Raises `OSError`."""

    def finish(self) -> None:
        """Make it durable and verify it (blocking).

        Raises `OSError`, or `ValueError` if it is not a snapshot of this group at `index`; call
        `abort` then.
        """

    def abort(self) -> None:
        """Remove what was written. May be called at any time before `install`, also twice."""


class StateMachine(Protocol):
    """The replicated state of one group on this node."""

    @property
    def applied_index(self) -> int:
        """The index of the last applied entry. Goes back only while `store_full`."""

    @property
    def checkpoint_index(self) -> int:
        """The applied index that would survive a crash now."""

    @property
    def failure(self) -> str | None:
        """Why the state machine stopped itself; None while it works. The group then stops too."""

    @property
    def store_full(self) -> bool:
        """The state cannot be written for want of space: the engine steps down until this is False again."""

    @property
    def checkpointing(self) -> bool:
        """Its state waits for the disk: nothing is handed to `apply`, and no read is served, until this is False again.

        The state machine wakes the group then.
        """

    def attach(self, group: GroupHandle) -> None:
        """Bind to the group; called once, before anything else."""

    def apply(self, entries: Sequence[Entry]) -> None:
        """Take committed entries, each exactly once, contiguous over all calls. Never raises.

        The first call after a start begins at `applied_index + 1`, the first after `install(index)`
        at `index + 1`. While `store_full` the entries are only noted and `applied_index` stays behind,
        back at `checkpoint_index`: the state machine fetches them with `GroupHandle.entries` later, they
        are never handed in again. After a `failure` nothing is applied any more.
        """

    def maybe_checkpoint(self, now: float) -> None:
        """Begin a checkpoint if one is due; the log may be compacted when it has ended. `now`: seconds, monotonic.

        Called by the engine after `apply`.
        """

    def overdue(self, now: float) -> bool:
        """Whether somebody here has waited long enough, so that the group needs a turn though nothing comes in."""

    def pump(self) -> None:
        """Join what waits into commands and propose them; called once for each turn after `wake`."""

    def leadership(self, is_leader: bool, term: int) -> None:
        """Tell of each change of leadership of this replica."""

    def snapshot_source(self) -> SnapshotSource:
        """Return a new source; several may live at once."""

    def snapshot_sink(self, index: int, total_bytes: int) -> SnapshotSink:
        """Return a sink for a snapshot at `index` of `total_bytes`."""

    def install(self, sink: SnapshotSink, index: int) -> None:
        """Replace the state by a finished sink's; `applied_index` becomes `index`. Never goes back."""

    def reset_pending(self, why: KVError) -> None:
        """Answer all requests that wait: the proposed ones UNKNOWN_OUTCOME, the others with `why`."""
