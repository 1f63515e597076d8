"""The shared log: flushes, full and failing disks, rotation, restarts."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from random import Random

import pytest

from kv.raft.files import OsFiles
from kv.raft.wal import Wal, WalFailed, WalFull
from kv.raft.wal_format import (
    FRAME_HEADER_BYTES,
    HEADER_BLOCK_BYTES,
    decode_segment_header,
    segment_name,
)
from kv.sim.disk import MemoryFiles
from tests.raft.wal_tools import (
    SALT,
    GroupState,
    add,
    compact,
    fill,
    flush,
    group,
    open_wal,
    records,
    state,
    states,
)

SEGMENT_BYTES = 2048
CPU_SECONDS_MAX = 0.5
"""For 10,000 records; takes about 0.03 on an idle machine, and this one may be shared."""


@pytest.fixture
def files() -> MemoryFiles:
    """An empty disk."""
    return MemoryFiles()


# ---------------------------------------------------------------- flush


def test_flush(files: MemoryFiles) -> None:
    """Records are durable when the flush that took them ends, not before."""
    wal = open_wal(files)
    assert (wal.dirty, wal.begin_flush(), wal.pending_bytes) == (False, None, 0)
    wal.journal(1).bootstrap()
    assert (wal.dirty, wal.last_seq, wal.durable_seq) == (True, 1, 0)
    batch = wal.begin_flush()
    assert batch is not None
    wal.journal(1).append(b"\x01abc", 3, 1)  # while the flush runs
    assert wal.pending_bytes == 2 * FRAME_HEADER_BYTES + 8 + 4
    batch.run()
    assert wal.durable_seq == 0
    wal.end_flush(batch)
    assert (wal.dirty, wal.last_seq, wal.durable_seq) == (True, 2, 1)
    assert wal.pending_bytes == FRAME_HEADER_BYTES + 4
    flush(wal)
    assert (wal.dirty, wal.durable_seq, wal.pending_bytes) == (False, 2, 0)


def test_flush_protocol(files: MemoryFiles) -> None:
    """Flushes do not overlap, end only when written, and run once."""
    wal = open_wal(files)
    group(wal)
    add(wal.journal(1), 1)
    batch = wal.begin_flush()
    assert batch is not None
    with pytest.raises(AssertionError, match="one flush at a time"):
        wal.begin_flush()
    with pytest.raises(AssertionError, match="has not been written"):
        wal.end_flush(batch)
    batch.run()
    with pytest.raises(AssertionError, match="runs once"):
        batch.run()
    with pytest.raises(AssertionError, match="is durable"):
        wal.abandon_flush(batch)
    wal.end_flush(batch)
    with pytest.raises(AssertionError, match="not the flush"):
        wal.end_flush(batch)


def test_one_sync_for_all_groups(files: MemoryFiles) -> None:
    """The work of many groups becomes durable by one sync, as one batch."""
    wal = open_wal(files, 1 << 16)
    for number in range(20):
        wal.journal(number).bootstrap()
    flush(wal)
    syncs = files.syncs
    for number in range(20):
        add(wal.journal(number), 1)
        wal.journal(number).set_hard_state(1, "n1")
    flush(wal)
    assert files.syncs == syncs + 1
    found = records(files, wal.segments[-1])
    assert [record.end_of_batch for record in found if record.batch == 2] == [False] * 39 + [True]


def test_each_start_has_its_own_segment(files: MemoryFiles) -> None:
    """A start reads only; its first flush begins a new segment, with the salt of that start."""
    group(open_wal(files))
    before = files.read(segment_name(1), 0, 4096)
    for _ in range(2):
        open_wal(files)
    assert files.names() == [segment_name(1)]
    wal = Wal.open(files, salt=SALT + 1, segment_bytes=4096)
    add(wal.journal(1), 1)
    flush(wal)
    assert files.names() == [segment_name(1), segment_name(2)]
    assert files.read(segment_name(1), 0, 4096) == before
    header = decode_segment_header(files.read(segment_name(2), 0, HEADER_BLOCK_BYTES))
    assert header is not None
    assert header.salt == SALT + 1
    assert states(open_wal(files)) == states(wal)


def test_rotation(files: MemoryFiles) -> None:
    """A log of many segments reads back whole, also what was evicted from memory."""
    wal = open_wal(files, SEGMENT_BYTES, cache_bytes_max=100)
    group(wal)
    fill(wal, 1, 5)
    assert wal.segments == tuple(segment_name(i) for i in range(1, 7))
    assert wal.bytes_on_disk == 6 * SEGMENT_BYTES
    assert states(open_wal(files, SEGMENT_BYTES)) == states(wal)


def test_oversized_batch(files: MemoryFiles) -> None:
    """One batch larger than a segment is taken whole."""
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal)
    add(wal.journal(1), 2, size=3 * SEGMENT_BYTES)
    flush(wal)
    add(wal.journal(1), 1)
    flush(wal)
    assert len(wal.segments) == 3
    assert wal.bytes_on_disk > 2 * SEGMENT_BYTES + 6 * SEGMENT_BYTES
    assert states(open_wal(files, SEGMENT_BYTES)) == states(wal)


def test_drop_group(files: MemoryFiles) -> None:
    """A dropped group is gone after a restart; its number may begin again at once."""
    wal = open_wal(files)
    group(wal, 1)
    group(wal, 2)
    add(wal.journal(1), 3)
    old = wal.journal(1)
    wal.drop_group(1)
    wal.drop_group(77)
    assert wal.groups() == [2]
    wal.journal(1).install_snapshot(50, 4, 4)
    assert wal.journal(1) is not old
    flush(wal)
    assert wal.journal(1).durable_index == 50
    again = open_wal(files)
    assert states(again) == states(wal)
    again.drop_group(1)
    flush(again)
    assert open_wal(files).groups() == [2]


def test_unsynced_entries_stay_in_memory(files: MemoryFiles) -> None:
    """The cache may exceed its limit by what is not durable yet, which no disk could give back."""
    wal = open_wal(files, cache_bytes_max=100)
    group(wal)
    add(wal.journal(1), 3)
    batch = wal.begin_flush()
    assert batch is not None
    add(wal.journal(1), 5)
    batch.run()
    wal.end_flush(batch)
    assert wal.journal(1).cached_bytes == 5 * 40
    assert [len(data) for data, _, _ in wal.journal(1).slice(2)] == [1] * 3 + [40] * 5
    flush(wal)
    assert wal.journal(1).cached_bytes == 80


# ---------------------------------------------------------------- full and failing disks


@pytest.mark.parametrize("where", ["create", "header", "first byte", "middle", "last byte"])
def test_full_disk_then_room(files: MemoryFiles, where: str) -> None:
    """A batch that met a full disk is written again unchanged; what came since goes into the next."""
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal)
    if where in ("create", "header"):
        add(wal.journal(1), 20)
    else:
        add(wal.journal(1), 5)
    match where:
        case "create":
            files.create_error = errno.ENOSPC
        case "header":
            files.write_error = (errno.ENOSPC, 30)
        case "first byte":
            files.write_error = (errno.EDQUOT, 0)
        case "middle":
            files.write_error = (errno.ENOSPC, 100)
        case _:
            files.write_error = (errno.ENOSPC, 5 * (FRAME_HEADER_BYTES + 40) - 1)
    batch = wal.begin_flush()
    assert batch is not None
    with pytest.raises(WalFull):
        batch.run()
    wal.abandon_flush(batch)
    assert (wal.dirty, wal.durable_seq) == (True, 1)
    assert wal.pending_bytes == batch.bytes
    wal.journal(1).truncate_from(5)
    add(wal.journal(1), 1, term=2)
    whole = {"middle": 1, "last byte": 4}.get(where, 0)
    assert len(state(open_wal(files.copy(), SEGMENT_BYTES).journal(1))[3]) == whole
    again = wal.begin_flush()
    assert again is batch
    again.run()
    wal.end_flush(again)
    assert wal.pending_bytes > 0
    flush(wal)
    assert wal.durable_seq == wal.last_seq
    assert states(open_wal(files, SEGMENT_BYTES)) == states(wal)


def test_crash_after_full_disk(files: MemoryFiles, seed: int) -> None:
    """Whatever a full disk left of a batch, and of its second attempt, is a prefix of it after a crash."""
    random = Random(seed)
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal)
    prefixes = [states(wal)]
    for _ in range(8):
        add(wal.journal(1), 1, size=100)
        prefixes.append(states(wal))
    batch = wal.begin_flush()
    assert batch is not None
    for length in range(0, batch.bytes, 61):
        files.write_error = (errno.ENOSPC, length)
        with pytest.raises(WalFull):
            batch.run()
        wal.abandon_flush(batch)
        crashed = files.copy()
        crashed.power_loss(random)
        assert states(open_wal(crashed, SEGMENT_BYTES)) in prefixes
        batch = wal.begin_flush()
        assert batch is not None
    batch.run()
    wal.end_flush(batch)
    assert states(open_wal(files, SEGMENT_BYTES)) == prefixes[-1]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_failed_sync_is_final(files: MemoryFiles, code: int) -> None:
    """A failed sync is fatal, even for lack of room: it is not run again, and not abandoned."""
    wal = open_wal(files)
    group(wal)
    add(wal.journal(1), 1)
    batch = wal.begin_flush()
    assert batch is not None
    files.sync_error = code
    with pytest.raises(WalFailed):
        batch.run()
    syncs = files.syncs
    with pytest.raises(AssertionError, match="never tried again"):
        batch.run()
    with pytest.raises(AssertionError, match="never tried again"):
        wal.abandon_flush(batch)
    with pytest.raises(AssertionError):
        wal.end_flush(batch)
    assert (files.syncs, wal.durable_seq) == (syncs, 1)


# ---------------------------------------------------------------- the real disk


def test_on_the_real_disk(tmp_path: Path) -> None:
    """Everything together on files of the operating system, with a restart after each step."""
    expected: dict[int, GroupState] = {}
    for step in range(6):
        wal = open_wal(OsFiles(tmp_path), 8192, cache_bytes_max=500)
        assert states(wal) == expected
        match step:
            case 0:
                wal.journal(1).bootstrap()
                wal.journal(2).install_snapshot(10, 3, 3)
            case 1:
                wal.journal(1).set_hard_state(4, "n1")
                add(wal.journal(1), 100)
            case 2:
                add(wal.journal(2), 400, term=3, size=70)
                wal.journal(1).truncate_from(80)
            case 3:
                wal.journal(2).compact_to(400)
            case 4:
                flush_if_dirty(wal)
                for _ in range(3):
                    compact(wal)
                assert segment_name(1) not in wal.segments
            case _:
                wal.drop_group(1)
        flush_if_dirty(wal)
        expected = states(wal)
        wal.close()


def flush_if_dirty(wal: Wal) -> None:
    """`flush`, if there is anything to."""
    if wal.dirty:
        flush(wal)


def test_failed_disk_is_told(tmp_path: Path) -> None:
    """An error of the operating system comes out as the log's own error with its number."""
    files = OsFiles(tmp_path)
    wal = open_wal(files)
    wal.journal(1).bootstrap()
    (tmp_path / segment_name(1)).mkdir()
    batch = wal.begin_flush()
    assert batch is not None
    with pytest.raises(WalFailed) as caught:
        batch.run()
    assert caught.value.errno == errno.EISDIR
    wal.close()


def test_cpu_per_record(files: MemoryFiles) -> None:
    """10,000 small records in batches of 100 take a small fraction of a second without the disk."""
    wal = open_wal(files, 1 << 21)
    group(wal)
    start = time.process_time()
    for _ in range(100):
        add(wal.journal(1), 100)
        flush(wal)
    assert time.process_time() - start < CPU_SECONDS_MAX
    assert wal.journal(1).durable_index == 10_002
