"""One group's view of the write-ahead log: its entries, head, term and vote.

What lives here: `Journal`, the in-memory log that the consensus core reads and writes through an adapter,
every change of which is first appended to the shared log. What must not: the core itself, files, and any
decision about when to flush (that is the engine's).

The log is a list of `(data, index, term)` tuples, which is the shape that the core slices and compares.
Its first two are the *head*: placeholders for the entries (base - 1, base) that a snapshot or a
compaction left behind, of which only index and term are known. Payloads of old durable entries are
evicted from memory, the tuple keeps a placeholder, and `data` reads them through from their segment.

Duties of order for the caller: what a message states must be durable before it is sent; `seq` (all of
the group), `hard_state_seq` and `durable_index` tell it, compared with the log's `durable_seq`.
"""

from __future__ import annotations

from array import array
from itertools import chain, repeat
from typing import Final, Protocol

from kv.raft.api import BOOTSTRAP_INDEX, ENTRY_PREFIX, Entry
from kv.raft.wal_format import FRAME_HEADER_BYTES, Kind, encode_term
from kv.raft.wal_replay import GroupLog, Place

PLACEHOLDER: Final = ENTRY_PREFIX
"""Stands for the data of the head's entries and of evicted ones; the core looks at no more of them."""

HEAD_ENTRIES: Final = 2
"""The core wants the entry at the snapshot's index and the one before it."""

_NOWHERE: Final = Place(0, 0, 0)


class RecordLog(Protocol):
    """What a journal needs of the shared log."""

    def append(self, journal: Journal, kind: Kind, index: int, term: int, payload: bytes) -> int:
        """Buffer a record; returns its sequence number, greater than all before."""
        ...

    def read_payload(self, group: int, index: int, term: int, place: Place) -> bytes:
        """Read an entry's payload from disk and verify it; WalCorruption if it is not what was written."""
        ...


class Journal:
    """The log of one Raft group. All methods are for the loop's thread; only `data` may read the disk."""

    def __init__(self, group: int, log: RecordLog, cache_bytes_max: int) -> None:
        """Make an empty journal (no head, term 0); `bootstrap` or `install_snapshot` gives it a head."""
        self.group: Final = group
        self._log = log
        self._cache_bytes_max = cache_bytes_max
        # What is asked for with each message is no property: a call for each would be felt.
        self.entries: list[Entry] = []
        """The tuples by position, for the core to look into; nobody else changes them. Data may be a placeholder."""
        self.last = 0
        """Index of the last entry; 0 while the journal is empty."""
        # Parallel to `_entries`: the sequence number of the record that appended each.
        self._seqs = array("Q")
        # Parallel to the durable prefix of `_entries`: where each stands on disk. Arrays, not tuples,
        # so that an evicted entry costs little memory.
        self._segments = array("Q")
        self._offsets = array("Q")
        self._lengths = array("Q")
        self._cached_from = 0  # entries between base and this index are evicted
        self._cached_bytes = 0
        self._term = 0
        self._voted_for: str | None = None
        self.seq = 0
        """Sequence number of the last record of any kind of this group; 0 after a start."""
        self.hard_state_seq = 0
        """Sequence number of the last record of term and vote; 0 after a start."""
        self._hard_state_segment = 0  # of the newest durable record; 0 if there is none
        self._head_segment = 0

    # ------------------------------------------------------------ what the log holds

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def first(self) -> int:
        """Index of the head's first entry; 0 while the journal is empty."""
        return self.entries[0][1] if self.entries else 0

    @property
    def base(self) -> int:
        """Index of the head's second entry: entries at or below it have no data and must never be sent."""
        return self.entries[1][1] if self.entries else 0

    @property
    def last_term(self) -> int:
        """Term of the last entry; 0 while the journal is empty."""
        return self.entries[-1][2] if self.entries else 0

    @property
    def term(self) -> int:
        """The current term."""
        return self._term

    @property
    def voted_for(self) -> str | None:
        """The member that got this one's vote in the current term."""
        return self._voted_for

    @property
    def durable_index(self) -> int:
        """The last index whose record is on disk here; 0 if none is. Truncation takes it back."""
        return self.entries[len(self._segments) - 1][1] if self._segments else 0

    @property
    def cached_bytes(self) -> int:
        """Bytes of payload in memory of entries above `base`."""
        return self._cached_bytes

    @property
    def live_bytes(self) -> int:
        """Bytes on disk that this group still needs, without its head and hard state."""
        lengths = self._lengths[HEAD_ENTRIES:]
        return sum(lengths) + len(lengths) * FRAME_HEADER_BYTES

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`, the head's included; None if the log does not hold it."""
        position = index - self.first
        return self.entries[position][2] if 0 <= position < len(self.entries) else None

    def entry(self, index: int) -> Entry:
        """The tuple at `index`; its data may be a placeholder. IndexError if the log does not hold it."""
        position = index - self.first
        if position < 0:
            raise IndexError(f"entry {index} is below the first, {self.first}")
        return self.entries[position]

    def at(self, position: int) -> Entry:
        """The tuple at a position, as a list counts (-1 is the last); its data may be a placeholder."""
        return self.entries[position]

    def slice(self, start: int, stop: int | None = None) -> list[Entry]:
        """Tuples by position, as a list slices; the data of evicted entries is a placeholder."""
        return self.entries[start:stop]

    def data(self, index: int) -> bytes:
        """Data of the entry at `index`, above `base`; reads the disk if it was evicted.

        Raises IndexError if the log does not hold the data, WalCorruption if it changed on disk.
        """
        if index <= self.base:
            raise IndexError(f"entry {index} is not above the head {self.base}: its data is gone")
        data, _, term = self.entry(index)
        if index >= self._cached_from:
            return data
        return self._log.read_payload(self.group, index, term, self._place(index - self.first))

    # ------------------------------------------------------------ changes

    def bootstrap(self) -> None:
        """Give a new group its head: the two no-op entries from which every replica starts."""
        self.install_snapshot(BOOTSTRAP_INDEX, 0, 0)

    def append(self, data: bytes, index: int, term: int) -> None:
        """Append the entry after the last."""
        assert self.entries, "a journal without a head takes no entries: bootstrap it first"
        assert index == self.entries[-1][1] + 1, (index, self.last)
        assert term >= self.entries[-1][2], (term, self.last_term)
        assert data[:1] == ENTRY_PREFIX, data[:1]
        self.seq = seq = self._log.append(self, Kind.ENTRY, index, term, data)
        self.entries.append((data, index, term))
        self.last = index
        self._seqs.append(seq)
        self._cached_bytes += len(data)

    def truncate_from(self, index: int) -> None:
        """Remove the entries from `index` on, which is above `base`."""
        assert self.base < index <= self.last, (self.base, index, self.last)
        self.seq = self._log.append(self, Kind.TRUNCATE, index, 0, b"")
        position = index - self.first
        self._cached_bytes -= sum(
            len(data) for data, i, _ in self.entries[position:] if i >= self._cached_from
        )
        self._cached_from = min(self._cached_from, index)
        del self.entries[position:]
        self.last = index - 1
        del self._seqs[position:]
        self._keep_places(0, position)

    def compact_to(self, index: int) -> None:
        """Make (index - 1, index) the head. Only below a checkpoint of the applied state."""
        assert self.first <= index - 1, (self.first, index)
        assert index <= self.last, (index, self.last)
        if index == self.base:
            return
        start = index - 1 - self.first
        (_, _, previous_term), (_, _, term) = self.entries[start : start + HEAD_ENTRIES]
        self._log_head(Kind.COMPACT, index, term, previous_term)
        self._cached_bytes -= sum(
            len(data) for data, i, _ in self.entries[: start + HEAD_ENTRIES] if i >= self._cached_from
        )
        self._cached_from = max(self._cached_from, index + 1)
        self.entries[: start + HEAD_ENTRIES] = _head(index, term, previous_term)
        del self._seqs[:start]
        self._keep_places(start, len(self._segments))

    def install_snapshot(self, index: int, term: int, previous_term: int) -> None:
        """Replace the whole log by the head of a snapshot that covers all entries up to `index`."""
        assert index >= HEAD_ENTRIES, index
        assert index >= self.base, (index, self.base)
        self._log_head(Kind.SNAPSHOT, index, term, previous_term)
        self.entries = _head(index, term, previous_term)
        self.last = index
        self._seqs = array("Q", [self.seq] * HEAD_ENTRIES)
        self._keep_places(0, 0)
        self._cached_from = index + 1
        self._cached_bytes = 0

    def set_hard_state(self, term: int, voted_for: str | None) -> None:
        """Record the current term and the vote in it; the same again costs nothing."""
        if (term, voted_for) == (self._term, self._voted_for):
            return
        assert term >= self._term, (term, self._term)
        assert term > self._term or self._voted_for is None, "a vote of this term was already given"
        assert voted_for != "", "an empty member name would read back as no vote"
        self._term, self._voted_for = term, voted_for
        self._log_hard_state()

    # ------------------------------------------------------------ what the log calls

    def restore(self, log: GroupLog) -> None:
        """Take over what recovery found; everything in it is durable."""
        assert not self.entries, "only a new journal can be restored"
        self._term, self._voted_for = log.term, log.voted_for
        self._hard_state_segment, self._head_segment = log.hard_state_segment, log.head_segment
        if not log.base:
            return
        cached = _tail(log)
        self._cached_from = log.last + 1 - len(cached)
        self._cached_bytes = sum(map(len, cached))
        data = chain(repeat(PLACEHOLDER, self._cached_from - log.base - 1), cached)
        indices = range(log.base + 1, log.last + 1)
        stored = [log.entries[index] for index in indices]
        terms = [term for term, _, _, _ in stored]
        self.entries = _head(log.base, log.base_term, log.previous_term)
        self.entries += zip(data, indices, terms, strict=True)
        self.last = log.last
        self._seqs = array("Q", bytes(8 * len(self.entries)))
        nowhere = [0] * HEAD_ENTRIES
        self._segments = array("Q", nowhere + [segment for _, segment, _, _ in stored])
        self._offsets = array("Q", nowhere + [offset for _, _, offset, _ in stored])
        self._lengths = array("Q", nowhere + [length for _, _, _, length in stored])

    def on_durable_next(self, seq: int, index: int, segment: int, offset: int, length: int) -> bool:
        """Note that an entry's record is durable if it is the first one that was not, as nearly always; else False.

        Does what `on_durable` would, in one call: it is made for each entry.
        """
        position = len(self._segments)
        if (
            position >= len(self.entries)
            or self.entries[position][1] != index
            or self._seqs[position] != seq
            or self._cached_bytes > self._cache_bytes_max
        ):
            return False
        self._segments.append(segment)
        self._offsets.append(offset)
        self._lengths.append(length)
        return True

    def on_durable(self, seq: int, kind: Kind, index: int, term: int, place: Place) -> None:
        """Note that the record `seq` of this group is durable at `place`; records come in order."""
        if kind is Kind.ENTRY:
            self._on_durable_entry(seq, index, term, place)
        elif kind is Kind.HARD_STATE:
            self._hard_state_segment = place.segment
        elif kind in (Kind.COMPACT, Kind.SNAPSHOT):
            self._head_segment = place.segment
            # A snapshot's mark is also what makes the entries of its head durable, as far as they are left.
            for _ in range(self._seqs[:HEAD_ENTRIES].count(seq)):
                self._push_place(_NOWHERE)

    def evict(self, cache_bytes_max: int) -> None:
        """Drop payloads of durable entries from memory, oldest first, until the cache fits the limit."""
        durable = self.durable_index
        index = self._cached_from
        while self._cached_bytes > cache_bytes_max and index <= durable:
            data, _, term = self.entries[index - self.first]
            self.entries[index - self.first] = (PLACEHOLDER, index, term)
            self._cached_bytes -= len(data)
            index += 1
        self._cached_from = index

    def oldest_segment(self) -> int | None:
        """The oldest segment in which a durable record stands that this group needs; None if none does."""
        needed = [segment for segment in (self._hard_state_segment, self._head_segment) if segment]
        if len(self._segments) > HEAD_ENTRIES:
            needed.append(min(self._segments[HEAD_ENTRIES:]))
        return min(needed, default=None)

    def rewrite(self, segment: int, bytes_max: int) -> int:
        """Append again what this group needs of `segment`, oldest first, until `bytes_max` are reached.

        Returns the bytes appended, which may exceed the limit by one record. May read the disk.
        """
        written = 0
        if segment == self._hard_state_segment and written < bytes_max:
            written += self._log_hard_state()
        if segment == self._head_segment and written < bytes_max:
            (_, _, previous_term), (_, index, term) = self.entries[:HEAD_ENTRIES]
            # Always as a compaction: a snapshot mark would drop the entries that came after it.
            written += self._log_head(Kind.COMPACT, index, term, previous_term)
        position = HEAD_ENTRIES - 1
        while written < bytes_max:
            try:
                position = self._segments.index(segment, position + 1)
            except ValueError:
                return written
            _, index, term = self.entries[position]
            data = self.data(index)
            self.seq = self._log.append(self, Kind.ENTRY, index, term, data)
            written += FRAME_HEADER_BYTES + len(data)
        return written

    # ------------------------------------------------------------ details

    def _log_head(self, kind: Kind, index: int, term: int, previous_term: int) -> int:
        payload = encode_term(previous_term)
        self.seq = self._log.append(self, kind, index, term, payload)
        return FRAME_HEADER_BYTES + len(payload)

    def _log_hard_state(self) -> int:
        payload = (self._voted_for or "").encode()
        self.seq = self._log.append(self, Kind.HARD_STATE, 0, self._term, payload)
        self.hard_state_seq = self.seq
        return FRAME_HEADER_BYTES + len(payload)

    def _on_durable_entry(self, seq: int, index: int, term: int, place: Place) -> None:
        position = index - self.first
        if not 0 <= position < len(self.entries):
            return  # truncated, or compacted away, since it was appended
        if self._seqs[position] == seq:
            assert position == len(self._segments), (position, len(self._segments))
            self._push_place(place)
            if self._cached_bytes > self._cache_bytes_max:
                self.evict(self._cache_bytes_max)
        elif position < len(self._segments):
            # A rewrite of an entry that is durable already. Had that entry been truncated since, the one
            # in its place would have a later record, and the position would not be durable yet.
            assert self.entries[position][2] == term, (index, term)
            self._set_place(position, place)

    def _place(self, position: int) -> Place:
        return Place(self._segments[position], self._offsets[position], self._lengths[position])

    def _push_place(self, place: Place) -> None:
        self._segments.append(place.segment)
        self._offsets.append(place.offset)
        self._lengths.append(place.length)

    def _set_place(self, position: int, place: Place) -> None:
        self._segments[position], self._offsets[position], self._lengths[position] = place

    def _keep_places(self, start: int, stop: int) -> None:
        self._segments = self._segments[start:stop]
        self._offsets = self._offsets[start:stop]
        self._lengths = self._lengths[start:stop]


def _head(index: int, term: int, previous_term: int) -> list[Entry]:
    return [(PLACEHOLDER, index - 1, previous_term), (PLACEHOLDER, index, term)]


def _tail(log: GroupLog) -> list[bytes]:
    """The payloads of the last entries, as far back as there is no gap between those that recovery kept."""
    tail: list[bytes] = []
    for index, payload in reversed(log.payloads):
        if index != log.last - len(tail):
            break
        tail.append(payload)
    tail.reverse()
    return tail
