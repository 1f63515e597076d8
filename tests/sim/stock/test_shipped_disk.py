"""The files of a stock replica keep what a process crash keeps, and lose what a power loss may take."""

from __future__ import annotations

from random import Random

import pytest

from kv.sim.stock.replica import LogEntry
from kv.sim.stock.shipped_disk import DumpFiles, Meta, ShippedDisk, ShippedJournal

ENTRIES: list[LogEntry] = [(b"a", 1, 0), (b"b", 2, 1), (b"c", 3, 1)]


def journal(disk: ShippedDisk, erased: list[list[LogEntry]] | None = None) -> ShippedJournal:
    """A journal as a starting process opens it."""
    return ShippedJournal(disk, (erased if erased is not None else []).append)


def filled(disk: ShippedDisk) -> ShippedJournal:
    """A journal with the entries of this file."""
    opened = journal(disk)
    for entry in ENTRIES:
        opened.add(*entry)
    return opened


def test_a_journal_is_a_list() -> None:
    """Entries are added at the end and removed from either end."""
    erased: list[list[LogEntry]] = []
    disk = ShippedDisk()
    opened = journal(disk, erased)
    for entry in ENTRIES:
        opened.add(*entry)
    assert (len(opened), opened[0], opened[-1], opened[1:]) == (3, ENTRIES[0], ENTRIES[2], ENTRIES[1:])
    opened.deleteEntriesTo(1)
    opened.deleteEntriesFrom(1)
    assert opened[:] == ENTRIES[1:2]
    assert erased == [ENTRIES[2:]]
    opened.clear()
    assert len(opened) == 0


def test_a_process_crash_keeps_all_but_the_newest_commit_index() -> None:
    """Entries, term and vote are written at once, the commit index with the next term or second."""
    disk = ShippedDisk()
    opened = filled(disk)
    opened.setCurrentTerm(4, 2)
    opened.setRaftCommitIndex(3)
    again = journal(disk)
    assert again[:] == ENTRIES
    assert (again.getCurrentTerm(), again.getVotedForNodeId(), again.getRaftCommitIndex()) == (4, 2, 1)
    opened.onOneSecondTimer()
    assert journal(disk).getRaftCommitIndex() == 3


def test_a_power_loss_keeps_a_prefix_of_the_changes() -> None:
    """Any suffix of what was not written back may be gone, term and vote too; all of it happens."""
    lengths, terms = set(), set()
    for seed in range(50):
        disk = ShippedDisk()
        opened = filled(disk)
        disk.write_back()
        opened.deleteEntriesFrom(1)
        opened.add(b"d", 2, 2)
        opened.setCurrentTerm(2, None)
        disk.power_loss(Random(seed))
        assert disk.entries in (ENTRIES, ENTRIES[:1], [ENTRIES[0], (b"d", 2, 2)])
        lengths.add(len(disk.entries))
        terms.add(journal(disk).getCurrentTerm())
    assert lengths == {1, 2, 3}
    assert terms == {0, 2}


def test_what_a_power_loss_left_is_on_disk() -> None:
    """A second power loss right after the first takes nothing more."""
    disk = ShippedDisk()
    filled(disk).setCurrentTerm(1, 0)
    disk.power_loss(Random(3))
    left, meta = list(disk.entries), disk.meta
    disk.power_loss(Random(4))
    assert (disk.entries, disk.meta) == (left, meta)


def test_dump_files_are_replaced_as_a_whole() -> None:
    """A dump is there once its file is closed and renamed; who reads the old one goes on reading it."""
    disks = {0: ShippedDisk(), 1: ShippedDisk()}
    files = DumpFiles(disks)
    disks[0].dumps["0/dump"] = b"old"
    reader = files.open("0/dump", "rb")
    with files.open("0/dump.tmp", "wb") as writer:
        writer.write(b"new")
    files.replace("0/dump.tmp", "0/dump")
    assert reader.read() == b"old"
    assert files.open("0/dump", "rb").read() == b"new"
    assert files.exists("0/dump")
    assert not files.exists("1/dump")
    with pytest.raises(FileNotFoundError):
        files.open("1/dump", "rb")
    assert disks[0].meta == Meta()
