"""The log against plain lists: any history of changes, flushes, full disks, compactions and crashes.

The model keeps, for every record, the state of all groups after it. A crash may lose only records that
were not durable, and only a suffix of them: what is read back is one of those states, at or after the
durable one.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kv.raft.api import Entry
from kv.raft.journal import Journal
from kv.raft.wal import Compaction, Flush, Wal, WalFailed, WalFull
from kv.sim.disk import MemoryFiles
from tests.raft.wal_tools import GroupState, open_wal, states

SEGMENT_BYTES = 1400
CACHE_BYTES_MAX = 150
GROUPS = st.integers(1, 3)
SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=5)
FRACTION = st.floats(0, 1, exclude_max=True)


@dataclass(frozen=True)
class GroupModel:
    """One group as plain values."""

    previous_term: int
    base: int
    base_term: int
    entries: tuple[Entry, ...]
    term: int
    voted_for: str | None

    @property
    def last(self) -> int:
        return self.base + len(self.entries)

    @property
    def last_term(self) -> int:
        return self.entries[-1][2] if self.entries else self.base_term

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`, head included."""
        if index == self.base - 1:
            return self.previous_term
        return self.base_term if index == self.base else self.entries[index - self.base - 1][2]

    def state(self) -> GroupState:
        """As `wal_tools.state` tells it of a journal."""
        return (self.base, self.previous_term, self.base_term, self.entries, self.term, self.voted_for)


Model = dict[int, GroupModel]


class WalMachine(RuleBasedStateMachine):
    """Rules are what an engine and a disk may do, in any order."""

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.random = Random(seed)
        self.files = MemoryFiles()
        self.model: Model = {}
        self._open()

    def _open(self) -> None:
        self.wal: Wal = open_wal(self.files, SEGMENT_BYTES, CACHE_BYTES_MAX)
        self.flush: Flush | None = None
        self.compaction: Compaction | None = None
        self.history: list[tuple[int, Model]] = [(0, dict(self.model))]

    def _recorded(self, group: int, model: GroupModel | None) -> None:
        if model is None:
            del self.model[group]
        else:
            self.model[group] = model
        self.history.append((self.wal.last_seq, dict(self.model)))

    def _started(self, group: int) -> tuple[Journal, GroupModel]:
        journal = self.wal.journal(group)
        if group not in self.model:
            journal.bootstrap()
            self._recorded(group, GroupModel(0, 2, 0, (), 0, None))
        return journal, self.model[group]

    # ------------------------------------------------------------ changes of a group

    @rule(group=GROUPS, sizes=SIZES, newer=st.booleans())
    def append(self, group: int, sizes: list[int], newer: bool) -> None:
        journal, model = self._started(group)
        for size in sizes:
            term = model.last_term + newer
            entry = (b"\x01" + self.random.randbytes(size - 1), model.last + 1, term)
            journal.append(*entry)
            model = replace(model, entries=(*model.entries, entry))
            self._recorded(group, model)

    @rule(group=GROUPS, place=FRACTION)
    def truncate(self, group: int, place: float) -> None:
        journal, model = self._started(group)
        if model.entries:
            kept = int(place * len(model.entries))
            journal.truncate_from(model.base + 1 + kept)
            self._recorded(group, replace(model, entries=model.entries[:kept]))

    @rule(group=GROUPS, place=FRACTION)
    def compact(self, group: int, place: float) -> None:
        journal, model = self._started(group)
        dropped = 1 + int(place * len(model.entries))
        if dropped <= len(model.entries):
            base = model.base + dropped
            journal.compact_to(base)
            entries, terms = model.entries[dropped:], (model.term_at(base - 1), model.term_at(base))
            self._recorded(
                group, replace(model, base=base, entries=entries, previous_term=terms[0], base_term=terms[1])
            )

    @rule(group=GROUPS, ahead=st.integers(0, 5), newer=st.integers(0, 2))
    def install_snapshot(self, group: int, ahead: int, newer: int) -> None:
        journal, model = self._started(group)
        previous_term, index = model.last_term, model.last + ahead
        term = previous_term + newer
        journal.install_snapshot(index, term, previous_term)
        self._recorded(group, GroupModel(previous_term, index, term, (), model.term, model.voted_for))

    @rule(group=GROUPS, voted_for=st.sampled_from([None, "n1", "n2"]))
    def hard_state(self, group: int, voted_for: str | None) -> None:
        journal, model = self._started(group)
        journal.set_hard_state(model.term + 1, voted_for)
        self._recorded(group, replace(model, term=model.term + 1, voted_for=voted_for))

    @rule(group=GROUPS)
    def drop_group(self, group: int) -> None:
        if group in self.model:
            self.wal.drop_group(group)
            self._recorded(group, None)

    # ------------------------------------------------------------ flushes

    @precondition(lambda self: self.flush is None)
    @rule()
    def begin_flush(self) -> None:
        self.flush = self.wal.begin_flush()

    @precondition(lambda self: self.flush is not None)
    @rule()
    def run_flush(self) -> None:
        assert self.flush is not None
        self.flush.run()
        self.wal.end_flush(self.flush)
        self.flush = None

    @precondition(lambda self: self.flush is None)
    @rule()
    def whole_flush(self) -> None:
        self.begin_flush()
        if self.flush is not None:
            self.run_flush()

    @rule(group=GROUPS, batches=st.integers(2, 8))
    def steady_work(self, group: int, batches: int) -> None:
        for _ in range(batches):
            self.append(group, [100, 10], newer=False)
            if self.flush is None:
                self.whole_flush()

    @precondition(lambda self: self.flush is None)
    @rule(group=GROUPS, place=FRACTION, sizes=SIZES)
    def overwrite_during_flush(self, group: int, place: float, sizes: list[int]) -> None:
        self.append(group, sizes, newer=False)
        self.begin_flush()
        self.truncate(group, place)
        self.append(group, sizes, newer=True)
        self.run_flush()

    @precondition(lambda self: self.flush is not None)
    @rule(place=FRACTION, creating=st.booleans())
    def full_disk(self, place: float, creating: bool) -> None:
        assert self.flush is not None
        if creating:
            self.files.create_error = errno.ENOSPC
        else:
            self.files.write_error = (errno.ENOSPC, int(place * self.flush.bytes))
        try:
            self.flush.run()
        except WalFull:
            self.wal.abandon_flush(self.flush)
        else:
            self.wal.end_flush(self.flush)
        self.files.create_error = self.files.write_error = None
        self.flush = None

    # ------------------------------------------------------------ compaction of segments

    @precondition(lambda self: self.compaction is None)
    @rule(rewrite_bytes_max=st.sampled_from([1, 300, 10_000]))
    def plan_compaction(self, rewrite_bytes_max: int) -> None:
        self.compaction = self.wal.plan_compaction(rewrite_bytes_max)
        self.history.append((self.wal.last_seq, dict(self.model)))

    @precondition(lambda self: self.compaction is not None and self.wal.durable_seq >= self.compaction.seq)
    @rule()
    def run_compaction(self) -> None:
        assert self.compaction is not None
        self.compaction.run()
        self.wal.end_compaction(self.compaction)
        self.compaction = None

    @precondition(lambda self: self.compaction is None and self.flush is None)
    @rule()
    def whole_compaction(self) -> None:
        self.plan_compaction(10_000)
        self.whole_flush()
        if self.compaction is not None and self.wal.durable_seq >= self.compaction.seq:
            self.run_compaction()

    @precondition(lambda self: self.compaction is None and self.flush is None)
    @rule()
    def checkpoint(self) -> None:
        for group in self.wal.groups():
            self.compact(group, 1 - 1e-9)
        self.whole_flush()
        self.whole_compaction()

    # ------------------------------------------------------------ crashes

    @rule(power=st.booleans())
    def crash(self, power: bool) -> None:
        self._reopen(power)

    @precondition(lambda self: self.flush is not None)
    @rule(place=FRACTION, power=st.booleans(), syncing=st.booleans())
    def crash_in_flush(self, place: float, power: bool, syncing: bool) -> None:
        assert self.flush is not None
        if syncing:
            self.files.sync_error = errno.EIO
        else:
            self.files.write_error = (errno.EIO, int(place * self.flush.bytes))
        try:
            self.flush.run()
        except WalFailed:
            self._reopen(power)
        else:
            raise AssertionError("the disk's error was lost")

    def _reopen(self, power: bool) -> None:
        durable_seq = self.wal.durable_seq
        if power:
            self.files.power_loss(self.random)
        found = states(open_wal(self.files, SEGMENT_BYTES, CACHE_BYTES_MAX))
        durable = max(i for i, (seq, _) in enumerate(self.history) if seq <= durable_seq)
        survivors = [model for _, model in self.history[durable:] if _told(model) == found]
        assert survivors, (durable_seq, found)
        self.model = dict(survivors[0])
        self._open()

    # ------------------------------------------------------------ what always holds

    @invariant()
    def memory_agrees(self) -> None:
        if hasattr(self, "wal"):
            assert states(self.wal) == _told(self.model)
            for group in self.wal.groups():
                self._check_bounds(self.wal.journal(group))

    def _check_bounds(self, journal: Journal) -> None:
        assert len(journal) == journal.last - journal.first + 1
        assert journal.durable_index <= journal.last
        if journal.seq <= self.wal.durable_seq:
            assert journal.durable_index == journal.last
            assert journal.cached_bytes <= CACHE_BYTES_MAX


def _told(model: Model) -> dict[int, GroupState]:
    return {group: one.state() for group, one in model.items()}


TestWalMachine = WalMachine.TestCase
TestWalMachine.settings = settings(max_examples=25, stateful_step_count=50)
