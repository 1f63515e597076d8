"""The writing end of the write-ahead log: batches into segments, the next segment when one is full.

What lives here: `SegmentWriter`, which blocks and is used by one thread at a time. What must not: the
journals and the buffer of what is still to be written (that is `wal`).

Each process starts a segment of its own; none is ever appended to after a restart, and nothing is ever
truncated or overwritten with other bytes. A batch that met a full disk is written again byte for byte at
the same place, so whatever part of the first attempt is on disk does no harm.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from kv.raft.files import Files
from kv.raft.wal_errors import WalFailed, WalFull
from kv.raft.wal_format import (
    END_OF_BATCH,
    FRAME_HEADER_BYTES,
    HEADER_BLOCK_BYTES,
    Kind,
    SegmentHeader,
    encode_frame_header,
    encode_segment_header,
    segment_name,
)

JOIN_BYTES_MAX = 1 << 20
"""A batch up to this size is copied into one buffer: cheaper than a long vector of small ones."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Segment:
    """A segment on disk; `end` is the offset after its last durable record, `size` its allocation."""

    name: str
    header: SegmentHeader
    seed: int
    end: int
    size: int


@dataclass(slots=True)
class RecordDraft:
    """What a frame is encoded from, without its batch (not frozen: one is built for each record written)."""

    group: int
    kind: Kind
    index: int
    term: int
    payload: bytes


def batch_bytes(drafts: Sequence[RecordDraft]) -> int:
    """Bytes that a batch of these records takes on disk."""
    return len(drafts) * FRAME_HEADER_BYTES + sum(len(draft.payload) for draft in drafts)


class SegmentWriter:
    """Appends batches after `previous`, the last segment of an earlier process, if there is one."""

    def __init__(self, files: Files, previous: Segment | None, *, salt: int, segment_bytes: int) -> None:
        """`salt` is 64 random bits (see `wal_format`); a new segment takes at least `segment_bytes`."""
        self._files = files
        self._salt = salt
        self._segment_bytes = segment_bytes
        self._last = previous
        self._open = False

    def write(self, batch: int, drafts: Sequence[RecordDraft]) -> tuple[Segment, int]:
        """Write and sync a batch; returns its segment and the offset of its first record.

        After `WalFull` nothing counts as written, and the same batch must be written again before any
        other. After `WalFailed` nothing may be written any more.
        """
        length = batch_bytes(drafts)
        segment = self._last
        if segment is None or not self._open or segment.end + length > segment.size:
            segment = self._next_segment(batch, length)
        try:
            self._files.write(segment.name, segment.end, _encode(segment.seed, batch, drafts, length))
        except OSError as error:
            raise _classified(error, "write", segment.name) from error
        self._sync(segment.name)
        offset = segment.end
        segment.end += length
        return segment, offset

    def _next_segment(self, first_batch: int, length: int) -> Segment:
        """Create a segment that holds at least `length` bytes; durable before its first use."""
        previous = self._last
        header = SegmentHeader(
            sequence=previous.header.sequence + 1 if previous else 1,
            first_batch=first_batch,
            previous_sequence=previous.header.sequence if previous else 0,
            previous_end=previous.end if previous else 0,
            salt=self._salt,
        )
        name = segment_name(header.sequence)
        size = max(self._segment_bytes, HEADER_BLOCK_BYTES + length)
        try:
            if name in self._files.names():  # left by an attempt that met a full disk; never used
                self._files.remove(name)
            self._files.create(name, size)
            self._files.write(name, 0, [encode_segment_header(header)])
        except OSError as error:
            raise _classified(error, "create", name) from error
        self._sync(name)
        try:
            self._files.sync_directory()
        except OSError as error:
            raise WalFailed(error.errno, f"sync of the directory of {name} failed: {error}") from error
        self._last, self._open = Segment(name, header, header.seed, HEADER_BLOCK_BYTES, size), True
        return self._last

    def _sync(self, name: str) -> None:
        try:
            self._files.sync(name)
        except OSError as error:
            raise WalFailed(error.errno, f"sync of {name} failed: {error}") from error


def _classified(error: OSError, action: str, name: str) -> OSError:
    kind = WalFull if error.errno in _FULL else WalFailed
    return kind(error.errno, f"{action} of {name} failed: {error}")


def _encode(seed: int, batch: int, drafts: Sequence[RecordDraft], length: int) -> list[bytes]:
    parts: list[bytes] = []
    last = len(drafts) - 1
    for i, draft in enumerate(drafts):
        flags = END_OF_BATCH if i == last else 0
        payload = draft.payload
        parts.append(
            encode_frame_header(seed, batch, draft.group, draft.kind, flags, draft.index, draft.term, payload)
        )
        parts.append(payload)
    return [b"".join(parts)] if length <= JOIN_BYTES_MAX else parts
