"""Writing batches: rotation, and which errors can be tried again."""

from __future__ import annotations

import errno

import pytest

from kv.raft.wal_errors import WalFailed, WalFull
from kv.raft.wal_format import FRAME_HEADER_BYTES, HEADER_BLOCK_BYTES, Kind, decode_segment_header
from kv.raft.wal_writer import JOIN_BYTES_MAX, RecordDraft, SegmentWriter, batch_bytes
from kv.sim.disk import Killed, MemoryFiles
from tests.raft.wal_tools import SALT, records

ROOM = 300
SEGMENT_BYTES = HEADER_BLOCK_BYTES + ROOM


def writer(files: MemoryFiles) -> SegmentWriter:
    """A writer of a new log with room for 300 bytes of records in a segment."""
    return SegmentWriter(files, None, salt=SALT, segment_bytes=SEGMENT_BYTES)


def draft(length: int, index: int = 3) -> RecordDraft:
    """A record that takes `length` bytes on disk."""
    return RecordDraft(1, Kind.ENTRY, index, 1, b"\x01".ljust(length - FRAME_HEADER_BYTES, b"."))


def test_a_batch_that_just_fits_stays() -> None:
    """A segment is filled to its last byte before the next one begins."""
    files = MemoryFiles()
    wal = writer(files)
    wal.write(1, [draft(100)])
    segment, offset = wal.write(2, [draft(100), draft(100)])
    assert (segment.header.sequence, offset, segment.end) == (1, HEADER_BLOCK_BYTES + 100, SEGMENT_BYTES)
    segment, offset = wal.write(3, [draft(FRAME_HEADER_BYTES)])
    assert (segment.header.sequence, offset) == (2, HEADER_BLOCK_BYTES)


def test_next_segment_states_where_the_last_one_ends() -> None:
    """The header of a segment carries its first batch and the end of the one before."""
    files = MemoryFiles()
    wal = writer(files)
    first, _ = wal.write(1, [draft(100)])
    second, _ = wal.write(2, [draft(250)])
    header = decode_segment_header(files.read(second.name, 0, HEADER_BLOCK_BYTES))
    assert header is not None
    assert (header.first_batch, header.previous_sequence, header.previous_end) == (2, 1, first.end)


def test_oversized_batch_gets_a_segment_of_its_size() -> None:
    """A batch larger than a segment is written whole, into a larger one, without joining its buffers."""
    files = MemoryFiles()
    wal = writer(files)
    drafts = [draft(JOIN_BYTES_MAX), draft(ROOM)]
    segment, _ = wal.write(1, drafts)
    assert segment.size == HEADER_BLOCK_BYTES + batch_bytes(drafts) == segment.end
    assert [len(record.payload) for record in records(files, segment.name)] == [
        len(one.payload) for one in drafts
    ]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["create", "header", "batch"])
def test_full_disk_can_be_tried_again(code: int, where: str) -> None:
    """Without room nothing counts as written; the same batch succeeds when there is room again."""
    files = MemoryFiles()
    wal = writer(files)
    wal.write(1, [draft(100)])
    batch = [draft(FRAME_HEADER_BYTES + 7)] * (2 if where == "batch" else 5)
    if where == "create":
        files.create_error = code
    else:
        files.write_error = (code, 60)
    with pytest.raises(WalFull):
        wal.write(2, batch)
    segment, _ = wal.write(2, batch)
    found = records(files, segment.name)
    assert [record.batch for record in found if record.batch > 1] == [2] * len(batch)
    assert segment.header.sequence == (1 if where == "batch" else 2)


@pytest.mark.parametrize("where", ["create", "write", "sync", "sync with ENOSPC", "directory"])
def test_other_errors_are_fatal(where: str) -> None:
    """An I/O error, and any error of a sync, even for lack of room, is not to be tried again."""
    files = MemoryFiles()
    wal = writer(files)
    match where:
        case "create":
            files.create_error = errno.EIO
        case "write":
            files.write_error = (errno.EIO, 10)
        case "sync":
            files.sync_error = errno.EIO
        case "sync with ENOSPC":
            files.sync_error = errno.ENOSPC
        case _:
            files.sync_directory_error = errno.ENOSPC
    with pytest.raises(WalFailed):
        wal.write(1, [draft(100)])


def test_segment_is_durable_before_its_first_use() -> None:
    """File, header and directory entry are synced before the first record is written."""
    files = MemoryFiles()
    files.calls_left = 4  # create, write header, sync, sync directory
    wal = writer(files)
    with pytest.raises(Killed):
        wal.write(1, [draft(100)])
    name = files.names()[0]
    assert files.durable_files[name] is files.files[name]
    assert decode_segment_header(bytes(files.durable_files[name].durable)) is not None
