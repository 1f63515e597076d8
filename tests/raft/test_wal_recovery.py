"""Reading the log back: torn tails are cut, damage to what was durable is always named.

Every test builds a log, damages its bytes in one way, and opens it.
"""

from __future__ import annotations

from random import Random

import pytest

from kv.raft.wal import Wal, WalCorruption, WalFailed
from kv.raft.wal_format import (
    HEADER_BLOCK_BYTES,
    SegmentHeader,
    decode_segment_header,
    encode_segment_header,
    segment_name,
)
from kv.sim.disk import Killed, MemoryFiles
from tests.raft.wal_tools import GroupState, add, flush, open_wal, payload, records, state, states

SEGMENT_BYTES = 2048
TAIL_TERM = 50
FIRST, SECOND, LAST = segment_name(1), segment_name(2), segment_name(3)


class Built:
    """A log of three segments; the last one holds three batches, the last of which is `tail`."""

    def __init__(self, tail_entries: int = 6, tail_size: int = 90) -> None:
        self.files = MemoryFiles()
        wal = open_wal(self.files, SEGMENT_BYTES)
        for group in (1, 2):
            wal.journal(group).bootstrap()
        flush(wal)
        self._fill(wal)
        self.before = states(wal)
        self.prefixes = [self.before]
        """States of the groups after each record of the last batch, from none to all."""
        self.tail_start = self._end(wal)
        for i in range(tail_entries):
            add(wal.journal(1 + i % 2), 1, term=TAIL_TERM, size=tail_size)
            self.prefixes.append(states(wal))
        self.before_tail = self.files.copy()
        flush(wal)
        assert wal.segments == (FIRST, SECOND, LAST)
        self.ends = {name: self.end(name) for name in wal.segments}

    def _fill(self, wal: Wal) -> None:
        """Two full segments, and two batches in a third."""
        while len(wal.segments) < 3:
            wal.journal(1).set_hard_state(wal.journal(1).term + 1, "n1")
            add(wal.journal(1), 2, term=wal.journal(1).term)
            add(wal.journal(2), 1)
            flush(wal)
        wal.journal(2).truncate_from(wal.journal(2).last)
        flush(wal)

    def _end(self, wal: Wal) -> int:
        return self.end(wal.segments[-1])

    def end(self, name: str) -> int:
        """Offset of the byte after the last record of a segment."""
        return max(record.end for record in records(self.files, name))


@pytest.fixture(scope="module")
def built() -> Built:
    """One log for all tests of this file, which copy its disk before they damage it."""
    return Built()


def reopen(files: MemoryFiles) -> dict[int, GroupState]:
    """Open the log and tell what it holds."""
    return states(open_wal(files, SEGMENT_BYTES))


def test_undamaged(built: Built) -> None:
    """A log that nothing happened to reads back whole, again and again."""
    files = built.files.copy()
    assert reopen(files) == built.prefixes[-1]
    assert reopen(files) == built.prefixes[-1]
    assert reopen(built.before_tail.copy()) == built.before


def test_torn_at_every_byte(built: Built) -> None:
    """A last batch of which only the first n bytes were written leaves its whole records, for every n."""
    ends = [record.end for record in records(built.files, LAST) if record.offset >= built.tail_start]
    for cut in range(built.tail_start, built.ends[LAST]):
        files = built.files.copy()
        file = files.files[LAST]
        file.data[cut:] = bytes(len(file.data) - cut)
        whole = sum(end <= cut for end in ends)
        assert reopen(files) == built.prefixes[whole], cut


def test_torn_by_sectors(built: Built, seed: int) -> None:
    """Any subset of the last batch's sectors leaves a prefix of its records, and is never corruption."""
    random = Random(seed)
    for _ in range(100):
        files = built.files.copy()
        files.files[LAST].durable = bytearray(built.before_tail.files[LAST].data)
        files.files[LAST].dirty = set(range(len(files.files[LAST].data) // 512))
        files.power_loss(random)
        assert reopen(files) in built.prefixes


@pytest.mark.parametrize("name", [FIRST, SECOND, LAST])
def test_flipped_byte_of_durable_records(built: Built, name: str) -> None:
    """A changed byte in anything but the last batch is corruption, named by segment and frame."""
    frames = [
        (record.offset, record.end)
        for record in records(built.files, name)
        if name != LAST or record.offset < built.tail_start
    ]
    assert len(frames) > 2
    files = built.files.copy()
    for start, end in frames:
        for offset in range(start, end):
            mask = (0x01, 0x10, 0xFF)[offset % 3]
            files.flip(name, offset, mask)
            with pytest.raises(WalCorruption) as caught:
                reopen(files)
            assert (caught.value.segment, caught.value.offset) == (name, start), offset
            files.flip(name, offset, mask)
    assert reopen(files) == built.prefixes[-1]


@pytest.mark.parametrize("name", [FIRST, SECOND, LAST])
def test_flipped_byte_of_headers(built: Built, name: str) -> None:
    """A changed byte of a used segment's header block is corruption at offset 0."""
    files = built.files.copy()
    for offset in range(0, HEADER_BLOCK_BYTES, 3):
        files.flip(name, offset, 0x04)
        with pytest.raises(WalCorruption, match="header is damaged") as caught:
            reopen(files)
        assert (caught.value.segment, caught.value.offset) == (name, 0), offset
        files.flip(name, offset, 0x04)


def test_flipped_byte_of_last_batch(built: Built) -> None:
    """A changed byte of the very last batch looks torn: what stands before it is kept, nothing is invented."""
    files = built.files.copy()
    for offset in range(built.tail_start, built.ends[LAST], 3):
        files.flip(LAST, offset, 0x20)
        assert reopen(files.copy()) in built.prefixes[:-1], offset
        files.flip(LAST, offset, 0x20)


def test_zeroed_sectors_of_durable_records(built: Built) -> None:
    """Records that turned to zeros are corruption, not a clean end, if a later batch follows."""
    for name in (FIRST, SECOND, LAST):
        files = built.files.copy()
        first = records(files, name)[0]
        files.files[name].data[first.offset : first.end] = bytes(first.end - first.offset)
        with pytest.raises(WalCorruption) as caught:
            reopen(files)
        assert (caught.value.segment, caught.value.offset) == (name, HEADER_BLOCK_BYTES)


def test_message_says_the_way_out(built: Built) -> None:
    """Corruption tells where it is and what to do about it."""
    files = built.files.copy()
    files.flip(FIRST, HEADER_BLOCK_BYTES, 1)
    with pytest.raises(WalCorruption, match=rf"{FIRST}, offset 512: .*move its data directory away.*rejoin"):
        reopen(files)


def test_garbage_behind_the_end(built: Built) -> None:
    """Bytes behind the last record, in the last segment and in earlier ones, are of no effect."""
    files = built.files.copy()
    for name, end in built.ends.items():
        files.files[name].data[end : end + 5] = b"trash"
    assert reopen(files) == built.prefixes[-1]


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_missing_segment(built: Built, name: str) -> None:
    """A gap in the sequence is corruption; a lost first segment shows by what its groups miss."""
    files = built.files.copy()
    files.remove(name)
    with pytest.raises(WalCorruption, match=r"is missing|not whole"):
        reopen(files)


def test_renamed_segment(built: Built) -> None:
    """A segment under another's name is not taken for it."""
    files = built.files.copy()
    files.rename(SECOND, segment_name(9))
    with pytest.raises(WalCorruption) as caught:
        reopen(files)
    assert caught.value.segment == segment_name(9)


def test_batch_gap_between_segments(built: Built) -> None:
    """A segment that does not begin with the batch after the last one of its predecessor is corruption."""
    files = built.files.copy()
    header = decode_segment_header(files.read(LAST, 0, HEADER_BLOCK_BYTES))
    assert header is not None
    wrong = SegmentHeader(
        header.sequence, header.first_batch + 1, header.previous_sequence, header.previous_end, header.salt
    )
    files.write(LAST, 0, [encode_segment_header(wrong)])
    with pytest.raises(WalCorruption, match="begins with batch"):
        reopen(files)


def test_foreign_files_are_left_alone(built: Built) -> None:
    """Files that are not segments are neither read nor removed."""
    files = built.files.copy()
    files.create("LOCK", 3)
    assert reopen(files) == built.prefixes[-1]
    assert "LOCK" in files.names()


@pytest.mark.parametrize(
    "content",
    [b"", bytes(100), bytes(SEGMENT_BYTES), b"kvwal".ljust(SEGMENT_BYTES, b"\0")],
    ids=["empty", "short", "zeros", "torn"],
)
def test_segment_that_was_being_created(built: Built, content: bytes) -> None:
    """A last segment without a whole header and without a record is removed, and its number used again."""
    files = built.files.copy()
    name = segment_name(4)
    files.create(name, len(content))
    files.write(name, 0, [content])
    wal = open_wal(files, SEGMENT_BYTES)
    assert states(wal) == built.prefixes[-1]
    assert name not in files.names()
    add(wal.journal(1), 1, term=TAIL_TERM)
    flush(wal)
    assert wal.segments[-1] == name
    assert reopen(files) == states(wal)


def test_only_segment_was_being_created() -> None:
    """A first segment without a header is an empty log."""
    files = MemoryFiles()
    files.create(FIRST, SEGMENT_BYTES)
    assert reopen(files) == {}


def test_unsynced_tail_becomes_durable(seed: int) -> None:
    """What recovery reads from the page cache and builds on survives a power loss after it."""
    random = Random(seed)
    for _ in range(30):
        built = Built()
        files = built.before_tail.copy()
        file = files.files[LAST]
        file.data[:] = built.files.files[LAST].data  # written, not synced; then the process died
        file.dirty = set(range(len(file.data) // 512))
        cut = random.randrange(built.tail_start, len(file.data))
        file.data[cut:] = bytes(len(file.data) - cut)
        wal = open_wal(files, SEGMENT_BYTES)
        found = states(wal)
        files.power_loss(random)
        assert reopen(files) == found


def test_failed_sync_is_not_trusted(seed: int) -> None:
    """A batch whose sync failed may be read back from memory only: recovery writes it again."""
    files = MemoryFiles()
    wal = open_wal(files, SEGMENT_BYTES)
    wal.journal(1).bootstrap()
    flush(wal)
    add(wal.journal(1), 3)
    files.sync_error = 5
    batch = wal.begin_flush()
    assert batch is not None
    with pytest.raises(WalFailed):
        batch.run()
    reopened = open_wal(files, SEGMENT_BYTES)
    assert reopened.journal(1).durable_index == 5
    found = states(reopened)
    files.power_loss(Random(seed))
    assert reopen(files) == found


def test_crash_at_every_call(seed: int) -> None:
    """Wherever a start after a crash is itself cut off, by a power loss, nothing durable is lost."""
    random = Random(seed)
    built = Built()
    torn = built.before_tail.copy()
    torn.files[LAST].data[:] = built.files.files[LAST].data
    torn.files[LAST].data[built.ends[LAST] - 100 :] = bytes(
        len(torn.files[LAST].data) - built.ends[LAST] + 100
    )
    torn.files[LAST].dirty = set(range(len(torn.files[LAST].data) // 512))
    for calls in range(40):
        files = torn.copy()
        files.calls_left = calls
        durable: dict[int, GroupState] = {}
        try:
            wal = open_wal(files, SEGMENT_BYTES)
            durable = states(wal)
            for i in range(3):
                journal = wal.journal(1)
                add(journal, 1, term=TAIL_TERM + i, size=600)
                flush(wal)
                durable = states(wal)
        except Killed:
            finished = False
        else:
            finished = True
        files.calls_left = None
        files.power_loss(random)
        found = reopen(files)
        if durable:
            assert all(_extends(found[group], durable[group]) for group in durable), calls
        else:
            assert found in built.prefixes, calls
        if finished:
            assert calls > 10
            return
    pytest.fail("the scenario takes more calls than were tried")


def _extends(found: GroupState, durable: GroupState) -> bool:
    """Whether `found` holds all entries of `durable`, and at most one more."""
    entries = found[3]
    kept = len(durable[3])
    return entries[:kept] == durable[3] and len(entries) <= kept + 1


def test_values_that_imitate_frames() -> None:
    """Stored values that contain copies of real frames do not disturb the recovery of a torn tail."""
    files = MemoryFiles()
    wal = open_wal(files, 8192)
    wal.journal(1).bootstrap()
    add(wal.journal(1), 2)
    flush(wal)
    copied = files.read(FIRST, 0, 1000)
    before = states(wal)
    wal.journal(1).append(payload(5, 1) + copied, 5, 1)
    start = max(record.end for record in records(files, FIRST))
    flush(wal)
    files.flip(FIRST, start, 0xFF)
    reopened = open_wal(files, 8192)
    assert state(reopened.journal(1)) == before[1]
