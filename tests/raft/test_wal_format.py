"""The bytes of the write-ahead log: golden, round trips, and that no damage goes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.raft.wal_format import (
    END_OF_BATCH,
    FRAME_HEADER_BYTES,
    HEADER_BLOCK_BYTES,
    Kind,
    Record,
    Scan,
    SegmentHeader,
    decode_frame,
    decode_segment_header,
    decode_term,
    encode_frame_header,
    encode_segment_header,
    encode_term,
    segment_name,
    segment_sequence,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "wal_v1.txt"
HEADER = SegmentHeader(
    sequence=3, first_batch=7, previous_sequence=2, previous_end=4711, salt=0x0123_4567_89AB_CDEF
)
U64 = st.integers(0, 2**64 - 1)


def frame(
    batch: int, payload: bytes, *, end: bool = True, index: int = 5, header: SegmentHeader = HEADER
) -> bytes:
    """One whole ENTRY frame of group 9 and term 4."""
    flags = END_OF_BATCH if end else 0
    return encode_frame_header(header.seed, batch, 9, Kind.ENTRY, flags, index, 4, payload) + payload


def segment(*frames: bytes, size: int = 2048) -> bytes:
    """A segment's bytes: header block, frames, zeros."""
    return (encode_segment_header(HEADER) + b"".join(frames)).ljust(size, b"\0")


def test_golden_bytes() -> None:
    """Format version 1 is exactly these bytes: a change of them is a new version."""
    golden = dict(line.split(": ") for line in GOLDEN.read_text().splitlines() if not line.startswith("#"))
    block = encode_segment_header(HEADER)
    assert block.rstrip(b"\0").hex() == golden["segment header"]
    assert len(block) == HEADER_BLOCK_BYTES
    assert frame(7, b"\x01hello").hex() == golden["entry record"]
    assert decode_segment_header(block) == HEADER


@given(U64, U64, st.sampled_from(Kind), st.booleans(), U64, U64, st.binary(max_size=200), st.integers(0, 9))
def test_frame_round_trip(
    batch: int, group: int, kind: Kind, end: bool, index: int, term: int, payload: bytes, lead: int
) -> None:
    """Every record reads back as it was written, wherever it stands in the buffer."""
    head = encode_frame_header(HEADER.seed, batch, group, kind, int(end), index, term, payload)
    buffer = bytes(lead) + head + payload
    record = decode_frame(buffer, lead, len(buffer), HEADER.seed, position=100)
    assert record == Record(lead + 100, batch, end, group, kind, index, term, payload)
    assert record.end == 100 + len(buffer)


@pytest.mark.parametrize("bit", range(8))
def test_flipped_frame(bit: int) -> None:
    """No frame with one flipped bit is valid."""
    good = frame(7, b"\x01hello")
    assert decode_frame(good, 0, len(good), HEADER.seed) is not None
    for i in range(len(good)):
        bad = bytearray(good)
        bad[i] ^= 1 << bit
        assert decode_frame(bytes(bad), 0, len(bad), HEADER.seed) is None, (i, bit)


def test_cut_frame() -> None:
    """A frame that does not end within its segment is not valid."""
    good = frame(7, b"\x01hello")
    for end in range(len(good)):
        assert decode_frame(good, 0, end, HEADER.seed) is None, end


def test_frame_of_other_segment() -> None:
    """A frame is valid only under the sequence number and the salt of its own segment."""
    good = frame(7, b"\x01hello")
    for other in (
        SegmentHeader(4, 7, 2, 4711, HEADER.salt),
        SegmentHeader(HEADER.sequence, 7, 2, 4711, HEADER.salt + 1),
    ):
        assert decode_frame(good, 0, len(good), other.seed) is None


def test_unknown_kind() -> None:
    """A frame of a kind that this version does not know is not valid, however good its crc."""
    head = encode_frame_header(HEADER.seed, 7, 9, 77, 1, 5, 4, b"")
    assert decode_frame(head, 0, len(head), HEADER.seed) is None


def test_flipped_segment_header() -> None:
    """No header block with a flipped bit, nor a short one, is valid."""
    block = encode_segment_header(HEADER)
    for i in range(HEADER_BLOCK_BYTES):
        for mask in (0x01, 0x80):
            bad = bytearray(block)
            bad[i] ^= mask
            assert decode_segment_header(bytes(bad)) is None, (i, mask)
    assert decode_segment_header(block[:-1]) is None
    assert decode_segment_header(b"") is None


def test_segment_names() -> None:
    """Names sort like their sequence numbers, and other files are not taken for segments."""
    assert segment_name(255) == "wal-00000000000000ff.log"
    assert segment_sequence(segment_name(2**63)) == 2**63
    assert sorted(map(segment_name, [300, 2, 17])) == list(map(segment_name, [2, 17, 300]))
    for name in ("wal-ff.log", "wal-00000000000000FF.log", "wal-00000000000000ff.log.tmp", "LOCK"):
        assert segment_sequence(name) is None


def test_term_payload() -> None:
    """A term round-trips; a payload of another length is an error."""
    assert decode_term(encode_term(2**64 - 1)) == 2**64 - 1
    with pytest.raises(ValueError, match="8 bytes, not 3"):
        decode_term(b"abc")


def test_scan_ends_clean() -> None:
    """A scan yields all records in order and says which batch comes next."""
    frames = [frame(7, b"\x01a", end=False), frame(7, b"\x01b"), frame(8, b"\x01c")]
    scan = Scan(segment(*frames), HEADER, 2048)
    assert [record.payload for record in scan] == [b"\x01a", b"\x01b", b"\x01c"]
    assert scan.end == HEADER_BLOCK_BYTES + 3 * (FRAME_HEADER_BYTES + 2)
    assert (scan.batch, scan.batch_next, scan.mid_batch) == (9, 9, False)
    assert scan.batch_start == HEADER_BLOCK_BYTES + 2 * (FRAME_HEADER_BYTES + 2)
    assert scan.later_batch_offset() is None


def test_scan_ends_inside_batch() -> None:
    """A batch without its last record counts as used: the next one has another number."""
    scan = Scan(segment(frame(7, b"\x01a", end=False)), HEADER, 2048)
    assert len(list(scan)) == 1
    assert (scan.batch, scan.batch_next, scan.mid_batch) == (7, 8, True)


@pytest.mark.parametrize(
    ("bad_is_last_of", "later", "corrupt"),
    [
        pytest.param("whole batch before", 8, False, id="same batch behind"),
        pytest.param("whole batch before", 9, True, id="later batch behind"),
        pytest.param("begun batch", 7, False, id="same batch behind, begun"),
        pytest.param("begun batch", 8, True, id="next batch behind, begun"),
    ],
)
def test_scan_tells_torn_from_corrupt(bad_is_last_of: str, later: int, corrupt: bool) -> None:
    """Behind bad bytes only a valid frame of a later batch proves that they had been durable."""
    good = frame(7, b"\x01a", end=bad_is_last_of == "whole batch before")
    buffer = segment(good, b"?" * 60, frame(later, b"\x01z"))
    scan = Scan(buffer, HEADER, len(buffer))
    assert len(list(scan)) == 1
    assert (scan.later_batch_offset() is not None) is corrupt


def test_scan_stops_at_batch_gap() -> None:
    """A valid frame of a batch that cannot come yet is the proof that one is missing."""
    buffer = segment(frame(7, b"\x01a"), frame(9, b"\x01z"))
    scan = Scan(buffer, HEADER, len(buffer))
    assert len(list(scan)) == 1
    assert scan.later_batch_offset() == scan.end


def test_stored_frame_is_no_proof() -> None:
    """A user's value that imitates a frame of a later batch, without the salt, proves nothing."""
    guess = SegmentHeader(HEADER.sequence, 7, 2, 4711, salt=0)
    value = frame(99, b"\x01z", header=guess)
    torn = bytearray(frame(7, b"\x01" + value))
    torn[0] ^= 0xFF
    buffer = segment(bytes(torn))
    scan = Scan(buffer, HEADER, len(buffer))
    assert list(scan) == []
    assert scan.later_batch_offset() is None


@pytest.mark.parametrize("window_bytes", [1, FRAME_HEADER_BYTES, 60, 64, 1 << 20])
@pytest.mark.parametrize("later", [9, 10], ids=["torn", "corrupt"])
def test_scan_by_windows(window_bytes: int, later: int) -> None:
    """Whatever a scan holds at a time, it finds the same records, end, last batch and later frame."""
    sizes = ((7, 9, True), (8, 200, False), (8, 3, False), (8, 120, True), (9, 50, False), (9, 1, False))
    good = [frame(batch, b"\x01" + bytes(size), end=end) for batch, size, end in sizes]
    buffer = segment(*good, b"?" * 77, frame(later, b"\x01z"), bytes(100))
    reads: list[int] = []

    def read(offset: int, length: int) -> bytes:
        reads.append(length)
        return buffer[offset : offset + length]

    scan = Scan(read, HEADER, len(buffer), window_bytes)
    end = HEADER_BLOCK_BYTES + sum(map(len, good))
    assert [(r.batch, len(r.payload) - 1, r.end_of_batch) for r in scan] == list(sizes)
    assert scan.end == end
    assert scan.last_batch == buffer[scan.batch_start : end] == good[4] + good[5]
    assert scan.later_batch_offset() == (end + 77 if later == 10 else None)
    assert max(reads) <= max(window_bytes, len(good[1])), "no more is held than a window or one frame"


def test_scan_past_its_bound() -> None:
    """A bound inside the header's block, which only a wrong header can tell, gives no record and no error."""
    scan = Scan(segment(frame(7, b"\x01a")), HEADER, 100)
    assert (list(scan), scan.last_batch, scan.later_batch_offset()) == ([], b"", None)
