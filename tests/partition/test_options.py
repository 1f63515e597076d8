"""Levels and their bounds, as a request asks for them."""

from __future__ import annotations

import pytest

from kv.errors import InvalidArgument
from kv.partition.batch import decode_batch
from kv.partition.options import PLAIN, Options
from kv.v1 import kv_pb2
from tests.partition.tools import ask_outcome, batch, get, open_session, put

READ = kv_pb2.ReadOptions
LEVELS = [
    kv_pb2.READ_LEVEL_UNSPECIFIED,
    kv_pb2.READ_LEVEL_LINEARIZABLE,
    kv_pb2.READ_LEVEL_STALE,
    kv_pb2.READ_LEVEL_LEASE,
    kv_pb2.READ_LEVEL_SESSION,
    kv_pb2.READ_LEVEL_QUORUM,
    kv_pb2.READ_LEVEL_ALL,
]


@pytest.mark.parametrize("level", LEVELS)
def test_levels(level: int) -> None:
    """Each level decodes as it is, without any option."""
    decoded = decode_batch(batch(get(b"k"), level=level))
    assert decoded.level == level
    assert decoded.options == PLAIN


def test_plain_is_the_one_plain() -> None:
    """Plain reads and writes share the plain options: answering them looks for nothing else."""
    for raw in (batch(get(b"k")), batch(get(b"k"), stale=True), batch(put(b"k", b"v"), write_level=1)):
        assert decode_batch(raw).options is PLAIN


def test_read_options() -> None:
    """All that a read may ask for is kept."""
    asked = READ(
        max_age_ms=7,
        after=[kv_pb2.PartitionIndex(partition=2, index=9)],
        preference=kv_pb2.REPLICA_PREFERENCE_LOCAL,
        node="n2",
    )
    decoded = decode_batch(batch(get(b"k"), level=kv_pb2.READ_LEVEL_BOUNDED, read=asked, trace=True))
    assert decoded.options == Options(max_age_ms=7, after=((2, 9),), local=True, node="n2", trace=True)


def test_write_options() -> None:
    """A write keeps its level, its patience in seconds and its wish for a trace; read options mean nothing to it."""
    raw = batch(put(b"k", b"v"), write_level=2, all_timeout_ms=250, trace=True, level=99)
    assert decode_batch(raw).options == Options(all_replicas=True, all_timeout_s=0.25, trace=True)


def test_after_index() -> None:
    """The bound of a partition is the highest that names it, and 0 where none does."""
    options = Options(after=((2, 9), (3, 4), (2, 5)))
    assert [options.after_index(partition) for partition in (2, 3, 4)] == [9, 4, 0]


def test_without_a_revision() -> None:
    """Opening a session and asking for an outcome have no revision to tell."""
    for operation in (open_session(), ask_outcome(1, 1)):
        assert not decode_batch(batch(operation)).options.tells_revision


@pytest.mark.parametrize("level", [-1, 8, 99])
def test_unknown_read_level(level: int) -> None:
    """A level of a newer version is refused, not taken for another one."""
    with pytest.raises(InvalidArgument, match="read level"):
        decode_batch(batch(get(b"k"), level=level))


@pytest.mark.parametrize("level", [-1, 3])
def test_unknown_write_level(level: int) -> None:
    """A write level of a newer version is refused before the write is logged."""
    with pytest.raises(InvalidArgument, match="write level"):
        decode_batch(batch(put(b"k", b"v"), write_level=level))


def test_bounded_without_age() -> None:
    """A BOUNDED read that does not say how old the answer may be is refused; one millisecond is enough."""
    for read in (None, READ(max_age_ms=0)):
        with pytest.raises(InvalidArgument, match="max_age_ms"):
            decode_batch(batch(get(b"k"), level=kv_pb2.READ_LEVEL_BOUNDED, read=read))
    raw = batch(get(b"k"), level=kv_pb2.READ_LEVEL_BOUNDED, read=READ(max_age_ms=1))
    assert decode_batch(raw).options.max_age_ms == 1


def test_unknown_preference() -> None:
    """A preference of a newer version is refused."""
    with pytest.raises(InvalidArgument, match="preference"):
        decode_batch(batch(get(b"k"), read=READ(preference=9)))  # type: ignore[arg-type]
