"""What the records of the write-ahead log mean: the pure fold from records to each group's log.

What lives here: `Replay`, fed with every record in log order, and `GroupLog`, what it leaves of a group.
What must not: files and journals.

Records of a group are not always contiguous in index. Compaction of the segments appends again what is
live in an old one ("rewrite"), so the same entry may come twice, and entries of an old segment may come
after later ones; and the oldest segments are gone, so the first records of a group may come without a
head. The rules that keep this exact:

- Segments go oldest first. A TRUNCATE stands after what it removes, so it never goes before that does.
- A rewrite states what is live at its own place in the log. So the plain fold is right: ENTRY sets its
  index, TRUNCATE and COMPACT and SNAPSHOT remove, HARD_STATE replaces. What a TRUNCATE removed before
  the rewrite was not rewritten; what it removes after the rewrite is removed.
- A second ENTRY of an index is legal only with the same term, and then it is the same entry
  (Raft's Log Matching, dissertation 3.5): only its place changes.
- At the end each group has a head and exactly the entries after it, without a gap.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from kv.raft.wal_format import Kind, Record, decode_term


class Place(NamedTuple):
    """Where a frame stands on disk; `length` is that of its payload."""

    segment: int
    offset: int
    length: int


Stored: TypeAlias = tuple[int, int, int, int]
"""(term, segment, offset, length of the payload) of an entry: a plain tuple, since a start makes one for each record."""


class ReplayError(ValueError):
    """A record that the log cannot have contained after those before it."""


@dataclass(slots=True)
class GroupLog:
    """One group's recovered log. `payloads` are those of the newest entries, as (index, payload), index upward."""

    base: int = 0
    """Second index of the head; 0 while no head is known."""
    base_term: int = 0
    previous_term: int = 0
    head_segment: int = 0
    """Segment of the newest record that states the head; 0 if there is none."""
    term: int = 0
    voted_for: str | None = None
    hard_state_segment: int = 0
    last: int = 0
    entries: dict[int, Stored] = field(default_factory=dict)
    payloads: deque[tuple[int, bytes]] = field(default_factory=deque)
    payload_bytes: int = 0


class Replay:
    """Folds records into `groups`."""

    def __init__(self, cache_bytes_max: int, cache_total_bytes_max: int) -> None:
        """Keep at most `cache_bytes_max` bytes of payload of each group in memory, or its share of the total."""
        self.groups: dict[int, GroupLog] = {}
        self._cache_bytes_max = self._share_bytes_max = cache_bytes_max
        self._cache_total_bytes_max = cache_total_bytes_max

    def apply(self, segment: int, record: Record) -> None:
        """Take the next record, which stands in `segment`; ReplayError if it cannot be."""
        log = self.groups.get(record.group)
        if log is None:
            log = self.groups[record.group] = GroupLog()
            share = self._cache_total_bytes_max // len(self.groups)
            self._share_bytes_max = min(self._cache_bytes_max, share)
        if record.kind is Kind.ENTRY:  # nearly all of them are
            self._entry(log, segment, record)
            return
        match record.kind:
            case Kind.DROP_GROUP:
                del self.groups[record.group]
            case Kind.HARD_STATE:
                _hard_state(log, segment, record)
            case Kind.TRUNCATE if record.index <= log.base:
                raise ReplayError(f"truncation from {record.index} at or below the head {log.base}")
            case Kind.TRUNCATE:
                _truncate(log, record.index)
            case Kind.COMPACT:
                _compact(log, segment, record)
            case Kind.SNAPSHOT:
                _truncate(log, 0)
                _compact(log, segment, record)
            case _:
                raise ReplayError(f"unknown kind of record {record.kind}")

    def _entry(self, log: GroupLog, segment: int, record: Record) -> None:
        index, term, payload = record.index, record.term, record.payload
        length = len(payload)
        known = log.entries.get(index)
        if known is not None and (known[0], known[3]) != (term, length):
            raise ReplayError(f"entry {index} of term {term} over one of term {known[0]} without truncation")
        if index <= log.base:
            raise ReplayError(f"entry {index} at or below the head {log.base}")
        log.entries[index] = (term, segment, record.offset, length)
        if index > log.last:  # only the tail is worth memory, and a rewritten entry is not of the tail
            log.last = index
            log.payloads.append((index, payload))
            log.payload_bytes += length
            while log.payload_bytes > self._share_bytes_max:
                log.payload_bytes -= len(log.payloads.popleft()[1])


def check_complete(log: GroupLog) -> None:
    """ReplayError unless the group's entries are exactly those from its head to its last."""
    if log.base == 0 and log.entries:
        raise ReplayError("entries without a head")
    if log.base and len(log.entries) != log.last - log.base:
        raise ReplayError(f"{len(log.entries)} entries between {log.base} and {log.last}")


def _hard_state(log: GroupLog, segment: int, record: Record) -> None:
    if record.term < log.term:
        raise ReplayError(f"term went from {log.term} back to {record.term}")
    log.term = record.term
    log.voted_for = record.payload.decode() or None
    log.hard_state_segment = segment


def _compact(log: GroupLog, segment: int, record: Record) -> None:
    if record.index < max(log.base, 2):
        raise ReplayError(f"head went from {log.base} back to {record.index}")
    _drop_below(log, record.index)
    log.base, log.base_term = record.index, record.term
    log.previous_term = decode_term(record.payload)
    log.head_segment = segment


def _drop_below(log: GroupLog, base: int) -> None:
    """Remove the entries at and below `base`."""
    if base - log.base < len(log.entries):
        doomed = [index for index in range(log.base + 1, base + 1) if index in log.entries]
    else:
        doomed = [index for index in log.entries if index <= base]
    for index in doomed:
        del log.entries[index]
    while log.payloads and log.payloads[0][0] <= base:
        log.payload_bytes -= len(log.payloads.popleft()[1])
    log.last = max(log.last, base)


def _truncate(log: GroupLog, index: int) -> None:
    """Remove the entries from `index` on."""
    if log.last - index < len(log.entries):
        doomed = [i for i in range(index, log.last + 1) if i in log.entries]
    else:  # never longer than what there is, whatever the indexes say
        doomed = [i for i in log.entries if i >= index]
    for i in doomed:
        del log.entries[i]
    while log.payloads and log.payloads[-1][0] >= index:
        log.payload_bytes -= len(log.payloads.pop()[1])
    log.last = min(log.last, max(index - 1, 0))
