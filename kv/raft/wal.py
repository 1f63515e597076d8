"""The write-ahead log of one process, shared by all its Raft groups: one sync makes the work of all durable.

What lives here: `Wal` (the buffer of records, flushes, compaction of segments) and `Flush`. What must not:
the bytes (`wal_format`), recovery's rules (`wal_recovery`), and when to flush (the engine decides).

A flush, written where its caller reads it:

    flush = wal.begin_flush()       # loop: takes all that is buffered as one batch
    flush.run()                     # worker thread: write and sync; other records may be appended meanwhile
    wal.end_flush(flush)            # loop: `durable_seq` moves; only now may anything be said or sent
    wal.abandon_flush(flush)        # loop, instead, after `WalFull`: the next flush writes the same batch

`WalFailed` out of `run` is fatal: no call but `close` may follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kv.raft.files import Files
from kv.raft.journal import Journal
from kv.raft.wal_errors import WalCorruption, WalFailed, WalFull
from kv.raft.wal_format import FRAME_HEADER_BYTES, PAYLOAD_BYTES_MAX, Kind, decode_frame, segment_name
from kv.raft.wal_recovery import recover
from kv.raft.wal_replay import Place
from kv.raft.wal_writer import RecordDraft, Segment, SegmentWriter

__all__ = ["Compaction", "Flush", "Wal", "WalCorruption", "WalFailed", "WalFull"]

SEGMENT_BYTES: Final = 64 << 20
CACHE_BYTES_MAX: Final = 16 << 20
CACHE_TOTAL_BYTES_MAX: Final = 64 << 20
REWRITE_BYTES_MAX: Final = 4 << 20
SPACE_FACTOR: Final = 2
"""Live records are rewritten only while the log takes more than this many times their size."""

SEGMENTS_SPARE: Final = 2
"""Segments that the log may take beyond that: the one being written and its predecessor."""


class Flush:
    """One batch on its way to disk."""

    def __init__(
        self,
        writer: SegmentWriter,
        batch: int,
        first_seq: int,
        journals: Sequence[Journal],
        drafts: Sequence[RecordDraft],
        length: int,
    ) -> None:
        """Made by `Wal.begin_flush`."""
        self.seq: Final = first_seq + len(drafts) - 1
        """Sequence number of the last record in it."""
        self.bytes: Final = length
        """Bytes that it takes on disk."""
        self._writer = writer
        self._batch = batch
        self._first_seq = first_seq
        self._journals = journals
        self._drafts = drafts
        self._written: tuple[Segment, int] | None = None
        self._failed = False

    def run(self) -> None:
        """Write and sync (blocking, any thread). Raises `WalFull` (retry) or `WalFailed` (fatal)."""
        assert not self._failed, "a failed write or sync is never tried again"
        assert self._written is None, "a flush runs once"
        try:
            self._written = self._writer.write(self._batch, self._drafts)
        except WalFailed:
            self._failed = True
            raise

    @property
    def failed(self) -> bool:
        """True after `WalFailed`."""
        return self._failed

    @property
    def segment(self) -> Segment | None:
        """Where it stands on disk; None before it is durable."""
        return self._written[0] if self._written else None

    def tell_journals(self) -> None:
        """Tell each journal where its records stand (loop)."""
        assert self._written is not None, "only a flush that is durable ends"
        segment, offset = self._written
        sequence = segment.header.sequence
        seq = self._first_seq
        for journal, draft in zip(self._journals, self._drafts, strict=True):
            length = len(draft.payload)
            if draft.kind is not Kind.ENTRY or not journal.on_durable_next(
                seq, draft.index, sequence, offset, length
            ):
                journal.on_durable(seq, draft.kind, draft.index, draft.term, Place(sequence, offset, length))
            offset += FRAME_HEADER_BYTES + length
            seq += 1


@dataclass(frozen=True, slots=True)
class Compaction:
    """Segments that no group needs once `seq` is durable; see `Wal.plan_compaction`."""

    names: tuple[str, ...]
    seq: int
    rewritten_bytes: int
    files: Files

    def run(self) -> None:
        """Remove the segments (blocking, any thread), oldest first, so that a crash leaves no gap."""
        for name in self.names:
            self.files.remove(name)
            self.files.sync_directory()


class Wal:
    """All methods are for the loop's thread and touch memory only, unless they say otherwise."""

    def __init__(
        self,
        files: Files,
        *,
        salt: int,
        segment_bytes: int,
        cache_bytes_max: int,
        cache_total_bytes_max: int,
        space_factor: int,
    ) -> None:
        """Use `open`."""
        recovered = recover(files, cache_bytes_max, cache_total_bytes_max)
        self._files = files
        self._cache_bytes_max = cache_bytes_max
        self._cache_total_bytes_max = cache_total_bytes_max
        self._segment_bytes = segment_bytes
        self._space_factor = space_factor
        self._segments = recovered.segments
        self._by_sequence = {segment.header.sequence: segment for segment in self._segments}
        last = self._segments[-1] if self._segments else None
        self._writer = SegmentWriter(files, last, salt=salt, segment_bytes=segment_bytes)
        self._batch_next = recovered.batch_next
        self._journals: dict[int, Journal] = {}
        for group, log in recovered.groups.items():
            self.journal(group).restore(log)
        self.trim_caches()
        self._buffer: list[RecordDraft] = []
        self._buffer_journals: list[Journal] = []
        self._buffer_bytes = 0
        self._last_seq = 0
        self.durable_seq = 0
        """All records up to this sequence number are durable."""
        self._flush: Flush | None = None
        self._abandoned: Flush | None = None
        self._compaction: Compaction | None = None

    @classmethod
    def open(
        cls,
        files: Files,
        *,
        salt: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
        cache_bytes_max: int = CACHE_BYTES_MAX,
        cache_total_bytes_max: int = CACHE_TOTAL_BYTES_MAX,
        space_factor: int = SPACE_FACTOR,
    ) -> Wal:
        """Read the log back (blocking); everything found is durable when this returns.

        Give 64 fresh random bits as `salt` at each start: they keep stored values from imitating records.
        `segment_bytes` is the size of a new segment, `cache_bytes_max` that of each group's cached tail;
        `trim_caches` leaves all of them together about `cache_total_bytes_max`.
        Raises `WalCorruption`, or `OSError` if the disk fails. The first flush starts a new segment.
        """
        return cls(
            files,
            salt=salt,
            segment_bytes=segment_bytes,
            cache_bytes_max=cache_bytes_max,
            cache_total_bytes_max=cache_total_bytes_max,
            space_factor=space_factor,
        )

    def close(self) -> None:
        """Close the files (blocking). What was not flushed is lost, as in a crash."""
        self._files.close()

    # ------------------------------------------------------------ groups

    def groups(self) -> list[int]:
        """Numbers of the groups that have a journal, sorted."""
        return sorted(self._journals)

    def journal(self, group: int) -> Journal:
        """The journal of a group; an empty one if the group is unknown."""
        journal = self._journals.get(group)
        if journal is None:
            journal = self._journals[group] = Journal(group, self, self._cache_bytes_max)
        return journal

    def drop_group(self, group: int) -> None:
        """Forget a group; `journal` gives a new, empty one from now on."""
        journal = self._journals.pop(group, None)
        if journal is not None:
            self.append(journal, Kind.DROP_GROUP, 0, 0, b"")

    def trim_caches(self) -> None:
        """Evict what is durable until each group has its share of the total, if they have more together.

        For a timer: between two calls each cache is only under its own bound, and no append has to count for all.
        """
        journals = self._journals.values()
        if sum(journal.cached_bytes for journal in journals) > self._cache_total_bytes_max:
            for journal in journals:
                journal.evict(self._cache_total_bytes_max // len(journals))

    # ------------------------------------------------------------ append and flush

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record appended; 0 after a start."""
        return self._last_seq

    @property
    def dirty(self) -> bool:
        """Whether any record is not durable yet."""
        return self._last_seq > self.durable_seq

    @property
    def pending_bytes(self) -> int:
        """Bytes of the records that are not durable yet, those of a running flush included."""
        unfinished = self._flush or self._abandoned
        return self._buffer_bytes + (unfinished.bytes if unfinished else 0)

    def append(self, journal: Journal, kind: Kind, index: int, term: int, payload: bytes) -> int:
        """Buffer one record of a group; called by its journal. Returns its sequence number."""
        assert len(payload) <= PAYLOAD_BYTES_MAX, len(payload)
        self._buffer.append(RecordDraft(journal.group, kind, index, term, payload))
        self._buffer_journals.append(journal)
        self._buffer_bytes += FRAME_HEADER_BYTES + len(payload)
        self._last_seq += 1
        return self._last_seq

    def begin_flush(self) -> Flush | None:
        """Take what is buffered as one batch; None if there is nothing. One flush at a time.

        After an abandoned flush this is the same batch once more; what came since is for the next.
        """
        assert self._flush is None, "one flush at a time"
        if self._abandoned is not None:
            self._flush, self._abandoned = self._abandoned, None
            return self._flush
        if not self._buffer:
            return None
        first_seq = self._last_seq - len(self._buffer) + 1
        self._flush = Flush(
            self._writer, self._batch_next, first_seq, self._buffer_journals, self._buffer, self._buffer_bytes
        )
        self._batch_next += 1
        self._buffer, self._buffer_journals, self._buffer_bytes = [], [], 0
        return self._flush

    def end_flush(self, flush: Flush) -> None:
        """Take note that the flush is durable: `durable_seq` becomes its `seq`."""
        assert flush is self._flush, "not the flush that is under way"
        segment = flush.segment
        assert segment is not None, "the flush has not been written"
        if segment.header.sequence not in self._by_sequence:
            self._segments.append(segment)
            self._by_sequence[segment.header.sequence] = segment
        flush.tell_journals()
        self.durable_seq = flush.seq
        self._flush = None

    def abandon_flush(self, flush: Flush) -> None:
        """Keep the batch of a flush that met `WalFull`, for the next `begin_flush`."""
        assert flush is self._flush, "not the flush that is under way"
        assert flush.segment is None, "the flush is durable"
        assert not flush.failed, "a failed write or sync is never tried again"
        self._flush, self._abandoned = None, flush

    # ------------------------------------------------------------ compaction

    def plan_compaction(self, rewrite_bytes_max: int = REWRITE_BYTES_MAX) -> Compaction | None:
        """Find the oldest segments that no group needs; None if there is nothing to do.

        If a group holds back the oldest segment that stays, and the log takes too much space, up to
        `rewrite_bytes_max` bytes (and one record more) of what is live there are appended again, so
        that a later plan finds it free. May read the disk for that. One compaction at a time: when
        `durable_seq >= compaction.seq`, call its `run` in a worker thread, then `end_compaction`.
        """
        assert self._compaction is None, "one compaction at a time"
        closed = self._segments[:-1]
        if not closed:
            return None
        oldest_needed = self._oldest_needed()
        free = [segment for segment in closed if segment.header.sequence < oldest_needed]
        rewritten_bytes = 0
        if len(free) < len(closed) and self._takes_too_much(free):
            rewritten_bytes = self._rewrite(closed[len(free)].header.sequence, rewrite_bytes_max)
        if not free and not rewritten_bytes:
            return None
        names = tuple(segment.name for segment in free)
        self._compaction = Compaction(names, self._last_seq, rewritten_bytes, self._files)
        return self._compaction

    def end_compaction(self, compaction: Compaction) -> None:
        """Take note that the segments of a compaction are removed."""
        assert compaction is self._compaction, "not the compaction that is under way"
        assert self.durable_seq >= compaction.seq, "removed before what frees the segments was durable"
        removed = self._segments[: len(compaction.names)]
        assert tuple(segment.name for segment in removed) == compaction.names
        for segment in removed:
            del self._by_sequence[segment.header.sequence]
        del self._segments[: len(removed)]
        self._compaction = None

    @property
    def segments(self) -> tuple[str, ...]:
        """File names of the segments, oldest first; the last is the one being written or was before a start."""
        return tuple(segment.name for segment in self._segments)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes that the segments take."""
        return sum(segment.size for segment in self._segments)

    @property
    def live_bytes(self) -> int:
        """Bytes of the entries that groups still need."""
        return sum(journal.live_bytes for journal in self._journals.values())

    def _oldest_needed(self) -> int:
        newest = self._segments[-1].header.sequence
        needed = (journal.oldest_segment() for journal in self._journals.values())
        return min((segment for segment in needed if segment is not None), default=newest)

    def _takes_too_much(self, free: Sequence[Segment]) -> bool:
        taken = self.bytes_on_disk - sum(segment.size for segment in free)
        spare = SEGMENTS_SPARE * self._segment_bytes
        return taken > spare and taken > spare + self._space_factor * self.live_bytes

    def _rewrite(self, segment: int, bytes_max: int) -> int:
        written = 0
        for journal in self._journals.values():
            written += journal.rewrite(segment, bytes_max - written)
        return written

    # ------------------------------------------------------------ reading

    def read_payload(self, group: int, index: int, term: int, place: Place) -> bytes:
        """Read an entry's payload (blocking) and verify all of its frame; `WalCorruption` if it differs."""
        segment = self._by_sequence[place.segment]
        length = FRAME_HEADER_BYTES + place.length
        frame = self._files.read(segment.name, place.offset, length)
        record = decode_frame(frame, 0, len(frame), segment.seed)
        if record is None or (record.group, record.kind, record.index, record.term) != (
            group,
            Kind.ENTRY,
            index,
            term,
        ):
            raise WalCorruption(
                segment_name(place.segment), place.offset, f"entry {index} of group {group} is damaged"
            )
        return record.payload
