"""The split of a batch by partition and the merge of its answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import CrossPartition, InvalidArgument, KVError, NoLeader, RequestTooLarge
from kv.ids import REQUEST_BYTES_MAX
from kv.router.routing import (
    RESPONSE_BYTES_MAX,
    check_batch,
    decode_batch,
    merge,
    single_result,
    split,
    traits_of,
    traits_of_raw,
    with_request_id,
)
from kv.v1 import kv_pb2
from tests.router.world import VirtualWorld, batch, get, keys_of_distinct_partitions, put

RING = VirtualWorld(partitions=4).ring
KEYS = keys_of_distinct_partitions(RING, 4)

OPERATIONS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=4).map(get),
        st.tuples(st.binary(min_size=1, max_size=4), st.binary(max_size=4)).map(lambda kv: put(*kv)),
    ),
    min_size=1,
    max_size=20,
)


def key_of(operation: kv_pb2.Operation) -> bytes:
    """Return the key of a put or a get."""
    return operation.put.key if operation.HasField("put") else operation.get.key


@given(OPERATIONS)
def test_split_keeps_each_operation_once_in_order_at_its_partition(
    operations: list[kv_pb2.Operation],
) -> None:
    """Each operation is in the part of its partition, in the order of the batch, and nowhere else."""
    whole = batch(*operations)
    plan = split(whole, whole.SerializeToString(), RING)
    placed: dict[int, kv_pb2.Operation] = {}
    for part in plan.parts:
        assert list(part.positions) == sorted(part.positions)
        share = kv_pb2.BatchRequest.FromString(part.raw)
        for position, operation in zip(part.positions, share.operations, strict=True):
            assert RING.partition_of(key_of(operation)) == part.partition
            assert position not in placed
            placed[position] = operation
    assert [placed[i] for i in range(len(operations))] == operations


@given(OPERATIONS)
def test_merge_undoes_split(operations: list[kv_pb2.Operation]) -> None:
    """The merged results stand where the operations stood, with one evidence for each part."""
    whole = batch(*operations)
    plan = split(whole, whole.SerializeToString(), RING)
    answers: list[bytes | KVError] = []
    for part in plan.parts:
        results = [kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=p + 1)) for p in part.positions]
        evidence = [kv_pb2.Evidence(partition=part.partition)]
        answers.append(kv_pb2.BatchResponse(results=results, evidence=evidence).SerializeToString())
    merged = kv_pb2.BatchResponse.FromString(merge(plan, answers))
    assert [result.put.revision for result in merged.results] == list(range(1, len(operations) + 1))
    assert [proof.partition for proof in merged.evidence] == [part.partition for part in plan.parts]


def test_one_partition_passes_through_as_the_bytes_it_came_in() -> None:
    """A batch of one partition is not encoded again."""
    whole = batch(put(KEYS[0]), get(KEYS[0]))
    raw = whole.SerializeToString()
    plan = split(whole, raw, RING)
    assert plan.whole is not None
    assert plan.whole.raw is raw


def test_reads_of_a_writing_batch_stay_linearizable() -> None:
    """A part that only reads does not become a stale read because another part of the batch writes."""
    whole = batch(put(KEYS[0]), get(KEYS[1]), level=kv_pb2.READ_LEVEL_STALE)
    read = split(whole, whole.SerializeToString(), RING).parts[1]
    assert kv_pb2.BatchRequest.FromString(read.raw).level == kv_pb2.READ_LEVEL_LINEARIZABLE
    assert not read.traits.stale


def test_stale_level_reaches_each_part_of_a_reading_batch() -> None:
    """A batch that only reads keeps its level in every part."""
    whole = batch(get(KEYS[0]), get(KEYS[1]), level=kv_pb2.READ_LEVEL_STALE)
    assert all(part.traits.stale for part in split(whole, whole.SerializeToString(), RING).parts)


def test_a_failed_part_fails_its_operations_only() -> None:
    """The error of one part stands at each of its positions; the other part keeps its results."""
    whole = batch(put(KEYS[0]), put(KEYS[1]), put(KEYS[0]))
    plan = split(whole, whole.SerializeToString(), RING)
    good = kv_pb2.BatchResponse(results=[kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=9))])
    merged = kv_pb2.BatchResponse.FromString(merge(plan, [NoLeader("none"), good.SerializeToString()]))
    assert [r.error.reason for r in merged.results] == ["NO_LEADER", "", "NO_LEADER"]
    assert merged.results[1].put.revision == 9


def test_a_request_id_needs_one_partition() -> None:
    """A batch with a request id and keys of two partitions is refused whole, before anything is sent."""
    identity = kv_pb2.RequestId(session=1, sequence=1)
    whole = batch(put(KEYS[0]), put(KEYS[1]), request_id=identity)
    with pytest.raises(CrossPartition) as caught:
        split(whole, whole.SerializeToString(), RING)
    assert caught.value.definite


def test_a_transaction_over_two_partitions_is_refused_alone() -> None:
    """The transaction gets CROSS_PARTITION, and the rest of the batch goes on."""
    txn = kv_pb2.TxnOperation(
        compare=[kv_pb2.Compare(key=KEYS[0], exists=True)], then_operations=[put(KEYS[1])]
    )
    whole = batch(kv_pb2.Operation(txn=txn), put(KEYS[2]))
    plan = split(whole, whole.SerializeToString(), RING)
    assert isinstance(plan.refused[0], CrossPartition)
    assert [part.positions for part in plan.parts] == [(1,)]


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (kv_pb2.Operation(), "empty or of a kind"),
        (kv_pb2.Operation(range=kv_pb2.RangeOperation()), "name the partition"),
        (kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation()), "name the partition"),
        (kv_pb2.Operation(txn=kv_pb2.TxnOperation()), "names no key"),
        (
            kv_pb2.Operation(
                txn=kv_pb2.TxnOperation(then_operations=[kv_pb2.Operation(range=kv_pb2.RangeOperation())])
            ),
            "gets, puts and deletes only",
        ),
    ],
)
def test_an_operation_without_a_place_is_refused(operation: kv_pb2.Operation, text: str) -> None:
    """What names no key has no partition: it is refused with a message that says what to do."""
    whole = batch(operation)
    plan = split(whole, whole.SerializeToString(), RING)
    assert plan.parts == ()
    assert isinstance(plan.refused[0], InvalidArgument)
    assert text in plan.refused[0].message
    [result] = kv_pb2.BatchResponse.FromString(merge(plan, [])).results
    assert result.error.definite
    with pytest.raises(InvalidArgument):
        single_result(kv_pb2.BatchResponse(results=[result]))


@pytest.mark.parametrize(
    "bad",
    [
        batch(),
        batch(get(b"k"), level=99),
        batch(put(b"k"), request_id=kv_pb2.RequestId(sequence=3)),
        batch(put(b"k"), request_id=kv_pb2.RequestId(session=3)),
        batch(put(b"k"), request_id=kv_pb2.RequestId(session=3, sequence=2, acknowledged=2)),
    ],
)
def test_bad_batches_are_refused(bad: kv_pb2.BatchRequest) -> None:
    """No operations, an unknown level and a broken request id are definite errors of the whole batch."""
    with pytest.raises(InvalidArgument):
        check_batch(bad)


def test_bytes_that_are_no_batch_are_refused() -> None:
    """Garbage and a batch above the limit are told apart; at the limit a batch is taken."""
    with pytest.raises(InvalidArgument):
        decode_batch(b"\xff\xff\xff")
    frame = len(batch(put(b"k", b"x" * 1_000_000)).SerializeToString()) - 1_000_000
    puts = [put(b"k", b"x" * 1_000_000) for _ in range(4)]
    rest = REQUEST_BYTES_MAX - 4 * (1_000_000 + frame)
    puts.append(put(b"k", b"x" * (rest - frame)))
    largest = batch(*puts)
    assert len(largest.SerializeToString()) == REQUEST_BYTES_MAX
    assert len(decode_batch(largest.SerializeToString()).operations) == 5
    puts[-1].put.value += b"x"
    with pytest.raises(RequestTooLarge):
        decode_batch(batch(*puts).SerializeToString())


def test_values_beyond_the_response_limit_become_errors() -> None:
    """The merged response stays below its limit: the gets that do not fit say so, the rest is whole."""
    whole = batch(*(get(key) for key in KEYS))
    plan = split(whole, whole.SerializeToString(), RING)
    value = kv_pb2.KeyValue(key=b"k", value=b"x" * (RESPONSE_BYTES_MAX // 3))
    large = kv_pb2.OperationResult(get=kv_pb2.GetResult(item=value))
    answer = kv_pb2.BatchResponse(results=[large]).SerializeToString()
    raw = merge(plan, [answer] * 4)
    assert len(raw) <= RESPONSE_BYTES_MAX + 4096
    kinds = [result.WhichOneof("result") for result in kv_pb2.BatchResponse.FromString(raw).results]
    assert kinds == ["get", "get", "error", "error"]


def test_traits_say_what_may_be_repeated() -> None:
    """Reads, writes with a session and opens of sessions may be repeated; a bare write may not."""
    opened = kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation())
    ranged = kv_pb2.Operation(range=kv_pb2.RangeOperation())
    assert traits_of(batch(get(b"k"), ranged)).repeatable
    assert traits_of(batch(put(b"k"), request_id=kv_pb2.RequestId(session=1, sequence=1))).repeatable
    assert traits_of(batch(opened)).repeatable
    assert not traits_of(batch(get(b"k"), put(b"k"))).repeatable
    assert not traits_of_raw(b"\xff\xff").repeatable


def test_a_request_id_is_appended_without_encoding_again() -> None:
    """The batch with our id is the old bytes and a few more, and parses to the same operations."""
    raw = batch(put(b"k")).SerializeToString()
    sent = with_request_id(raw, 7, 3, 2)
    assert sent.startswith(raw)
    assert kv_pb2.BatchRequest.FromString(sent) == batch(
        put(b"k"), request_id=kv_pb2.RequestId(session=7, sequence=3, acknowledged=2)
    )
