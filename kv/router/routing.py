"""Where each operation of a batch goes, and how the answers become one (step 2 of a write).

Pure: the split of a decoded batch by partition, the merge of the partitions' responses, and what
kind of request a batch is. What levels and options may say is in `kv.router.options`, which replica is asked in
`kv.router.target`, which attempt follows a failed one in `kv.router.retry`.

A batch whose keys are all in one partition is passed on as the bytes in which it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final

from google.protobuf.message import DecodeError

from kv.errors import (
    OUTCOME_KEY,
    CrossPartition,
    Internal,
    InvalidArgument,
    KVError,
    RequestTooLarge,
    Unavailable,
    from_proto,
    to_proto,
)
from kv.ids import REQUEST_BYTES_MAX, GroupId, check_request_bytes
from kv.internal.v1 import pipeline_pb2
from kv.outcome import OutcomeToken
from kv.router.options import FANNED_OUT, check_read, check_write, share_of
from kv.router.ring import Ring
from kv.router.target import Wish, wish_of
from kv.v1 import kv_pb2

RESPONSE_BYTES_MAX: Final = REQUEST_BYTES_MAX
"""A merged response is not larger: values beyond it are replaced by an error that asks for smaller batches."""

_READS: Final = frozenset({"get", "get_many", "range"})
_SETTLING: Final = frozenset({"open_session", "outcome"})
_KEYED: Final = frozenset({"get", "put", "delete", "increment", "append"})
_LISTED: Final = _KEYED | {"txn"}


_VALUES: Final = frozenset({"get", "get_many"})
"""Results that hold values, and may be large."""

_PLAIN_LEVEL_MAX: Final = kv_pb2.READ_LEVEL_LINEARIZABLE
"""The levels up to this one are the default: the leader answers, whatever the batch holds."""

_LEADER: Final = Wish()


@dataclass(frozen=True, slots=True)
class Traits:
    """What kind of request a batch is, as far as attempts care."""

    is_read: bool
    """It changes nothing, so it may be sent again at any time."""
    level: kv_pb2.ReadLevel.ValueType = kv_pb2.READ_LEVEL_LINEARIZABLE
    """Of a read; a write is always linearizable."""
    replicas: int = 0
    """QUORUM: how many replicas are to answer; 0: a majority."""
    wish: Wish = _LEADER
    """Which replica is to serve it."""
    session: int = 0
    """The client's session that protects it against repetition; 0: none."""
    sequence: int = 0
    """Its place in that session."""
    settles: bool = False
    """It only opens a session (a second one is wasted, not wrong), or asks for an outcome (a second answer is
    the first)."""
    trace: bool = False
    """It asked for its trace."""

    @property
    def repeatable(self) -> bool:
        """Whether a copy of an attempt that may have been applied does no harm."""
        return self.is_read or self.session != 0 or self.settles

    @property
    def fans_out(self) -> bool:
        """Whether one replica alone cannot serve it."""
        return self.level in FANNED_OUT


_PLAIN_READ: Final = Traits(is_read=True)
"""Of most reads, so that they need no objects of their own."""


@dataclass(frozen=True, slots=True)
class Part:
    """One partition's share of a batch."""

    partition: GroupId
    raw: bytes
    """A serialized `kv.v1.BatchRequest`."""
    positions: tuple[int, ...]
    """The place of each of its operations in the whole batch."""
    traits: Traits


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch split by partition. Every position is in exactly one part or in `refused`."""

    size: int
    parts: tuple[Part, ...]
    refused: dict[int, KVError] = field(default_factory=dict)

    @property
    def whole(self) -> Part | None:
        """The only part, if its response is the response of the batch as it stands."""
        return self.parts[0] if len(self.parts) == 1 and not self.refused else None


def decode_batch(raw: bytes) -> kv_pb2.BatchRequest:
    """Parse and check a batch. Raises `InvalidArgument` or `RequestTooLarge`."""
    check_request_bytes(len(raw))
    try:
        batch = kv_pb2.BatchRequest.FromString(raw)
    except DecodeError as error:
        raise InvalidArgument("the batch is not a serialized kv.v1.BatchRequest") from error
    check_batch(batch)
    return batch


def check_batch(batch: kv_pb2.BatchRequest) -> None:
    """Raise `InvalidArgument` for what is wrong with the batch as a whole, wherever it goes."""
    if not batch.operations:
        raise InvalidArgument("the batch has no operations")
    if batch.level or batch.HasField("read"):
        check_read(batch.level, batch.read)
    check_write(batch.write_level)
    if batch.HasField("request_id"):
        _check_request_id(batch.request_id)


def is_plain(raw: bytes) -> bool:
    """Return whether the serialized batch asks for nothing but the defaults, so that nobody need decode it.

    The operations are skipped unread. What does not parse is plain: the replica says what is wrong with it.
    """
    try:
        head = pipeline_pb2.BatchHead.FromString(raw)
    except DecodeError:
        return True
    return 0 <= head.level <= _PLAIN_LEVEL_MAX and not head.read and not head.trace


def _check_request_id(request_id: kv_pb2.RequestId) -> None:
    sequence, acknowledged = request_id.sequence, request_id.acknowledged
    if request_id.session == 0 and (sequence or acknowledged):
        raise InvalidArgument("the request id has no session: open one, or send no request id")
    if request_id.session and sequence == 0:
        raise InvalidArgument("the sequence of a request id starts at 1")
    if request_id.session and acknowledged >= sequence:
        raise InvalidArgument(
            f"the request acknowledges sequence {acknowledged} and so its own, {sequence}",
            metadata={"sequence": sequence, "acknowledged": acknowledged},
        )


def traits_of(batch: kv_pb2.BatchRequest) -> Traits:
    """Return what kind of request the batch is."""
    kinds = {operation.WhichOneof("operation") for operation in batch.operations}
    is_read = kinds <= _READS
    if is_read and batch.level <= _PLAIN_LEVEL_MAX and not (batch.HasField("read") or batch.trace):
        return _PLAIN_READ
    identity = batch.request_id
    if not is_read:
        return Traits(
            is_read=False,
            session=identity.session,
            sequence=identity.sequence,
            settles=kinds <= _SETTLING,
            trace=batch.trace,
        )
    level = batch.level or kv_pb2.READ_LEVEL_LINEARIZABLE
    return Traits(
        is_read=True,
        level=level,
        replicas=batch.read.replicas,
        wish=wish_of(level, batch.read),
        trace=batch.trace,
    )


def traits_of_raw(raw: bytes) -> Traits:
    """Return what kind of request the serialized batch is; one that does not parse counts as a bare write."""
    try:
        return traits_of(kv_pb2.BatchRequest.FromString(raw))
    except DecodeError:
        return Traits(is_read=False)


def split(batch: kv_pb2.BatchRequest, raw: bytes, ring: Ring) -> Plan:
    """Split a checked batch by partition; `raw` is the form in which it came.

    An operation that can go nowhere (no key, or keys of two partitions) is refused by itself.
    Raises `CrossPartition` if the batch has a request id and keys of more than one partition.
    """
    places: dict[GroupId, list[int]] = {}
    refused: dict[int, KVError] = {}
    for position, operation in enumerate(batch.operations):
        try:
            places.setdefault(_partition_of(operation, ring), []).append(position)
        except InvalidArgument as error:
            refused[position] = error
    if len(places) == 1 and not refused:
        [(partition, positions)] = places.items()
        return Plan(len(batch.operations), (Part(partition, raw, tuple(positions), traits_of(batch)),))
    if batch.request_id.session:
        raise _not_one_partition(places, refused)
    parts = tuple(_part(batch, partition, positions) for partition, positions in places.items())
    return Plan(len(batch.operations), parts, refused)


def _not_one_partition(places: dict[GroupId, list[int]], refused: dict[int, KVError]) -> KVError:
    if len(places) > 1:
        partitions = ",".join(str(partition) for partition in sorted(places))
        return CrossPartition(
            f"the batch has a request id and keys of {len(places)} partitions",
            metadata={"partitions": partitions},
        )
    return next(iter(refused.values()))


def named_part(batch: kv_pb2.BatchRequest, raw: bytes, partition: GroupId) -> Part:
    """Return a checked batch, serialized as `raw`, as the share of the one partition that the caller names."""
    return Part(partition, raw, tuple(range(len(batch.operations))), traits_of(batch))


def _part(batch: kv_pb2.BatchRequest, partition: GroupId, positions: Sequence[int]) -> Part:
    """Return the share of one partition, in the batch's order.

    The reads of a batch that also writes are linearizable, though their part may only read.
    """
    share = kv_pb2.BatchRequest(
        operations=[batch.operations[i] for i in positions],
        level=kv_pb2.READ_LEVEL_LINEARIZABLE,
        write_level=batch.write_level,
        all_timeout_ms=batch.all_timeout_ms,
        trace=batch.trace,
    )
    if traits_of(batch).is_read:
        share.level = batch.level
        if batch.HasField("read"):
            share.read.CopyFrom(share_of(batch.read, partition))
    return Part(partition, share.SerializeToString(), tuple(positions), traits_of(share))


def _partition_of(operation: kv_pb2.Operation, ring: Ring) -> GroupId:
    """Return the partition that owns every key of the operation."""
    kind = operation.WhichOneof("operation")
    if kind in _KEYED:
        keyed: kv_pb2.GetOperation = getattr(operation, kind)
        return ring.partition_of(keyed.key)
    match kind:
        case "put_many":
            return _partition_of_rows("put_many", operation.put_many.keys, ring)
        case "get_many":
            return _partition_of_rows("get_many", operation.get_many.keys, ring)
        case "txn":
            return _partition_of_txn(operation.txn, ring)
        case None:
            raise InvalidArgument(
                "an operation of the batch is empty or of a kind that this node does not know"
            )
        case _:
            raise InvalidArgument(
                f"{kind} has no key: name the partition in the request", metadata={"kind": kind}
            )


def _partition_of_rows(kind: str, keys: Sequence[bytes], ring: Ring) -> GroupId:
    if not keys:
        raise InvalidArgument(f"{kind} has no keys: give at least one")
    partitions = {ring.partition_of(key) for key in keys}
    if len(partitions) > 1:
        raise CrossPartition(
            f"{kind} has keys of {len(partitions)} partitions: send one for each partition, or an operation for each key",
            metadata={"partitions": ",".join(str(partition) for partition in sorted(partitions))},
        )
    return partitions.pop()


def _partition_of_txn(txn: kv_pb2.TxnOperation, ring: Ring) -> GroupId:
    partitions = {ring.partition_of(key) for key in _txn_keys(txn, nested=False)}
    if not partitions:
        raise InvalidArgument("the transaction names no key")
    if len(partitions) > 1:
        raise CrossPartition(
            f"the transaction has keys of {len(partitions)} partitions",
            metadata={"partitions": ",".join(str(partition) for partition in sorted(partitions))},
        )
    return partitions.pop()


def _txn_keys(txn: kv_pb2.TxnOperation, *, nested: bool) -> Iterable[bytes]:
    for compare in txn.compare:
        yield compare.key
    for operations in (txn.then_operations, txn.else_operations):
        for operation in operations:
            kind = operation.WhichOneof("operation")
            if kind not in _LISTED:
                raise InvalidArgument(
                    "the lists of a transaction hold gets, puts, deletes, increments, appends and transactions"
                )
            if kind == "txn" and nested:
                raise InvalidArgument("a transaction inside a transaction holds no further ones")
            if kind == "txn":
                yield from _txn_keys(operation.txn, nested=True)
            else:
                keyed: kv_pb2.GetOperation = getattr(operation, kind)
                yield keyed.key


def merge(plan: Plan, outcomes: Sequence[bytes | KVError]) -> bytes:
    """Return the response of the whole batch from the outcome of each part, in the order of `plan.parts`.

    A failed part, and what was refused, becomes an error of each of its operations.
    """
    assert len(outcomes) == len(plan.parts), "every part has one outcome"
    slots: list[kv_pb2.OperationResult | None] = [None] * plan.size
    evidence: list[kv_pb2.Evidence] = []
    trace: list[kv_pb2.TraceStep] = []
    for position, error in plan.refused.items():
        slots[position] = kv_pb2.OperationResult(error=to_proto(error))
    for part, outcome in zip(plan.parts, outcomes, strict=True):
        response = _response_of(part, outcome)
        evidence.extend(response.evidence)
        trace.extend(response.trace)
        for position, result in zip(part.positions, response.results, strict=True):
            slots[position] = result
    results = _bounded([slot for slot in slots if slot is not None])
    assert len(results) == plan.size, "every position has one result"
    return kv_pb2.BatchResponse(results=results, evidence=evidence, trace=trace).SerializeToString()


def _response_of(part: Part, outcome: bytes | KVError) -> kv_pb2.BatchResponse:
    """Return a response with one result for each operation of the part; what another node sent is not trusted."""
    if isinstance(outcome, KVError):
        return _failed(part, outcome)
    try:
        response = kv_pb2.BatchResponse.FromString(outcome)
    except DecodeError as error:
        return _failed(part, Internal(f"the answer of partition {part.partition} does not parse: {error}"))
    answered, asked = len(response.results), len(part.positions)
    if answered != asked:
        text = f"partition {part.partition} answered {asked} operations by {answered} results"
        return _failed(part, Internal(text))
    return response


def _failed(part: Part, error: KVError) -> kv_pb2.BatchResponse:
    """Give each operation the error; its outcome, where it can be asked for, under a token of its own."""
    errors = [error] * len(part.positions)
    if error.token is not None:
        errors = _with_tokens(error, OutcomeToken.parse(error.token), part)  # this router's own
    return kv_pb2.BatchResponse(results=[kv_pb2.OperationResult(error=to_proto(each)) for each in errors])


def _with_tokens(error: KVError, whole: OutcomeToken, part: Part) -> list[KVError]:
    """Return the error for each operation of the part. Places in a request are counted in rows."""
    errors: list[KVError] = []
    position = 0
    for operation in kv_pb2.BatchRequest.FromString(part.raw).operations:
        count = len(operation.put_many.keys) if operation.HasField("put_many") else 1
        errors.append(with_token(error, replace(whole, position=position, count=count)))
        position += count
    return errors


def with_token(error: KVError, token: OutcomeToken) -> KVError:
    """Return the error with the token by which to ask for the outcome; `error` itself may be shared, and stays."""
    marked = copy(error)
    # First, because what is beyond METADATA_ITEMS_MAX is dropped from the end.
    marked.metadata = {OUTCOME_KEY: str(token)} | {
        k: v for k, v in error.metadata.items() if k != OUTCOME_KEY
    }
    return marked


def _bounded(results: list[kv_pb2.OperationResult]) -> list[kv_pb2.OperationResult]:
    """Replace the gets that would make the response too large. Results of writes are small and always kept."""
    total = 0
    kept = []
    for result in results:
        if result.WhichOneof("result") in _VALUES and total + result.ByteSize() > RESPONSE_BYTES_MAX:
            error = RequestTooLarge(
                f"the values of this batch are more than {RESPONSE_BYTES_MAX} bytes",
                metadata={"response_bytes_max": RESPONSE_BYTES_MAX},
            )
            kept.append(kv_pb2.OperationResult(error=to_proto(error)))
            continue
        total += result.ByteSize()
        kept.append(result)
    return kept


def with_request_id(raw: bytes, session: int, sequence: int, acknowledged: int) -> bytes:
    """Return the serialized batch with that request id; nothing is encoded again (protobuf merges by appending)."""
    request_id = kv_pb2.RequestId(session=session, sequence=sequence, acknowledged=acknowledged)
    return raw + kv_pb2.BatchRequest(request_id=request_id).SerializeToString()


def single_result(response: kv_pb2.BatchResponse) -> kv_pb2.OperationResult:
    """Return the result of a batch of one operation; raises its error if it is one."""
    [result] = response.results
    if result.WhichOneof("result") == "error":
        raise from_proto(result.error)
    return result


def no_map() -> KVError:
    """Return the error of a node that has not learned the cluster map."""
    return Unavailable("this node has not learned the cluster map yet")


def outcome_batch(token: OutcomeToken) -> kv_pb2.BatchRequest:
    """Return the batch that asks the token's partition for the outcome of its request."""
    asked = kv_pb2.OutcomeOperation(session=token.session, sequence=token.sequence)
    return kv_pb2.BatchRequest(operations=[kv_pb2.Operation(outcome=asked)])


def cut(results: Sequence[kv_pb2.OperationResult], token: OutcomeToken) -> list[kv_pb2.OperationResult]:
    """Return what the token names of the results of its request. Raises `InvalidArgument` if they are not there."""
    end = token.position + token.count if token.count else len(results)
    if results and not token.position < end <= len(results):
        raise InvalidArgument(
            f"the token names operations {token.position} to {end - 1} of a request that had {len(results)}: "
            "take it whole from the error of the write",
            metadata={"operations": len(results)},
        )
    return list(results[token.position : end])
