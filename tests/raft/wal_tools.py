"""Small steps that the tests of the write-ahead log share."""

from __future__ import annotations

from kv.raft.api import Entry
from kv.raft.files import Files
from kv.raft.journal import Journal
from kv.raft.wal import Wal
from kv.raft.wal_format import Record, Scan, decode_segment_header

SALT = 0x5EED_5A17_0000_0001

GroupState = tuple[int, int | None, int | None, tuple[Entry, ...], int, str | None]
"""(base, head's terms, entries above base with their data, term, vote) of one group."""


def open_wal(files: Files, segment_bytes: int = 4096, cache_bytes_max: int = 1 << 20) -> Wal:
    """A log with small segments that rewrites whenever a group holds a segment back."""
    return Wal.open(
        files, salt=SALT, segment_bytes=segment_bytes, cache_bytes_max=cache_bytes_max, space_factor=0
    )


def flush(wal: Wal) -> None:
    """Make everything appended so far durable."""
    batch = wal.begin_flush()
    assert batch is not None
    batch.run()
    wal.end_flush(batch)


def add(journal: Journal, count: int, term: int = 1, size: int = 40) -> None:
    """Append `count` entries of `size` bytes, each with its own content."""
    for _ in range(count):
        index = journal.last + 1
        journal.append(payload(index, term, size), index, term)


def payload(index: int, term: int, size: int = 40) -> bytes:
    """Entry data that tells which entry it belongs to."""
    return (b"\x01%d/%d:" % (index, term)).ljust(size, b".")


def state(journal: Journal) -> GroupState:
    """Everything that a journal promises to keep, read through to the disk where evicted."""
    base = journal.base
    above = tuple((journal.data(i), *journal.entry(i)[1:]) for i in range(base + 1, journal.last + 1))
    return (base, journal.term_at(base - 1), journal.term_at(base), above, journal.term, journal.voted_for)


def states(wal: Wal) -> dict[int, GroupState]:
    """`state` of all groups."""
    return {group: state(wal.journal(group)) for group in wal.groups()}


def records(files: Files, name: str) -> list[Record]:
    """The valid records of a segment."""
    buffer = files.read(name, 0, files.size(name))
    header = decode_segment_header(buffer)
    assert header is not None
    return list(Scan(buffer, header, len(buffer)))


def group(wal: Wal, number: int = 1) -> None:
    """Start a group and make it durable."""
    wal.journal(number).bootstrap()
    flush(wal)


def fill(wal: Wal, number: int, segments: int) -> None:
    """Append and flush entries of a group until so many segments were begun after the present one."""
    goal = len(wal.segments) + segments
    while len(wal.segments) < goal:
        add(wal.journal(number), 2, term=wal.journal(number).last_term)
        flush(wal)


def compact(wal: Wal, rewrite_bytes_max: int = 1 << 20) -> tuple[str, ...]:
    """One whole compaction; returns the names of the removed segments."""
    compaction = wal.plan_compaction(rewrite_bytes_max)
    if compaction is None:
        return ()
    if wal.dirty:
        flush(wal)
    compaction.run()
    wal.end_compaction(compaction)
    return compaction.names
