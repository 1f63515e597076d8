"""Compaction of segments: what nobody needs goes, what somebody needs is rewritten, and no crash shows."""

from __future__ import annotations

from random import Random

import pytest

from kv.raft.wal import Wal
from kv.raft.wal_format import FRAME_HEADER_BYTES, Kind, segment_name
from kv.sim.disk import Killed, MemoryFiles
from tests.raft.wal_tools import SALT, add, compact, fill, flush, group, open_wal, records, state, states

SEGMENT_BYTES = 2048


@pytest.fixture
def files() -> MemoryFiles:
    """An empty disk."""
    return MemoryFiles()


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


@pytest.mark.parametrize("what", ["head", "vote"])
def test_head_or_vote_alone_holds_a_segment_back(files: MemoryFiles, what: str) -> None:
    """A group that has nothing but its head, or its vote, in a segment keeps it through a compaction."""
    wal = open_wal(files, SEGMENT_BYTES)
    if what == "head":
        wal.journal(2).install_snapshot(30, 5, 4)
    else:
        wal.journal(2).set_hard_state(6, "n3")
    group(wal, 1)
    fill(wal, 1, 3)
    wal.journal(1).compact_to(wal.journal(1).last)
    flush(wal)
    expected = states(wal)
    assert compact(wal) == ()
    assert compact(wal) == tuple(segment_name(i) for i in range(1, 4))
    again = open_wal(files, SEGMENT_BYTES)
    assert [state(again.journal(number)) for number in (1, 2)] == [expected[1], expected[2]]


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
