"""The shared log: flushes, full and failing disks, rotation, restarts, and the compaction of segments."""

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
    Kind,
    decode_segment_header,
    segment_name,
)
from tests.raft.memory_files import Killed, MemoryFiles
from tests.raft.wal_tools import SALT, GroupState, add, flush, open_wal, records, state, states

SEGMENT_BYTES = 2048
CPU_SECONDS_MAX = 0.5
"""For 10,000 records; takes about 0.03 on an idle machine, and this one may be shared."""


@pytest.fixture
def files() -> MemoryFiles:
    """An empty disk."""
    return MemoryFiles()


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


# ---------------------------------------------------------------- compaction of segments


def test_nothing_to_compact(files: MemoryFiles) -> None:
    """The segment that is being written is never removed, nor one in which anything lives."""
    wal = open_wal(files, SEGMENT_BYTES)
    assert wal.plan_compaction() is None
    group(wal)
    wal.journal(1).compact_to(2)
    assert wal.plan_compaction() is None


def test_unneeded_segments_are_dropped(files: MemoryFiles) -> None:
    """Segments below everything that any group needs go, oldest first, and the rest reads back."""
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal)
    wal.journal(1).set_hard_state(1, "n1")
    fill(wal, 1, 4)
    wal.journal(1).set_hard_state(2, None)
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    assert compact(wal) == tuple(segment_name(i) for i in range(1, 5))
    assert files.names() == list(wal.segments) == [segment_name(5)]
    assert states(open_wal(files, SEGMENT_BYTES)) == states(wal)


def test_segments_wait_for_what_frees_them(files: MemoryFiles, seed: int) -> None:
    """A compaction that is not durable yet frees nothing: a crash before its flush finds all it needs."""
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal)
    fill(wal, 1, 3)
    before = states(wal)
    wal.journal(1).compact_to(wal.journal(1).last)
    compaction = wal.plan_compaction()
    assert compaction is not None
    assert compaction.seq == wal.last_seq > wal.durable_seq
    with pytest.raises(AssertionError, match="before what frees"):
        wal.end_compaction(compaction)
    crashed = files.copy()
    crashed.power_loss(Random(seed))
    assert states(open_wal(crashed, SEGMENT_BYTES)) == before
    with pytest.raises(AssertionError, match="one compaction at a time"):
        wal.plan_compaction()
    flush(wal)
    compaction.run()
    wal.end_compaction(compaction)
    assert states(open_wal(files, SEGMENT_BYTES)) == states(wal)


def test_idle_group_is_rewritten(files: MemoryFiles) -> None:
    """What an idle group needs of old segments is appended again, and then they go."""
    wal = open_wal(files, SEGMENT_BYTES, cache_bytes_max=0)
    group(wal, 2)
    add(wal.journal(2), 3)
    wal.journal(2).set_hard_state(4, "n2")
    group(wal, 1)
    idle = state(wal.journal(2))
    fill(wal, 1, 4)
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    assert compact(wal) == ()  # rewrites
    assert compact(wal) == tuple(segment_name(i) for i in range(1, 5))
    assert state(wal.journal(2)) == idle
    assert wal.journal(2).durable_index == 5
    again = open_wal(files, SEGMENT_BYTES)
    assert states(again) == states(wal)
    assert state(again.journal(2)) == idle


def test_rewrite_is_bounded(files: MemoryFiles) -> None:
    """One call rewrites at most its limit and one record more, and always something."""
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal, 2)
    add(wal.journal(2), 10)
    group(wal, 1)
    fill(wal, 1, 3)
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    frame = FRAME_HEADER_BYTES + 40
    sizes = []
    while True:
        compaction = wal.plan_compaction(rewrite_bytes_max=2 * frame)
        assert compaction is not None
        if compaction.names:
            break
        sizes.append(compaction.rewritten_bytes)
        flush(wal)
        compaction.run()
        wal.end_compaction(compaction)
    assert all(0 < size <= 3 * frame for size in sizes)
    assert len(sizes) == 5
    assert states(open_wal(files, SEGMENT_BYTES)) == states(wal)


@pytest.mark.parametrize("truncate", ["before the plan", "after the plan", "after the rewrite's flush"])
def test_rewrite_never_resurrects(files: MemoryFiles, truncate: str) -> None:
    """A truncation stays, whether it comes before or after the rewrite of what it removes."""
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal, 2)
    add(wal.journal(2), 6)
    group(wal, 1)
    fill(wal, 1, 3)
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    if truncate == "before the plan":
        wal.journal(2).truncate_from(5)
    compaction = wal.plan_compaction()
    assert compaction is not None
    assert compaction.rewritten_bytes > 0
    if truncate == "after the plan":
        wal.journal(2).truncate_from(5)
        add(wal.journal(2), 1, term=3)
    flush(wal)
    compaction.run()
    wal.end_compaction(compaction)
    if truncate == "after the rewrite's flush":
        wal.journal(2).truncate_from(5)
        add(wal.journal(2), 3, term=3)
        flush(wal)
    assert compact(wal)
    newer = {"before the plan": 0, "after the plan": 1, "after the rewrite's flush": 3}[truncate]
    assert [term for _, _, term in wal.journal(2).slice(2)] == [1, 1] + [3] * newer
    assert wal.journal(2).durable_index == wal.journal(2).last
    assert states(open_wal(files, SEGMENT_BYTES)) == states(wal)


def test_head_and_vote_alone_hold_a_segment_back(files: MemoryFiles) -> None:
    """A group that never wrote an entry keeps its head and its vote through a compaction."""
    wal = open_wal(files, SEGMENT_BYTES)
    wal.journal(2).install_snapshot(30, 5, 4)
    wal.journal(2).set_hard_state(6, "n3")
    wal.journal(3).set_hard_state(2, None)
    group(wal, 1)
    fill(wal, 1, 3)
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    expected = states(wal)
    compact(wal)
    assert segment_name(1) in compact(wal)
    again = open_wal(files, SEGMENT_BYTES)
    assert states(again) == expected
    assert (again.journal(3).term, len(again.journal(3))) == (2, 0)


def test_snapshot_head_rewritten_with_entries_after_it(files: MemoryFiles) -> None:
    """A rewritten head of a snapshot does not drop the entries that stand in newer segments."""
    wal = open_wal(files, SEGMENT_BYTES)
    wal.journal(1).install_snapshot(30, 5, 4)
    flush(wal)
    fill(wal, 1, 3)
    expected = states(wal)
    compact(wal)
    assert compact(wal) == (segment_name(1),)
    kinds = [record.kind for name in wal.segments for record in records(files, name)]
    assert Kind.COMPACT in kinds
    assert Kind.SNAPSHOT not in kinds
    assert states(open_wal(files, SEGMENT_BYTES)) == expected == states(wal)


def test_dropped_group_frees_its_segments(files: MemoryFiles) -> None:
    """A dropped group needs nothing, and its number begins again without its old entries."""
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal, 1)
    fill(wal, 1, 3)
    wal.drop_group(1)
    wal.journal(1).bootstrap()
    flush(wal)
    assert len(compact(wal)) == 3
    assert states(open_wal(files, SEGMENT_BYTES)) == states(wal)


def test_no_rewrite_without_need(files: MemoryFiles) -> None:
    """While the log takes no more than its share of space, nothing is rewritten."""
    wal = Wal.open(files, salt=SALT, segment_bytes=SEGMENT_BYTES, space_factor=2)
    group(wal, 2)
    group(wal, 1)
    fill(wal, 1, 1)
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    assert wal.plan_compaction() is None
    fill(wal, 1, 3)
    assert wal.plan_compaction() is None, "all of it is live"
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    compaction = wal.plan_compaction()
    assert compaction is not None
    assert compaction.rewritten_bytes > 0


def test_crash_at_every_call_of_compaction(seed: int) -> None:
    """Rewriting and removing segments can be cut off anywhere: every group reads back as it was."""
    random = Random(seed)
    files = MemoryFiles()
    wal = open_wal(files, SEGMENT_BYTES)
    group(wal, 2)
    add(wal.journal(2), 12)
    group(wal, 1)
    fill(wal, 1, 4)
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    expected = states(wal)
    for calls in range(100):
        disk = files.copy()
        reopened = open_wal(disk, SEGMENT_BYTES)
        disk.calls_left = calls
        try:
            for _ in range(4):
                compact(reopened, rewrite_bytes_max=700)
        except Killed:
            disk.calls_left = None
            disk.power_loss(random)
            assert states(open_wal(disk, SEGMENT_BYTES)) == expected, calls
        else:
            assert len(disk.names()) < len(files.names())
            assert calls > 10
            return
    pytest.fail("the scenario takes more calls than were tried")


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
