"""The split of a batch by partition and the merge of its answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import (
    METADATA_ITEMS_MAX,
    CrossPartition,
    InvalidArgument,
    KVError,
    NoLeader,
    RequestTooLarge,
    UnknownOutcome,
    from_proto,
    to_proto,
)
from kv.ids import REQUEST_BYTES_MAX
from kv.outcome import OutcomeToken
from kv.router.routing import (
    RESPONSE_BYTES_MAX,
    check_batch,
    cut,
    decode_batch,
    is_plain,
    merge,
    single_result,
    split,
    traits_of,
    traits_of_raw,
    with_request_id,
    with_token,
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
    assert not read.traits.wish.any_replica


def test_stale_level_reaches_each_part_of_a_reading_batch() -> None:
    """A batch that only reads keeps its level in every part."""
    whole = batch(get(KEYS[0]), get(KEYS[1]), level=kv_pb2.READ_LEVEL_STALE)
    assert all(part.traits.wish.any_replica for part in split(whole, whole.SerializeToString(), RING).parts)


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
        (kv_pb2.Operation(outcome=kv_pb2.OutcomeOperation(session=1, sequence=1)), "name the partition"),
        (kv_pb2.Operation(txn=kv_pb2.TxnOperation()), "names no key"),
        (
            kv_pb2.Operation(
                txn=kv_pb2.TxnOperation(
                    then_operations=[
                        kv_pb2.Operation(
                            txn=kv_pb2.TxnOperation(
                                else_operations=[kv_pb2.Operation(txn=kv_pb2.TxnOperation())]
                            )
                        )
                    ]
                )
            ),
            "holds no further ones",
        ),
        (
            kv_pb2.Operation(
                txn=kv_pb2.TxnOperation(then_operations=[kv_pb2.Operation(range=kv_pb2.RangeOperation())])
            ),
            "gets, puts, deletes, increments",
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
        batch(get(b"k"), level=kv_pb2.READ_LEVEL_BOUNDED),
        batch(get(b"k"), read=kv_pb2.ReadOptions(preference=9)),  # type: ignore[arg-type]
        batch(get(b"k"), read=kv_pb2.ReadOptions(node="a b")),
        kv_pb2.BatchRequest(operations=[put(b"k")], write_level=9),  # type: ignore[arg-type]
        batch(put(b"k"), request_id=kv_pb2.RequestId(sequence=3)),
        batch(put(b"k"), request_id=kv_pb2.RequestId(session=3)),
        batch(put(b"k"), request_id=kv_pb2.RequestId(session=3, sequence=2, acknowledged=2)),
    ],
)
def test_bad_batches_are_refused(bad: kv_pb2.BatchRequest) -> None:
    """No operations, unknown levels and options, a broken request id: definite errors of the whole batch."""
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


def nested(*keys: bytes) -> kv_pb2.Operation:
    """Return a transaction that compares the first key, increments the second and has another inside for the rest."""
    first, second, third, fourth = keys
    inner = kv_pb2.TxnOperation(
        compare=[kv_pb2.Compare(key=third, exists=True)],
        else_operations=[kv_pb2.Operation(append=kv_pb2.AppendOperation(key=fourth, value=b"x"))],
    )
    outer = kv_pb2.TxnOperation(
        compare=[kv_pb2.Compare(key=first, exists=True)],
        then_operations=[
            kv_pb2.Operation(increment=kv_pb2.IncrementOperation(key=second, delta=1)),
            kv_pb2.Operation(txn=inner),
        ],
    )
    return kv_pb2.Operation(txn=outer)


def test_the_keys_of_a_nested_transaction_count() -> None:
    """A transaction goes where all keys of both depths are; one key elsewhere is CROSS_PARTITION."""
    whole = batch(nested(*[KEYS[0]] * 4))
    [part] = split(whole, whole.SerializeToString(), RING).parts
    assert part.partition == RING.partition_of(KEYS[0])
    for place in range(4):
        keys = [KEYS[0]] * 4
        keys[place] = KEYS[1]
        whole = batch(nested(*keys))
        assert isinstance(split(whole, whole.SerializeToString(), RING).refused[0], CrossPartition)


def test_increments_and_appends_go_by_their_keys() -> None:
    """The new operations are split as the old ones."""
    whole = batch(
        kv_pb2.Operation(increment=kv_pb2.IncrementOperation(key=KEYS[0], delta=-1)),
        kv_pb2.Operation(append=kv_pb2.AppendOperation(key=KEYS[1], value=b"x")),
    )
    plan = split(whole, whole.SerializeToString(), RING)
    assert [part.partition for part in plan.parts] == [RING.partition_of(key) for key in KEYS[:2]]
    assert not any(part.traits.is_read for part in plan.parts)


@pytest.mark.parametrize(
    ("request_", "plain"),
    [
        (batch(get(b"k")), True),
        (batch(put(b"k", b"v"), request_id=kv_pb2.RequestId(session=1, sequence=2)), True),
        (batch(get(b"k"), level=kv_pb2.READ_LEVEL_LINEARIZABLE), True),
        (kv_pb2.BatchRequest(operations=[put(b"k")], write_level=2, all_timeout_ms=5), True),  # type: ignore[arg-type]
        (batch(get(b"k"), read=kv_pb2.ReadOptions(node="n1")), False),
        (batch(get(b"k"), trace=True), False),
        (batch(get(b"k"), level=-1), False),
        *((batch(get(b"k"), level=level), False) for level in kv_pb2.ReadLevel.values() if level > 1),
    ],
)
def test_only_what_asks_for_the_defaults_is_plain(request_: kv_pb2.BatchRequest, plain: bool) -> None:
    """Whatever the order of the fields on the wire, another level, options or a trace are seen."""
    raw = request_.SerializeToString()
    operations = kv_pb2.BatchRequest(operations=request_.operations).SerializeToString()
    assert raw.startswith(operations)
    assert is_plain(raw) == is_plain(raw[len(operations) :] + operations) == plain


def test_what_does_not_parse_is_left_to_the_replica() -> None:
    """Nobody looks into it here."""
    assert is_plain(b"\xff\xff")


def test_a_token_does_not_touch_the_error_that_others_share() -> None:
    """A broken stream ends many requests with one error object: each gets a copy, with the token before the rest."""
    shared = UnknownOutcome("lost", metadata={f"m{i}": i for i in range(METADATA_ITEMS_MAX)})
    tokens = [OutcomeToken(1, 2, sequence) for sequence in (3, 4)]
    marked = [with_token(shared, token) for token in tokens]
    assert shared.token is None
    assert [error.token for error in marked] == [str(token) for token in tokens]
    assert [from_proto(to_proto(error)).token for error in marked] == [str(token) for token in tokens]
    assert str(marked[0]) == str(shared)
    assert with_token(marked[0], tokens[1]).token == str(tokens[1])


def test_a_token_cuts_its_operations_out_of_the_results() -> None:
    """Count 0 means all from the position on; a token that names what was not there is refused."""
    results = [kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=n)) for n in range(4)]

    def revisions(position: int, count: int) -> list[int]:
        token = OutcomeToken(1, 2, 3, position, count)
        return [result.put.revision for result in cut(results, token)]

    assert revisions(0, 0) == [0, 1, 2, 3]
    assert revisions(2, 0) == [2, 3]
    assert revisions(1, 2) == [1, 2]
    assert revisions(3, 1) == [3]
    for position, count in ((4, 0), (4, 1), (3, 2)):
        with pytest.raises(InvalidArgument, match="had 4"):
            revisions(position, count)
    assert cut([], OutcomeToken(1, 2, 3, 5, 1)) == []


def test_columns_go_where_all_their_keys_are() -> None:
    """A column of one partition is routed whole; one of two, or of none, is refused alone and says what to do."""
    puts = kv_pb2.Operation(put_many=kv_pb2.PutManyOperation(keys=[KEYS[0]] * 2, values=[b"", b""]))
    gets = kv_pb2.Operation(get_many=kv_pb2.GetManyOperation(keys=KEYS[:2]))
    none = kv_pb2.Operation(get_many=kv_pb2.GetManyOperation())
    whole = batch(puts, gets, none)
    plan = split(whole, whole.SerializeToString(), RING)
    [part] = plan.parts
    assert (part.partition, part.positions) == (RING.partition_of(KEYS[0]), (0,))
    assert isinstance(plan.refused[1], CrossPartition)
    assert isinstance(plan.refused[2], InvalidArgument)
    assert traits_of(batch(gets)).is_read
    assert not traits_of(batch(puts)).is_read


def test_tokens_count_rows() -> None:
    """The token of an operation names its place among the rows of its request, and how many it has."""
    many = kv_pb2.PutManyOperation(keys=[KEYS[0], KEYS[0]], values=[b"", b""])
    whole = batch(put(KEYS[0]), kv_pb2.Operation(put_many=many), put(KEYS[0]))
    plan = split(whole, whole.SerializeToString(), RING)
    error = with_token(UnknownOutcome("lost"), OutcomeToken(1, 7, 1))
    merged = kv_pb2.BatchResponse.FromString(merge(plan, [error]))
    tokens = [OutcomeToken.parse(str(from_proto(result.error).token)) for result in merged.results]
    assert [(token.position, token.count) for token in tokens] == [(0, 1), (1, 2), (3, 1)]
