"""The bytes of the write-ahead log: segment names, segment headers, record frames, and their scan.

What lives here: pure encoding and decoding. What must not: files, clocks, randomness, and what a record
means to a group (that is `wal_replay`).

A segment is a header block followed by frames, then zeros up to its preallocated size:

    header block (512 bytes): magic, version u32, crc32c u32, sequence u64, first batch u64,
                              previous sequence u64, previous end u64, salt u64, zeros
    frame (46 bytes + payload): magic u32, crc32c u32, length u32, batch u64, group u64, kind u8,
                              flags u8, index u64, term u64, payload

All numbers are little endian. A frame's crc covers everything after itself and begins with the crc of
(sequence, salt): a frame is valid in its own segment only, and a user who stores crafted values cannot
forge one, because the salt is random and never leaves the node. The header has a block of its own, so
that no later write touches the sector in which it stands.

A *batch* is everything written by one write and one sync. Batch k + 1 is only written after the sync
of batch k has returned, so a valid record of batch k + 1 proves that batch k was durable as a whole.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from google_crc32c import extend, value

FORMAT_VERSION: Final = 1
SEGMENT_MAGIC: Final = b"kvwalseg"
RECORD_MAGIC: Final = b"\xc7kvR"
HEADER_BLOCK_BYTES: Final = 512
END_OF_BATCH: Final = 1

_HEADER_PREFIX = struct.Struct("<8sII")
_HEADER_BODY = struct.Struct("<QQQQQ")
_SEED = struct.Struct("<QQ")
_PREFIX = struct.Struct("<4sI")
_BODY = struct.Struct("<IQQBBQQ")
_FRAME = struct.Struct("<4sIIQQBBQQ")
_TERM = struct.Struct("<Q")
_SEGMENT_NAME = re.compile(r"wal-([0-9a-f]{16})\.log")

FRAME_HEADER_BYTES: Final = _FRAME.size
WINDOW_BYTES: Final = 1 << 20
"""A scan holds so much of a segment at a time, or one longer frame: a segment at once costs a page fault for each 4 KiB."""

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns bytes of a segment: from an offset, a number of them; fewer only at its end."""

PAYLOAD_BYTES_MAX: Final = (1 << 32) - 1


class Kind(IntEnum):
    """What a record does to its group's log (dissertation 3.2 and 5.1 name the state)."""

    ENTRY = 1
    """One log entry: index, term, payload = the command's bytes."""
    HARD_STATE = 2
    """Current term and vote: payload = the member voted for as UTF-8, empty for none; index 0."""
    TRUNCATE = 3
    """Entries from `index` on are removed."""
    COMPACT = 4
    """Entries below index - 1 are removed and (index - 1, index) become the head; payload = term of index - 1."""
    SNAPSHOT = 5
    """A snapshot replaced the whole log: only the head (index - 1, index) stands; payload as for COMPACT."""
    DROP_GROUP = 6
    """Everything about the group is forgotten."""


_KINDS: Final = {int(kind): kind for kind in Kind}


@dataclass(slots=True)
class Record:
    """One decoded frame and where it stood (not frozen: replay builds many, and that costs them double)."""

    offset: int
    batch: int
    end_of_batch: bool
    group: int
    kind: Kind
    index: int
    term: int
    payload: bytes

    @property
    def end(self) -> int:
        """Offset of the byte after the frame."""
        return self.offset + FRAME_HEADER_BYTES + len(self.payload)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first block of a segment; `previous_sequence` and `previous_end` are 0 in the very first."""

    sequence: int
    first_batch: int
    previous_sequence: int
    previous_end: int
    salt: int

    @property
    def seed(self) -> int:
        """The crc with which the crc of each frame of this segment begins."""
        return int(value(_SEED.pack(self.sequence, self.salt)))


def segment_name(sequence: int) -> str:
    """File name of the segment with this sequence number."""
    return f"wal-{sequence:016x}.log"


def segment_sequence(name: str) -> int | None:
    """Sequence number of a segment's file name, None if the name is not a segment's."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1], 16) if match else None


def encode_segment_header(header: SegmentHeader) -> bytes:
    """The header block, `HEADER_BLOCK_BYTES` long."""
    body = _HEADER_BODY.pack(
        header.sequence, header.first_batch, header.previous_sequence, header.previous_end, header.salt
    )
    crc = extend(value(struct.pack("<I", FORMAT_VERSION)), body)
    block = _HEADER_PREFIX.pack(SEGMENT_MAGIC, FORMAT_VERSION, crc) + body
    return block.ljust(HEADER_BLOCK_BYTES, b"\0")


def decode_segment_header(block: bytes) -> SegmentHeader | None:
    """The header in a header block; None if the block is damaged, short, or of another version.

    The zeros after the fields are compared too, so that no flipped bit of the block goes unseen.
    """
    if len(block) < HEADER_BLOCK_BYTES:
        return None
    header = SegmentHeader(*_HEADER_BODY.unpack_from(block, _HEADER_PREFIX.size))
    return header if encode_segment_header(header) == block[:HEADER_BLOCK_BYTES] else None


def encode_frame_header(
    seed: int, batch: int, group: int, kind: int, flags: int, index: int, term: int, payload: bytes
) -> bytes:
    """The bytes that precede `payload` in its frame; `seed` is the segment's."""
    body = _BODY.pack(len(payload), batch, group, kind, flags, index, term)
    return _PREFIX.pack(RECORD_MAGIC, extend(extend(seed, body), payload)) + body


def decode_frame(buffer: bytes, offset: int, end: int, seed: int, position: int = 0) -> Record | None:
    """The valid frame at `offset` that ends at or before `end`, or None.

    `position` is added to the offset that the record states (where `buffer` starts in its segment).
    """
    start = offset + FRAME_HEADER_BYTES
    if start > end:
        return None
    magic, crc, length, batch, group, kind, flags, index, term = _FRAME.unpack_from(buffer, offset)
    if magic != RECORD_MAGIC or length > end - start:
        return None
    if extend(seed, buffer[offset + _PREFIX.size : start + length]) != crc or kind not in _KINDS:
        return None
    payload = buffer[start : start + length]
    return Record(
        offset + position, batch, bool(flags & END_OF_BATCH), group, _KINDS[kind], index, term, payload
    )


def encode_term(term: int) -> bytes:
    """Payload of COMPACT and SNAPSHOT: the term of the head's first entry."""
    return _TERM.pack(term)


def decode_term(payload: bytes) -> int:
    """Inverse of `encode_term`; ValueError if the payload has another length."""
    if len(payload) != _TERM.size:
        raise ValueError(f"a term takes {_TERM.size} bytes, not {len(payload)}")
    return int(_TERM.unpack(payload)[0])


class Scan:
    """Iterates over the valid records of a segment's bytes, then tells where and how they ended.

    After the iteration: `end` is the offset of the first byte that is not a valid, expected frame;
    `batch` is the number of the batch to which a frame at `end` would belong.
    """

    def __init__(
        self, source: bytes | Read, header: SegmentHeader, end_max: int, window_bytes: int = WINDOW_BYTES
    ) -> None:
        """Scan frames from the header's block to at most `end_max`; `source` is the segment, or reads it."""
        self._read = _reader(source) if isinstance(source, bytes) else source
        self._seed = header.seed
        self._end_max = end_max
        self._window_bytes = max(window_bytes, FRAME_HEADER_BYTES)
        self._last_batch: list[bytes] = []
        self.end = HEADER_BLOCK_BYTES
        self.batch = header.first_batch
        self.batch_start = HEADER_BLOCK_BYTES
        """Offset of the last batch that has at least one valid record (the header's block if none has)."""
        self.mid_batch = False
        """True if the last record was not the last of its batch."""

    def __iter__(self) -> Iterator[Record]:
        seed, base = self._seed, self.end
        window = self._window(base)
        while True:
            record = decode_frame(window, self.end - base, len(window), seed, base)
            if record is None and self.end > base:  # perhaps the window ends inside the frame
                self._keep_last_batch(window, base)
                base, window = self.end, self._window(self.end)
                continue
            if record is None or record.batch != self.batch:
                self._keep_last_batch(window, base)
                return
            if not self.mid_batch:
                self.batch_start = self.end
            self.end = record.end
            self.mid_batch = not record.end_of_batch
            if record.end_of_batch:
                self.batch += 1
            yield record

    @property
    def batch_next(self) -> int:
        """The number of the batch to be written after what was read here."""
        return self.batch + 1 if self.mid_batch else self.batch

    @property
    def last_batch(self) -> bytes:
        """The bytes from `batch_start` to `end`, as they were read."""
        return b"".join(self._last_batch)

    def later_batch_offset(self) -> int | None:
        """Offset of a valid frame after `end` whose batch is later than `batch`; None if there is none.

        Such a frame proves that the bad bytes at `end` had been durable: corruption, not a torn write.
        """
        offset = self.end
        while (window := self._read(offset, min(self._window_bytes, self._end_max - offset))) and (
            len(window) >= FRAME_HEADER_BYTES
        ):
            found = window.find(RECORD_MAGIC)
            while found >= 0:
                if self._is_later(offset + found):
                    return offset + found
                found = window.find(RECORD_MAGIC, found + 1)
            offset += len(window) - len(RECORD_MAGIC) + 1  # the magic may lie across the end of the window
        return None

    def _is_later(self, offset: int) -> bool:
        frame = self._window(offset, FRAME_HEADER_BYTES)
        record = decode_frame(frame, 0, len(frame), self._seed, offset)
        return record is not None and record.batch > self.batch

    def _window(self, offset: int, window_bytes: int | None = None) -> bytes:
        """Read on from `offset`, where a frame begins: at least all of it, if it is one and ends where it may."""
        room = max(self._end_max - offset, 0)
        window = self._read(offset, min(window_bytes or self._window_bytes, room))
        length = _frame_length(window)
        return self._read(offset, length) if len(window) < length <= room else window

    def _keep_last_batch(self, window: bytes, base: int) -> None:
        """Keep what `window`, which stands at `base`, holds of the last batch: it is going to be forgotten."""
        if self.batch_start >= base:
            self._last_batch.clear()
        self._last_batch.append(window[max(self.batch_start - base, 0) : self.end - base])


def _reader(segment: bytes) -> Read:
    return lambda offset, length: segment[offset : offset + length]


def _frame_length(buffer: bytes) -> int:
    """Length of the frame at the start of `buffer` as its header tells; 0 if there is no header of one."""
    if len(buffer) < FRAME_HEADER_BYTES or not buffer.startswith(RECORD_MAGIC):
        return 0
    length: int = _FRAME.unpack_from(buffer)[2]
    return FRAME_HEADER_BYTES + length
