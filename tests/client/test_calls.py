"""Properties of operations on the wire and back."""

from __future__ import annotations

from typing import cast

import pytest

from kv.client.batch import split
from kv.client.limits import Limits
from kv.client.operations import (
    OPERATION_OVERHEAD_BYTES,
    check_op,
    make_condition,
    op_size,
    read_get,
    write_compare,
    write_op,
)
from kv.client.rows import rows_of
from kv.client.types import Compare, Delete, Evidence, Get, Op, Put, ReadLevel, Relation
from kv.errors import InvalidArgument, KeyEmpty, KeyTooLong, ValueTooLarge
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX
from kv.v1 import kv_pb2


def test_our_numbers_are_those_of_the_protocol() -> None:
    """ReadLevel and Relation have the numbers of their protobuf twins."""
    for level in ReadLevel:
        assert kv_pb2.ReadLevel.Value(f"READ_LEVEL_{level.name}") == int(level)
    for relation in Relation:
        assert kv_pb2.Comparator.Value(f"COMPARATOR_{relation.name}") == int(relation)


def test_gets_that_travelled_together_have_revisions_of_their_own() -> None:
    """The evidence of one get tells its own key's revision, not the highest of the request that carried it."""
    shared = Evidence(1, 1, 1, 9, "n1", ReadLevel.LINEARIZABLE, revision=8)
    for revision in (5, 8):
        item = kv_pb2.KeyValue(key=b"k", mod_revision=revision)
        found = read_get(kv_pb2.GetResult(item=item), shared)
        assert found is not None
        assert found.evidence is not None
        assert found.evidence.revision == revision
        assert found.evidence.index == shared.index


@pytest.mark.parametrize(
    "op",
    [
        Get(b"k" * KEY_BYTES_MAX),
        Put(b"k" * KEY_BYTES_MAX, b"v" * VALUE_BYTES_MAX, if_value=b"w" * VALUE_BYTES_MAX),
        Put(b"k", b"", if_revision=2**64 - 1),
        Delete(b"k", if_value=b"v" * 200),
    ],
)
def test_sizes_are_upper_bounds(op: Op) -> None:
    """No operation adds more to a request than its estimate."""
    batch = kv_pb2.BatchRequest()
    write_op(op, batch.operations.add())
    assert batch.ByteSize() <= op_size(op)
    assert op_size(op) - batch.ByteSize() <= OPERATION_OVERHEAD_BYTES


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (Get(b""), KeyEmpty),
        (Get(b"k" * (KEY_BYTES_MAX + 1)), KeyTooLong),
        (Put(b"k", b"v" * (VALUE_BYTES_MAX + 1)), ValueTooLarge),
        (Put(b"k", b"v", if_absent=True, if_revision=1), InvalidArgument),
        (Delete(b"k", if_present=True, if_value=b""), InvalidArgument),
        (Delete(b"k", if_revision=-1), InvalidArgument),
        (Put(b"k", b"v", if_revision=2**64), InvalidArgument),
        (Get(cast(bytes, "text")), TypeError),
        (Put(b"k", cast(bytes, "text")), TypeError),
        (Put(b"k", b"v", if_value=cast(bytes, "text")), TypeError),
        (cast(Op, "not an operation"), TypeError),
    ],
)
def test_bad_operations_are_refused(op: Op, error: type[Exception]) -> None:
    """What cannot be sent is refused before anything is sent."""
    with pytest.raises(error):
        check_op(op)


def test_conditions() -> None:
    """Each condition has its arm, also where its value is the default of its type."""
    assert make_condition() is None
    for given, arm in [
        (make_condition(if_absent=True), "absent"),
        (make_condition(if_present=True), "present"),
        (make_condition(if_revision=0), "revision"),
        (make_condition(if_value=b""), "value"),
    ]:
        assert given is not None
        assert given.WhichOneof("test") == arm


def test_compare_has_exactly_one_target() -> None:
    """A Compare with no or two targets is refused; one with a falsy target is not."""
    assert write_compare(Compare(b"k", exists=False)).WhichOneof("target") == "exists"
    assert write_compare(Compare(b"k", Relation.LESS, version=0)).comparator == kv_pb2.COMPARATOR_LESS
    for bad in (Compare(b"k"), Compare(b"k", value=b"", version=1)):
        with pytest.raises(InvalidArgument, match="exactly one target"):
            write_compare(bad)


def _pieces(values: list[int], limits: Limits) -> list[list[int]]:
    """Cut puts with values of so many bytes; return the lengths of the pieces' values."""
    rows = rows_of([Put(b"k", bytes(size)) for size in values])
    pieces = list(split(range(10, 10 + len(rows)), rows, limits))
    assert [place for places, _ in pieces for place in places] == [*range(10, 10 + len(rows))]
    return [[len(value) for value in piece.values] for _, piece in pieces]


def test_split_respects_both_bounds() -> None:
    """Pieces hold at most so many operations and bytes, in order; one that is too large alone stays alone."""
    row = OPERATION_OVERHEAD_BYTES + 1
    limits = Limits(ops_per_request_max=3, request_bytes_max=4 * row)
    assert _pieces([0, 1, 2, 3], limits) == [[0, 1, 2], [3]]
    assert _pieces([row, row, 1], limits) == [[row, row], [1]], "just full"
    assert _pieces([row, row + 1, 1], limits) == [[row], [row + 1, 1]], "one byte too much"
    assert _pieces([5 * row, 1, 1], limits) == [[5 * row], [1, 1]]


@pytest.mark.parametrize("name", ["ops_per_request_max", "attempt_timeout_s"])
def test_limits_are_positive(name: str) -> None:
    """A limit of 0 is refused by its name."""
    with pytest.raises(InvalidArgument, match=name):
        Limits(**{name: 0})


def test_a_request_never_exceeds_the_protocol() -> None:
    """request_bytes_max leaves room within REQUEST_BYTES_MAX."""
    with pytest.raises(InvalidArgument, match="REQUEST_BYTES_MAX"):
        Limits(request_bytes_max=4 * 1024 * 1024)


@pytest.mark.parametrize(("standing", "burst"), [(0.6, 0.5), (0.1, 1.1)])
def test_limits_say_which_shares_do_not_fit(standing: float, burst: float) -> None:
    """What is refused in a burst is refused in a queue that stands, and nobody waits for longer than there is time."""
    with pytest.raises(InvalidArgument, match=f"standing_wait_share {standing} and burst_wait_share {burst}"):
        Limits(standing_wait_share=standing, burst_wait_share=burst)
