"""What records mean: the fold, the rewrites in it, and the records that cannot be."""

from __future__ import annotations

import pytest

from kv.raft.wal_format import Kind, Record, encode_term
from kv.raft.wal_replay import GroupLog, Replay, ReplayError, check_complete


def record(kind: Kind, index: int = 0, term: int = 0, payload: bytes = b"") -> Record:
    """A record of group 1; its offset is of no interest."""
    return Record(1000, 1, True, 1, kind, index, term, payload)


def entry(index: int, term: int = 1, payload: bytes | None = None) -> Record:
    """An entry whose data tells its index."""
    return record(Kind.ENTRY, index, term, b"\x01%d" % index if payload is None else payload)


def head(kind: Kind, index: int, term: int = 1, previous_term: int = 1) -> Record:
    """A compaction or snapshot mark."""
    return record(kind, index, term, encode_term(previous_term))


def fold(*records_: Record, cache_bytes_max: int = 1000) -> GroupLog:
    """The state of group 1 after these records, each in a segment of its own, 1, 2, 3, ..."""
    replay = Replay(cache_bytes_max, 4 * cache_bytes_max)
    for segment, one in enumerate(records_, 1):
        replay.apply(segment, one)
    return replay.groups[1]


def test_plain_log() -> None:
    """Entries follow the head, hard states replace one another."""
    log = fold(
        head(Kind.SNAPSHOT, 2, 0, 0),
        record(Kind.HARD_STATE, term=1, payload=b"n1"),
        entry(3),
        record(Kind.HARD_STATE, term=2),
        entry(4),
    )
    check_complete(log)
    assert (log.base, log.base_term, log.previous_term, log.last) == (2, 0, 0, 4)
    assert (log.term, log.voted_for, log.hard_state_segment, log.head_segment) == (2, None, 4, 1)
    assert {index: segment for index, (_, segment, _, _) in log.entries.items()} == {3: 3, 4: 5}
    assert dict(log.payloads) == {3: b"\x013", 4: b"\x014"}


def test_truncation_and_overwrite() -> None:
    """A truncation removes the tail, and other entries may take its place."""
    log = fold(
        head(Kind.SNAPSHOT, 2),
        entry(3),
        entry(4),
        entry(5),
        record(Kind.TRUNCATE, 4),
        entry(4, 2, b"\x01new"),
    )
    check_complete(log)
    assert log.last == 4
    assert log.entries[4][0] == 2
    assert dict(log.payloads) == {3: b"\x013", 4: b"\x01new"}


def test_compaction_keeps_what_follows() -> None:
    """A compaction drops the entries up to its index and keeps those after it."""
    log = fold(head(Kind.SNAPSHOT, 2), entry(3), entry(4), entry(5), head(Kind.COMPACT, 4, 1, 1))
    check_complete(log)
    assert (log.base, log.last, sorted(log.entries), sorted(dict(log.payloads))) == (4, 5, [5], [5])


def test_snapshot_drops_everything() -> None:
    """A snapshot mark leaves only its head, even of entries after its index."""
    log = fold(head(Kind.SNAPSHOT, 2), entry(3), entry(4), head(Kind.SNAPSHOT, 3, 7, 6))
    check_complete(log)
    assert (log.base, log.base_term, log.previous_term, log.last, log.entries) == (3, 7, 6, 3, {})


def test_rewrite_moves_the_place() -> None:
    """The same entry again only changes where it stands."""
    log = fold(head(Kind.SNAPSHOT, 2), entry(3), entry(4), entry(3))
    check_complete(log)
    assert log.last == 4
    assert [log.entries[i][1] for i in (3, 4)] == [4, 3]


def test_rewrite_never_resurrects() -> None:
    """What was truncated after its rewrite stays removed; what was truncated before was not rewritten."""
    log = fold(head(Kind.SNAPSHOT, 2), entry(3), entry(4), entry(3), entry(4), record(Kind.TRUNCATE, 4))
    check_complete(log)
    assert sorted(log.entries) == [3]
    assert log.last == 3


def test_oldest_segments_gone() -> None:
    """Entries may come before their head, and the entries between may come later, rewritten."""
    log = fold(entry(7), entry(8), head(Kind.COMPACT, 4), entry(5), entry(9), entry(6))
    check_complete(log)
    assert (log.base, log.last, sorted(log.entries)) == (4, 9, [5, 6, 7, 8, 9])


def test_entries_before_a_later_compaction() -> None:
    """Entries of a dropped prefix are ignored once a compaction covers them."""
    log = fold(entry(5), entry(6), entry(7), head(Kind.COMPACT, 6))
    check_complete(log)
    assert sorted(log.entries) == [7]


def test_dropped_group() -> None:
    """A dropped group leaves nothing, and its number can begin again."""
    replay = Replay(1000, 1000)
    for one in (head(Kind.SNAPSHOT, 9), entry(10), record(Kind.DROP_GROUP)):
        replay.apply(1, one)
    assert replay.groups == {}
    replay.apply(1, head(Kind.SNAPSHOT, 2))
    assert replay.groups[1].base == 2


def test_cache_is_bounded() -> None:
    """Only the newest payloads stay in memory, up to the limit."""
    entries = [entry(index, payload=b"\x01" * 10) for index in range(3, 13)]
    log = fold(head(Kind.SNAPSHOT, 2), *entries, cache_bytes_max=35)
    assert [index for index, _ in log.payloads] == [10, 11, 12]
    assert log.payload_bytes == 30
    log = fold(head(Kind.SNAPSHOT, 2), *entries, head(Kind.COMPACT, 12))
    assert (list(log.payloads), log.payload_bytes) == ([], 0)


@pytest.mark.parametrize(
    ("last", "detail"),
    [
        pytest.param(entry(4, 9), "without truncation", id="other term"),
        pytest.param(entry(4, 1, b"\x01longer"), "without truncation", id="other length"),
        pytest.param(entry(2), "below the head", id="below the head"),
        pytest.param(record(Kind.TRUNCATE, 2), "below the head", id="truncates the head"),
        pytest.param(record(Kind.HARD_STATE, term=4), "back to 4", id="term goes back"),
        pytest.param(head(Kind.COMPACT, 1), "back to 1", id="head goes back"),
        pytest.param(record(Kind.COMPACT, 3, 1, b"?"), "8 bytes", id="no term"),
    ],
)
def test_impossible_records(last: Record, detail: str) -> None:
    """A record that the log cannot have contained is an error, not a guess."""
    before = (head(Kind.SNAPSHOT, 2), record(Kind.HARD_STATE, term=5), entry(3), entry(4))
    fold(*before)
    with pytest.raises(ValueError, match=detail):
        fold(*before, last)


@pytest.mark.parametrize(
    "records_",
    [
        pytest.param((entry(3),), id="no head"),
        pytest.param((head(Kind.SNAPSHOT, 2), entry(4)), id="gap after the head"),
        pytest.param((head(Kind.SNAPSHOT, 2), entry(3), entry(5)), id="gap"),
        pytest.param((entry(7), record(Kind.TRUNCATE, 7), head(Kind.COMPACT, 4)), id="gap before truncation"),
    ],
)
def test_incomplete_groups(records_: tuple[Record, ...]) -> None:
    """A group without a head, or with a gap in its entries, is not whole."""
    with pytest.raises(ReplayError):
        check_complete(fold(*records_))


def test_hard_state_alone() -> None:
    """A group that only voted so far is whole."""
    log = fold(record(Kind.HARD_STATE, term=3, payload=b"n2"))
    check_complete(log)
    assert (log.base, log.term, log.voted_for) == (0, 3, "n2")
