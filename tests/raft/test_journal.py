"""One group's log in memory: its shape, its bounds, its cache, and what it says is durable."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from kv.raft.files import OsFiles
from kv.raft.journal import PLACEHOLDER
from kv.raft.wal import Wal, WalCorruption
from kv.sim.disk import MemoryFiles
from tests.raft.wal_tools import add, flush, open_wal, payload, state, states


@pytest.fixture
def files() -> MemoryFiles:
    """An empty disk."""
    return MemoryFiles()


@pytest.fixture
def wal(files: MemoryFiles) -> Wal:
    """An empty log on it."""
    return open_wal(files)


def test_empty(wal: Wal) -> None:
    """A journal without a head holds nothing and takes no entry."""
    journal = wal.journal(1)
    assert (len(journal), journal.first, journal.base, journal.last, journal.last_term) == (0, 0, 0, 0, 0)
    assert (journal.term, journal.voted_for, journal.seq, journal.durable_index) == (0, None, 0, 0)
    assert journal.term_at(0) is None
    with pytest.raises(AssertionError, match="bootstrap it first"):
        journal.append(b"\x01", 1, 1)


def test_bootstrap(wal: Wal) -> None:
    """A new group starts from the two no-op entries, which are durable only after a flush."""
    journal = wal.journal(1)
    journal.bootstrap()
    assert journal.slice(0) == [(b"\x01", 1, 0), (b"\x01", 2, 0)]
    assert (journal.first, journal.base, journal.last, journal.last_term) == (1, 2, 2, 0)
    assert journal.durable_index == 0
    flush(wal)
    assert journal.durable_index == 2


def test_entries(wal: Wal) -> None:
    """Entries are tuples of data, index and term, found by index and by position."""
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 2, term=1)
    add(journal, 1, term=4)
    expected = [(payload(3, 1), 3, 1), (payload(4, 1), 4, 1), (payload(5, 4), 5, 4)]
    assert journal.slice(2) == expected
    assert journal.slice(2, 4) == expected[:2]
    assert journal.slice(-1) == expected[2:]
    assert [journal.entry(i) for i in (3, 4, 5)] == expected
    assert [journal.data(i) for i in (3, 4, 5)] == [data for data, _, _ in expected]
    assert [journal.term_at(i) for i in range(7)] == [None, 0, 0, 1, 1, 4, None]
    assert (journal.last, journal.last_term, len(journal)) == (5, 4, 5)


def test_data_that_is_not_there(wal: Wal) -> None:
    """The head has no data, and neither has what is outside the log."""
    journal = wal.journal(1)
    journal.install_snapshot(10, 3, 2)
    add(journal, 1, term=3)
    for index in (8, 9, 10, 12):
        with pytest.raises(IndexError):
            journal.data(index)
    with pytest.raises(IndexError):
        journal.entry(8)


@pytest.mark.parametrize(
    ("data", "index", "term"),
    [
        pytest.param(b"\x01", 5, 1, id="gap"),
        pytest.param(b"\x01", 3, 1, id="again"),
        pytest.param(b"\x01", 4, 0, id="older term"),
        pytest.param(b"\x00x", 4, 1, id="other kind"),
        pytest.param(b"", 4, 1, id="empty"),
    ],
)
def test_append_that_breaks_the_log(wal: Wal, data: bytes, index: int, term: int) -> None:
    """An entry that does not follow the last one is never recorded."""
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 1)
    seq = wal.last_seq
    with pytest.raises(AssertionError):
        journal.append(data, index, term)
    assert (wal.last_seq, journal.last) == (seq, 3)


def test_truncate(wal: Wal, files: MemoryFiles) -> None:
    """A truncation removes the tail, and never reaches the head."""
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 4)
    flush(wal)
    journal.truncate_from(5)
    assert (journal.last, journal.durable_index, journal.cached_bytes) == (4, 4, 80)
    add(journal, 1, term=2)
    assert journal.durable_index == 4
    for index in (2, 1, 6, 99):
        with pytest.raises(AssertionError):
            journal.truncate_from(index)
    flush(wal)
    assert journal.durable_index == 5
    assert state(open_wal(files).journal(1)) == state(journal)


def test_durable_index_after_overwrite_in_flight(wal: Wal) -> None:
    """A flush of entries that were truncated meanwhile makes none of their successors durable."""
    journal = wal.journal(1)
    journal.bootstrap()
    flush(wal)
    add(journal, 3)
    batch = wal.begin_flush()
    assert batch is not None
    journal.truncate_from(4)
    add(journal, 2, term=2)
    batch.run()
    wal.end_flush(batch)
    assert journal.durable_index == 3
    flush(wal)
    assert journal.durable_index == 5


def test_compact(wal: Wal, files: MemoryFiles) -> None:
    """A compaction leaves the head and all entries after it."""
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 2, term=1)
    add(journal, 4, term=2)
    flush(wal)
    journal.compact_to(5)
    assert journal.slice(0, 2) == [(PLACEHOLDER, 4, 1), (PLACEHOLDER, 5, 2)]
    assert (journal.first, journal.base, journal.last, journal.durable_index) == (4, 5, 8, 8)
    assert journal.cached_bytes == 3 * 40
    assert journal.data(6) == payload(6, 2)
    flush(wal)
    assert state(open_wal(files).journal(1)) == state(journal)
    journal.compact_to(8)
    assert (journal.first, journal.last, journal.cached_bytes) == (7, 8, 0)


def test_compact_bounds(wal: Wal) -> None:
    """A compaction stays within the log; the same again records nothing."""
    journal = wal.journal(1)
    journal.install_snapshot(10, 1, 1)
    add(journal, 2)
    seq = journal.seq
    for index in (9, 13):
        with pytest.raises(AssertionError):
            journal.compact_to(index)
    journal.compact_to(10)
    assert journal.seq == seq


def test_compact_to_what_is_not_durable(wal: Wal, files: MemoryFiles) -> None:
    """A head made of entries that still wait for their flush is durable with them."""
    journal = wal.journal(1)
    journal.install_snapshot(10, 1, 1)
    add(journal, 3)
    journal.compact_to(11)
    assert journal.durable_index == 0
    flush(wal)
    assert journal.durable_index == 13
    assert state(open_wal(files).journal(1)) == state(journal)


def test_install_snapshot(wal: Wal, files: MemoryFiles) -> None:
    """A snapshot replaces the whole log by its head, durable with its mark; it never goes back."""
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 4)
    flush(wal)
    journal.install_snapshot(20, 7, 6)
    assert journal.slice(0) == [(PLACEHOLDER, 19, 6), (PLACEHOLDER, 20, 7)]
    assert (journal.durable_index, journal.cached_bytes) == (0, 0)
    add(journal, 1, term=7)
    flush(wal)
    assert journal.durable_index == 21
    with pytest.raises(AssertionError):
        journal.install_snapshot(19, 7, 7)
    assert state(open_wal(files).journal(1)) == state(journal)


def test_hard_state(wal: Wal, files: MemoryFiles) -> None:
    """Term and vote are recorded when they change, and a restart brings them back."""
    journal = wal.journal(1)
    journal.set_hard_state(3, None)
    journal.set_hard_state(3, "n1")
    seq = wal.last_seq
    assert journal.hard_state_seq == journal.seq == seq
    journal.set_hard_state(3, "n1")
    assert wal.last_seq == seq
    flush(wal)
    again = open_wal(files).journal(1)
    assert (again.term, again.voted_for, len(again)) == (3, "n1", 0)


@pytest.mark.parametrize(
    ("term", "voted_for"),
    [(2, None), (3, "n2"), (3, None), (4, "")],
    ids=["older", "other", "taken back", "empty"],
)
def test_hard_state_that_breaks_a_promise(wal: Wal, term: int, voted_for: str | None) -> None:
    """Terms never go back, and a vote is given once in a term."""
    journal = wal.journal(1)
    journal.set_hard_state(3, "n1")
    with pytest.raises(AssertionError):
        journal.set_hard_state(term, voted_for)
    assert (journal.term, journal.voted_for) == (3, "n1")


def test_seq_tells_what_is_durable(wal: Wal) -> None:
    """Every change of a group moves its `seq`, which `durable_seq` reaches with the flush."""
    journal, other = wal.journal(1), wal.journal(2)
    seen = [journal.seq]
    journal.bootstrap()
    seen.append(journal.seq)
    add(journal, 2)
    seen.append(journal.seq)
    journal.set_hard_state(1, None)
    seen.append(journal.seq)
    journal.truncate_from(4)
    seen.append(journal.seq)
    journal.compact_to(3)
    seen.append(journal.seq)
    journal.install_snapshot(9, 1, 1)
    seen.append(journal.seq)
    assert seen == sorted(set(seen))
    other.bootstrap()
    assert journal.seq < other.seq == wal.last_seq
    assert wal.durable_seq < seen[1]
    flush(wal)
    assert wal.durable_seq == other.seq


def test_cache_evicts_oldest_durable(files: MemoryFiles) -> None:
    """Beyond its limit the cache drops the oldest durable payloads, which are read through from disk."""
    wal = open_wal(files, cache_bytes_max=100)
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 10, size=30)
    assert journal.cached_bytes == 300
    assert journal.slice(2, 3) == [(payload(3, 1, 30), 3, 1)]
    flush(wal)
    assert journal.cached_bytes == 90
    assert journal.slice(2) == [
        *[(PLACEHOLDER, index, 1) for index in range(3, 10)],
        *[(payload(index, 1, 30), index, 1) for index in range(10, 13)],
    ]
    assert [journal.data(i) for i in range(3, 13)] == [payload(i, 1, 30) for i in range(3, 13)]
    add(journal, 10, size=30)
    assert journal.cached_bytes == 390
    journal.truncate_from(20)
    assert journal.cached_bytes == 90 + 7 * 30
    journal.truncate_from(5)
    assert journal.cached_bytes == 0
    add(journal, 1, term=2, size=30)
    assert journal.data(5) == payload(5, 2, 30)
    flush(wal)
    assert journal.cached_bytes == 30
    assert journal.data(4) == payload(4, 1, 30)


def test_cache_after_restart(files: MemoryFiles) -> None:
    """A restart keeps the newest payloads within the limit, and reads the others through."""
    wal = open_wal(files)
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 10, size=30)
    flush(wal)
    again = open_wal(files, cache_bytes_max=100).journal(1)
    assert again.cached_bytes == 90
    assert [len(data) for data, _, _ in again.slice(2)] == [1] * 7 + [30] * 3
    assert state(again) == state(journal)
    assert again.durable_index == 12


def test_caches_share_a_total(files: MemoryFiles) -> None:
    """Trimmed, all groups together keep the total of durable payloads; below it nothing goes."""
    wal = Wal.open(files, salt=1, segment_bytes=8192, cache_bytes_max=300, cache_total_bytes_max=300)
    small, large = wal.journal(1), wal.journal(2)
    for journal, entries in ((small, 2), (large, 8)):
        journal.bootstrap()
        add(journal, entries, size=30)
    flush(wal)
    wal.trim_caches()
    assert (small.cached_bytes, large.cached_bytes) == (60, 240)
    add(large, 1, size=30)
    wal.trim_caches()
    assert (small.cached_bytes, large.cached_bytes) == (60, 150)
    assert [large.data(i) for i in range(3, 12)] == [payload(i, 1, 30) for i in range(3, 12)]
    flush(wal)
    again = Wal.open(files, salt=2, segment_bytes=8192, cache_bytes_max=300, cache_total_bytes_max=100)
    assert (again.journal(1).cached_bytes, again.journal(2).cached_bytes) == (60, 30)
    assert states(again) == states(wal)


def test_trimming_keeps_what_is_not_durable(files: MemoryFiles) -> None:
    """What the disk does not hold stays in memory, whatever the total."""
    wal = Wal.open(files, salt=1, segment_bytes=8192, cache_bytes_max=300, cache_total_bytes_max=10)
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 3, size=30)
    wal.trim_caches()
    assert journal.cached_bytes == 90


def test_compaction_of_evicted_entries(files: MemoryFiles) -> None:
    """A compaction counts only what is in the cache."""
    wal = open_wal(files, cache_bytes_max=100)
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 10, size=30)
    flush(wal)
    journal.compact_to(11)
    assert journal.cached_bytes == 30
    journal.compact_to(12)
    assert journal.cached_bytes == 0


def test_read_through_verifies(files: MemoryFiles) -> None:
    """Evicted data that changed on disk is corruption, never returned."""
    wal = open_wal(files, cache_bytes_max=0)
    journal = wal.journal(1)
    journal.bootstrap()
    add(journal, 3)
    flush(wal)
    name = wal.segments[0]
    offset = files.read(name, 0, files.size(name)).index(payload(4, 1))
    files.flip(name, offset + 20, 0x02)
    assert journal.data(3) == payload(3, 1)
    with pytest.raises(WalCorruption, match="entry 4 of group 1 is damaged") as caught:
        journal.data(4)
    assert caught.value.segment == name


def test_evicted_entries_are_small(tmp_path: Path) -> None:
    """An evicted entry takes less than 200 bytes of memory, whatever its data took."""
    wal = open_wal(OsFiles(tmp_path), segment_bytes=1 << 22, cache_bytes_max=0)
    journal = wal.journal(1)
    journal.bootstrap()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        add(journal, 2000, size=1000)
        flush(wal)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        wal.close()
    assert held < 2000 * 200
