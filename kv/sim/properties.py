"""What must never happen inside the cluster: the properties of logs, leaders and stores, by name.

Here lives the `Ledger`: it sees each append, each apply, each change of leadership, each checkpoint,
each death and each start of every simulated node, and holds them against each other and against the
independent model. What clients saw is judged in `kv.sim.promises`. Nothing here acts on the cluster.

The committed log of a group is what any replica was handed to apply: the first to apply an index
defines it, everyone else must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from kv.partition.partition import Replica
from kv.partition.record import decode_record
from kv.partition.store import Store
from kv.raft.api import Entry
from kv.raft.group import Group
from kv.raft.journal import Journal
from kv.raft.wal import Flush, Wal
from kv.raft.wal_format import Kind
from kv.sim.durable import DurableMarks, HardState, follows
from kv.sim.inside import inside, put_inside
from kv.sim.model import FIRST_INDEX, DoublyApplied, ForbiddenApplied, Model

PROPERTIES: Final = {
    "one-leader-per-term": "at most one replica leads a group in a term",
    "log-matching": "two logs that have an entry of the same index and term are equal up to it",
    "leader-completeness": "a leader has every entry that was committed in an earlier term",
    "committed-entries-never-change": "all replicas apply the same entry at an index",
    "applied-in-order": "a replica applies entries without gaps, and never goes back while it runs",
    "durable-quorum": "what is applied is on the disks of a quorum",
    "durable-state-survives": "after a crash the log holds every durable entry, and term and vote",
    "durable-state-never-goes-back": "a start finds the term, vote and checkpoint of the last sync, or later ones",
    "exactly-once": "each request is applied at most once",
    "acknowledged-writes-survive": "an acknowledged write is in the committed log, with the result that was told",
    "definite-failures-never-applied": "a write that failed definitely is never in the committed log",
    "linearizable": "reads and writes have an order that agrees with real time and with what they returned",
    "stale-reads-are-real": "a read of any level returns the state at its index",
    "session-reads-see-what-was-seen": "a SESSION read is not older than anything that its client has seen",
    "bounded-reads-are-young": "a BOUNDED read sees what was acknowledged so long before it began",
    "scans-read-one-index": "a scan reads each partition at one index",
    "evidence-is-true": "the level, age and revision in the evidence are true",
    "all-means-all": "a write acknowledged at level ALL is on every replica's disk",
    "outcomes-are-true": "what an outcome query answers is what happened, for good",
    "equal-content": "a replica's state at an index is the model's",
    "no-replica-stops": "no replica or process stops itself without an injected cause",
    "damage-is-refused": "a node never serves from a damaged log",
    "progress": "after the faults end, every partition accepts writes and all replicas converge",
    "undisturbed-leader": "a member that was cut off does not depose a working leader when it returns",
    "bounds": "queues, caches, sessions and logs stay within their limits",
    "no-stray-error": "no callback or task ends with an unexpected error",
}
"""Name and meaning of each."""

Fail = Callable[[str, str, Sequence[str]], None]
"""(property, what was seen, the nodes concerned)."""


class Watched(Protocol):
    """A simulated node, as far as the ledger looks."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def starts(self) -> int:
        """How often it was started."""

    @property
    def journals(self) -> dict[int, Journal]:
        """The logs of the running process, or of the last one that ran."""

    @property
    def damaged(self) -> bool:
        """Whether its disk was tampered with."""


class CutByDamage(OSError):
    """The simulator ends a node whose log lost durable records to the damage that it did."""


@dataclass(slots=True)
class Committed:
    """The committed log of one group."""

    entries: list[tuple[int, bytes]] = field(default_factory=list)
    """(term, data) from FIRST_INDEX on."""
    noticed_in: list[int] = field(default_factory=list)
    """The term of the replica that applied each first: never below the term that committed it."""

    @property
    def last(self) -> int:
        """Last index."""
        return FIRST_INDEX - 1 + len(self.entries)


@dataclass(frozen=True, slots=True)
class _Remains:
    """What a dead process had made durable of one group."""

    base: int
    terms: tuple[int, ...]
    """Of the durable entries from base + 1 on."""
    hard_state: HardState | None
    checkpoint: int


class Ledger:
    """See the file's docstring."""

    def __init__(
        self,
        fail: Fail,
        nodes: Callable[[], Sequence[Watched]],
        session_ttl_ms: int,
        sessions_max: int,
        committed: Callable[[int, int, bytes], None],
    ) -> None:
        """`committed` is told of each new entry: group, index, data."""
        self.fail, self._nodes = fail, nodes
        self._session_ttl_ms, self._sessions_max, self._told = session_ttl_ms, sessions_max, committed
        self.logs: dict[int, Committed] = {}
        self.models: dict[int, Model] = {}
        self.forbidden: dict[bytes, str] = {}
        self.leaders: dict[tuple[int, int, int], tuple[str, int]] = {}
        self._appended: dict[tuple[int, int, int, int], tuple[int | None, bytes]] = {}
        self._applied: dict[tuple[str, int], int] = {}
        self._remains: dict[tuple[str, int], _Remains] = {}
        self._marks = DurableMarks()
        self.commits = self.elections = self.checkpoints_compared = 0

    def model(self, group: int) -> Model:
        """The model of a group."""
        model = self.models.get(group)
        if model is None:
            model = self.models[group] = Model(self._session_ttl_ms, self._sessions_max, self.forbidden)
            self.logs[group] = Committed()
        return model

    # ------------------------------------------------------------ a process comes and goes

    def attach(self, node: Watched, group: Group) -> None:
        """A replica was started: compare what it found with what must be there, and watch it."""
        replica = group.machine
        assert isinstance(replica, Replica)
        self.model(group.group_id)
        self._compare_remains(node, group)
        self._compare_marks(node, group, replica.checkpoint_index)
        self._applied[node.name, group.group_id] = replica.applied_index
        self._watch_appends(node, group)
        self._watch_replica(node, group, replica)
        store: Store = inside(replica, "_store")
        self._watch_store(node, group.group_id, store)

    def died(self, node: Watched, durable_seq: int, checkpoints: dict[int, int]) -> None:
        """A process ended: note what its disk must still hold."""
        for group, journal in node.journals.items():
            durable = range(journal.base + 1, journal.durable_index + 1)
            known = journal.hard_state_seq <= durable_seq
            self._remains[node.name, group] = _Remains(
                journal.base,
                tuple(journal.entry(index)[2] for index in durable),
                (journal.term, journal.voted_for) if known else None,
                checkpoints.get(group, 0),
            )

    def watch_log(self, node: Watched, wal: Wal) -> None:
        """A process opened its log: note the term and vote that each of its syncs completes."""
        end_flush = wal.end_flush

        def watched(flush: Flush) -> None:
            end_flush(flush)
            for draft in inside(flush, "_drafts"):
                if draft.kind is Kind.HARD_STATE:
                    self._marks.synced(node.name, draft.group, (draft.term, draft.payload.decode() or None))

        put_inside(wal, "end_flush", watched)

    def _compare_marks(self, node: Watched, group: Group, checkpoint: int) -> None:
        found = (group.journal.term, group.journal.voted_for)
        text = self._marks.found(node.name, group.group_id, found, checkpoint)
        if text is not None and not node.damaged:
            self.fail("durable-state-never-goes-back", text, [node.name])

    def _compare_remains(self, node: Watched, group: Group) -> None:
        before = self._remains.pop((node.name, group.group_id), None)
        if before is None:
            return
        if node.damaged:
            _refuse_if_cut(before, group.journal)
            return
        journal, where = group.journal, f"{node.name} group {group.group_id}"
        for offset, term in enumerate(before.terms):
            index = before.base + 1 + offset
            if index > journal.base and journal.term_at(index) != term:
                text = f"{where}: durable entry {index} of term {term} became {journal.term_at(index)}"
                self.fail("durable-state-survives", text, [node.name])
                return
        found = (journal.term, journal.voted_for)
        if before.hard_state is not None and not follows(before.hard_state, found):
            text = f"{where}: term and vote were {before.hard_state}, are {found}"
            self.fail("durable-state-survives", text, [node.name])
        if group.machine.applied_index < before.checkpoint:
            text = f"{where}: checkpoint {before.checkpoint} became {group.machine.applied_index}"
            self.fail("durable-state-survives", text, [node.name])

    # ------------------------------------------------------------ the log

    def _watch_appends(self, node: Watched, group: Group) -> None:
        journal, append = group.journal, group.journal.append
        number, appended, life = group.group_id, self._appended, _term_life(node, group)

        def watched(data: bytes, index: int, term: int) -> None:
            previous = journal.term_at(index - 1)
            mine = (previous, data)
            first = appended.setdefault((number, index, term, life), mine)
            if first is not mine and first != mine:
                text = f"group {number}: two entries {index} of term {term}, the terms before them {first[0]} and {previous}"
                self.fail("log-matching", text, [node.name])
            append(data, index, term)

        put_inside(journal, "append", watched)

    # ------------------------------------------------------------ leaders

    def _watch_replica(self, node: Watched, group: Group, replica: Replica) -> None:
        leadership, apply = replica.leadership, replica.apply

        def watched_leadership(is_leader: bool, term: int) -> None:
            if is_leader:
                self._leads(node, group, term)
            leadership(is_leader, term)

        def watched_apply(entries: Sequence[Entry]) -> None:
            self._applies(node, group, entries)
            apply(entries)

        put_inside(replica, "leadership", watched_leadership)
        put_inside(replica, "apply", watched_apply)

    def _leads(self, node: Watched, group: Group, term: int) -> None:
        self.elections += 1
        me, number = (node.name, node.starts), group.group_id
        other = self.leaders.setdefault((number, term, _term_life(node, group)), me)
        if other != me:
            text = (
                f"group {number} term {term}: {other[0]} (start {other[1]}) and {me[0]} (start {me[1]}) lead"
            )
            self.fail("one-leader-per-term", text, [other[0], node.name])
        log, journal = self.logs[number], group.journal
        for index in range(max(journal.base + 1, FIRST_INDEX), log.last + 1):
            entry_term, _ = log.entries[index - FIRST_INDEX]
            if log.noticed_in[index - FIRST_INDEX] < term and journal.term_at(index) != entry_term:
                text = (
                    f"group {number}: {node.name} leads term {term} without the committed entry {index} "
                    f"of term {entry_term} (it has term {journal.term_at(index)})"
                )
                self.fail("leader-completeness", text, [node.name])
                return

    # ------------------------------------------------------------ applying

    def _applies(self, node: Watched, group: Group, entries: Sequence[Entry]) -> None:
        number = group.group_id
        log, before = self.logs[number], self._applied[node.name, number]
        snapshot = group.journal.base
        for data, index, term in entries:
            if index != before + 1 and not (index == snapshot + 1 > before):
                text = f"group {number}: {node.name} applies {index} after {before}"
                self.fail("applied-in-order", text, [node.name])
            before = index
            if index <= log.last:
                self._same(node, number, log, data, index, term)
            elif index == log.last + 1:
                self._commits(node, group, log, data, index, term)
            else:
                text = f"group {number}: {node.name} applies {index}, the log is known up to {log.last}"
                self.fail("applied-in-order", text, [node.name])
        self._applied[node.name, number] = before

    def _same(self, node: Watched, number: int, log: Committed, data: bytes, index: int, term: int) -> None:
        known_term, known = log.entries[index - FIRST_INDEX]
        if (known_term, known) != (term, data):
            text = f"group {number} entry {index}: committed with term {known_term}, {node.name} applies one of term {term}"
            self.fail("committed-entries-never-change", text, [node.name])

    def _commits(
        self, node: Watched, group: Group, log: Committed, data: bytes, index: int, term: int
    ) -> None:
        number = group.group_id
        holders = [
            other.name for other in self._nodes() if _holds_durably(other.journals.get(number), index, term)
        ]
        if len(holders) < len(group.members) // 2 + 1:
            text = f"group {number}: {node.name} applies {index} of term {term}, which is durable on {holders} only"
            self.fail("durable-quorum", text, [node.name])
        log.entries.append((term, data))
        log.noticed_in.append(group.term)
        self.commits += 1
        model = self.models[number]
        try:
            model.apply(index, data)
        except DoublyApplied as error:
            self.fail("exactly-once", f"group {number}: {error}", [node.name])
        except ForbiddenApplied as error:
            self.fail("definite-failures-never-applied", f"group {number}: {error}", [node.name])
        self._told(number, index, data)

    # ------------------------------------------------------------ the state

    def _watch_store(self, node: Watched, number: int, store: Store) -> None:
        end_checkpoint, install = store.end_checkpoint, store.install

        def watched() -> None:
            end_checkpoint()
            index = store.last.applied_index
            self._marks.checkpointed(node.name, number, index)
            self.checkpoints_compared += 1
            self.compare_content(node, number, store, index)

        def watched_install(index: int) -> None:
            install(index)
            self._marks.checkpointed(node.name, number, index)

        put_inside(store, "end_checkpoint", watched)
        put_inside(store, "install", watched_install)

    def compare_content(self, node: Watched, number: int, store: Store, index: int) -> None:
        """The store, which stands at `index`, must hold what the model holds there."""
        expected = self.models[number].content(index)
        for key, record in store.range(b"", b""):
            created, modified, count, value = decode_record(record)
            wanted = expected.pop(bytes(key), None)
            if wanted is None or (wanted.created, wanted.index, wanted.version, wanted.value) != (
                created,
                modified,
                count,
                value,
            ):
                text = f"group {number} at {index}: {node.name} has {key!r} = {value!r}@{modified}, the model {wanted}"
                self.fail("equal-content", text, [node.name])
                return
        if expected:
            text = f"group {number} at {index}: {node.name} lacks {sorted(expected)[:3]}"
            self.fail("equal-content", text, [node.name])


def _term_life(node: Watched, group: Group) -> int:
    """What a term belongs to besides its group.

    A group of one leads before its term is on its disk: nobody else hears of it, and what it answers waits
    for the disk. So the same term may be led again after a death, with other entries.
    """
    return node.starts if len(group.members) == 1 else 0


def _holds_durably(journal: Journal | None, index: int, term: int) -> bool:
    if journal is None:
        return False
    return journal.base >= index or (journal.durable_index >= index and journal.term_at(index) == term)


def _refuse_if_cut(before: _Remains, journal: Journal) -> None:
    """A damaged last batch cannot be told from a torn write: the log is cut, and that member is lost."""
    for offset, term in enumerate(before.terms):
        index = before.base + 1 + offset
        if index > journal.base and journal.term_at(index) != term:
            raise CutByDamage(f"the log was cut at {index}")
    if before.hard_state is not None and not follows(before.hard_state, (journal.term, journal.voted_for)):
        raise CutByDamage("term or vote were cut")
