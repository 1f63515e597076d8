"""What may be asked of reads and writes, and what is refused at the door."""

from __future__ import annotations

from typing import Any

import pytest

from kv.errors import InvalidArgument
from kv.router.options import check_reach, check_read, check_write, replicas_wanted, share_of
from kv.v1 import kv_pb2

BOUNDED = kv_pb2.READ_LEVEL_BOUNDED
QUORUM = kv_pb2.READ_LEVEL_QUORUM
ALL = kv_pb2.READ_LEVEL_ALL


@pytest.mark.parametrize(
    ("level", "fields", "text"),
    [
        (99, {}, "no read level 99"),
        (-1, {}, "no read level -1"),
        (0, {"preference": 9}, "no replica preference 9"),
        (BOUNDED, {}, "max_age_ms"),
        (0, {"node": "no such/name"}, "node id"),
        (0, {"node": "n" * 64}, "node id"),
    ],
)
def test_bad_read_options_are_refused(level: Any, fields: dict[str, Any], text: str) -> None:  # noqa: ANN401
    """An unknown level, preference or kind of name, and a bound without its age, each say what is wrong."""
    with pytest.raises(InvalidArgument, match=text):
        check_read(level, kv_pb2.ReadOptions(**fields))


@pytest.mark.parametrize("level", kv_pb2.ReadLevel.values())
def test_every_level_with_what_it_needs_is_accepted(level: kv_pb2.ReadLevel.ValueType) -> None:
    """With an age of one millisecond and a node each level passes."""
    check_read(level, kv_pb2.ReadOptions(max_age_ms=1, node="n1", preference=kv_pb2.REPLICA_PREFERENCE_LOCAL))


def test_an_unknown_write_level_is_refused() -> None:
    """Levels of writes are checked as those of reads."""
    for level in kv_pb2.WriteLevel.values():
        check_write(level)
    with pytest.raises(InvalidArgument, match="write level 7"):
        check_write(7)  # type: ignore[arg-type]


def test_a_quorum_is_at_most_the_replicas_that_there_are() -> None:
    """At the replication factor a QUORUM read passes, above it is refused with what to do; others do not care."""
    check_reach(QUORUM, kv_pb2.ReadOptions(replicas=3), 3)
    check_reach(ALL, kv_pb2.ReadOptions(replicas=4), 3)
    with pytest.raises(InvalidArgument, match="a majority"):
        check_reach(QUORUM, kv_pb2.ReadOptions(replicas=4), 3)


@pytest.mark.parametrize(("replicas", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_how_many_replicas_are_wanted(replicas: int, majority: int) -> None:
    """Zero means a majority, a number means itself, ALL means all."""
    assert replicas_wanted(QUORUM, 0, replicas) == majority
    assert replicas_wanted(QUORUM, 1, replicas) == 1
    assert replicas_wanted(ALL, 1, replicas) == replicas


def test_the_share_of_a_partition_names_no_other() -> None:
    """Indexes of other partitions stay behind, everything else goes along, and the original is untouched."""
    after = [kv_pb2.PartitionIndex(partition=p, index=10 + p) for p in (1, 2, 1)]
    read = kv_pb2.ReadOptions(max_age_ms=5, node="n1", after=after)
    share = share_of(read, 1)
    assert [(pair.partition, pair.index) for pair in share.after] == [(1, 11), (1, 11)]
    assert (share.max_age_ms, share.node) == (5, "n1")
    assert len(read.after) == 3
    assert not share_of(read, 7).after
