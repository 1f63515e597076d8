"""Protobuf's wire format by hand: what Protobuf itself would write, or reads as the same message."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from kv.client.link import message_of
from kv.ids import GroupId
from kv.internal.v1 import log_pb2, pipeline_pb2
from kv.wire import tag_of, varint


@given(st.integers(0, 2**64 - 1))
@example(0)
@example(127)
@example(128)
@example(2**14 - 1)
@example(2**14)
@example(2**21 - 1)
@example(2**21)
def test_a_number_is_written_as_protobuf_writes_it(number: int) -> None:
    """At each number of bytes that it takes."""
    field = log_pb2.Command(time_ms=number).SerializeToString()
    assert field == (b"\x08" + varint(number) if number else b"")


@given(st.integers(1, 2**29 - 1))
def test_a_tag_is_the_number_of_the_field_and_the_kind_of_what_follows(field: int) -> None:
    """2 is the kind of what comes with its length."""
    assert tag_of(field) == varint(field * 8 + 2)


@given(
    attempt=st.integers(0, 2**64 - 1),
    batch=st.binary(max_size=300),
    partition=st.integers(0, 2**32 - 1),
    timeout_ms=st.integers(0, 2**32 - 1),
)
@example(attempt=1, batch=bytes(1 << 20), partition=3, timeout_ms=5000)
def test_a_request_of_one_batch_is_read_as_that(
    attempt: int, batch: bytes, partition: int, timeout_ms: int
) -> None:
    """The batch stands behind the other fields, which is the same to who reads it."""
    request = pipeline_pb2.RawPipelineRequest.FromString(
        message_of(attempt, batch, GroupId(partition), timeout_ms)
    )
    wanted = pipeline_pb2.RawPipelinedBatch(
        id=attempt, batch=batch, partition=partition, timeout_ms=timeout_ms
    )
    assert list(request.batches) == [wanted]
