"""The evidence on the wire, and ages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.partition.evidence import Witness, age_ms, revision_of
from kv.v1 import kv_pb2
from tests.partition.tools import results


@given(st.integers(0, 2**63), st.integers(1, 2**63), st.integers(0, 7), st.none() | st.integers(0, 2**40))
def test_form(revision: int, index: int, level: int, age: int | None) -> None:
    """What is joined by hand is what the library writes, whatever stands before it."""
    form = Witness(7, "n1", lambda: 9).form(3, index, level, age)
    expected = kv_pb2.Evidence(
        partition=7,
        map_epoch=9,
        term=3,
        index=index,
        node="n1",
        level=level,  # type: ignore[arg-type]
        revision=revision,
        age_ms=age,
    )
    before = kv_pb2.BatchResponse(results=[kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=1))])
    found = kv_pb2.BatchResponse.FromString(before.SerializeToString() + form.part(revision))
    assert list(found.evidence) == [expected]
    assert list(found.results) == list(before.results)


@pytest.mark.parametrize(
    ("began_at", "now", "age"), [(1.0, 1.0, 0), (1.0, 1.0001, 1), (1.0, 1.5, 500), (2.0, 1.0, 0)]
)
def test_age_ms(began_at: float, now: float, age: int) -> None:
    """An age is rounded up, so that it is never told too small, and never below 0."""
    assert age_ms(began_at, now) == age


def test_revision_of() -> None:
    """The revision of a response is that of its first write that was done; 0 if none was."""
    failed = kv_pb2.OperationResult(error=kv_pb2.Error(reason="CONDITION_FAILED"))
    read = kv_pb2.OperationResult(get=kv_pb2.GetResult(item=kv_pb2.KeyValue(mod_revision=3)))
    written = kv_pb2.OperationResult(append=kv_pb2.AppendResult(revision=8))
    for parts, revision in (([failed, read, written], 8), ([failed, read], 0), ([], 0)):
        response = kv_pb2.BatchResponse(results=parts).SerializeToString()
        assert len(results(response)) == len(parts)
        assert revision_of(response) == revision
