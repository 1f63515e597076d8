"""A batch as the partition works on it: decoded once, checked, in plain tuples.

Here live the decoder from the serialized `kv.v1.BatchRequest` and the rules on what a request may
contain. The outcome depends on the bytes alone, so each replica decodes the same entry to the same
operations. Nothing here knows the state: conditions are judged in `kv.partition.machine`.

An operation that breaks a rule becomes `(REFUSED, part)`: a definite error of its own in the
response, while the rest of its batch goes on. A transaction with a bad operation is refused whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from google.protobuf.message import DecodeError

from kv.errors import InvalidArgument, KVError, RequestTooLarge
from kv.ids import KEY_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX, check_key, check_value
from kv.partition.record import error_part
from kv.v1 import kv_pb2

BATCH_OPERATIONS_MAX: Final = 4096
"""Operations in one batch, those inside transactions included: so the results without values stay below 1 MiB."""

GET: Final = 0
"""(GET, key)"""
PUT: Final = 1
"""(PUT, key, value, condition or None)"""
DELETE: Final = 2
"""(DELETE, key, condition or None)"""
TXN: Final = 3
"""(TXN, compares, then operations, else operations)"""
OPEN_SESSION: Final = 4
"""(OPEN_SESSION,)"""
RANGE: Final = 5
"""(RANGE, start, end, limit, keys_only)"""
REFUSED: Final = 6
"""(REFUSED, part of the response)"""

Operation: TypeAlias = tuple[Any, ...]
"""One of the shapes above. A tuple: one object for each operation on the hot path."""

Condition: TypeAlias = tuple[str, Any]
"""(name of the test in `kv.v1.Condition`, operand)."""

Compare: TypeAlias = tuple[bytes, int, str, Any]
"""(key, comparator, name of the target in `kv.v1.Compare`, operand)."""

_WRITES: Final = 1 << PUT | 1 << DELETE | 1 << TXN | 1 << OPEN_SESSION
"""A set of kinds, as bits."""


@dataclass(slots=True)
class Batch:
    """A decoded batch. `session` is 0 if it is not protected against repetition.

    A value that nobody changes; not frozen only because that triples the time to make one.
    """

    operations: tuple[Operation, ...]
    session: int
    sequence: int
    acknowledged: int
    stale: bool
    writes: bool
    """Whether it must go through the log."""

    def keys(self) -> Iterator[bytes]:
        """Yield each key that the batch names, those of transactions included."""
        for operation in self.operations:
            kind = operation[0]
            if kind <= DELETE:
                yield operation[1]
            elif kind == TXN:
                yield from (compare[0] for compare in operation[1])
                yield from (inner[1] for inner in operation[2])
                yield from (inner[1] for inner in operation[3])

    def written(self) -> Iterator[bytes]:
        """Yield each key that the batch may write, again for each time."""
        for operation in self.operations:
            kind = operation[0]
            if kind in (PUT, DELETE):
                yield operation[1]
            elif kind == TXN:
                yield from (inner[1] for inner in (*operation[2], *operation[3]) if inner[0] != GET)


def decode_batch(raw: bytes) -> Batch:
    """Decode and check one serialized `kv.v1.BatchRequest`.

    Raises a definite error for what makes the whole batch void: `InvalidArgument` (does not parse,
    or a malformed request id), `RequestTooLarge` (too many bytes or operations).
    """
    if len(raw) > REQUEST_BYTES_MAX:
        raise RequestTooLarge(f"the batch has {len(raw)} bytes, the limit is {REQUEST_BYTES_MAX}")
    try:
        message = kv_pb2.BatchRequest.FromString(raw)
    except DecodeError as error:
        raise InvalidArgument(f"the batch does not parse: {error}") from error
    listed = message.operations
    if len(listed) > BATCH_OPERATIONS_MAX:
        raise _too_many(len(listed))
    operations = [_operation(operation) for operation in listed]
    kinds = _kinds(operations)
    if kinds & 1 << TXN:
        _check_operations_count(operations)
    if kinds & _WRITES and (kinds & 1 << RANGE or (kinds & 1 << OPEN_SESSION and len(operations) > 1)):
        operations = [_refused_in_log(operation) for operation in operations]
        kinds = _kinds(operations)
    writes = kinds & _WRITES != 0
    request_id = message.request_id
    session, sequence, acknowledged = request_id.session, request_id.sequence, request_id.acknowledged
    if writes and session and sequence <= acknowledged:
        raise InvalidArgument(
            "the request's sequence must be above what it acknowledges, and sequences start at 1"
        )
    stale = message.level == kv_pb2.READ_LEVEL_STALE
    return Batch(tuple(operations), session, sequence, acknowledged, stale, writes)


def _kinds(operations: list[Operation]) -> int:
    kinds = 0
    for operation in operations:
        kinds |= 1 << operation[0]
    return kinds


def _operation(message: kv_pb2.Operation) -> Operation:
    kind = message.WhichOneof("operation")
    if kind == "put":
        put = message.put
        key, value = put.key, put.value
        if not 0 < len(key) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
            return _refused(_fault(key, value))
        if put.HasField("condition"):
            return _conditional((PUT, key, value), put.condition)
        return (PUT, key, value, None)
    if kind == "get":
        key = message.get.key
        if not 0 < len(key) <= KEY_BYTES_MAX:
            return _refused(_fault(key))
        return (GET, key)
    return _rare_operation(message, kind)


def _rare_operation(message: kv_pb2.Operation, kind: str | None) -> Operation:
    match kind:
        case "delete":
            return _delete(message.delete)
        case "txn":
            return _txn(message.txn)
        case "open_session":
            return (OPEN_SESSION,)
        case "range":
            asked = message.range
            return (RANGE, asked.start, asked.end, asked.limit, asked.keys_only)
        case _:
            return _refused(InvalidArgument("the operation is empty, or of a newer version than this node"))


def _delete(message: kv_pb2.DeleteOperation) -> Operation:
    key = message.key
    if not 0 < len(key) <= KEY_BYTES_MAX:
        return _refused(_fault(key))
    if message.HasField("condition"):
        return _conditional((DELETE, key), message.condition)
    return (DELETE, key, None)


def _conditional(operation: Operation, message: kv_pb2.Condition) -> Operation:
    test = message.WhichOneof("test")
    operand = getattr(message, test) if test else None
    if operand is None or operand is False:
        return _refused(
            InvalidArgument("the condition is empty: set one of absent, present, revision, value")
        )
    return (*operation, (test, operand))


def _txn(message: kv_pb2.TxnOperation) -> Operation:
    """Return the transaction, or the refusal of all of it for the first fault in it."""
    compares = [_compare(compare) for compare in message.compare]
    lists = [
        [_operation(operation) for operation in operations]
        for operations in (message.then_operations, message.else_operations)
    ]
    for step in (*compares, *lists[0], *lists[1]):
        if step[0] == REFUSED:
            return step
        if step[0] in (TXN, OPEN_SESSION, RANGE):
            return _refused(InvalidArgument("a transaction holds only gets, puts and deletes"))
        if step[0] in (PUT, DELETE) and step[-1] is not None:
            return _refused(InvalidArgument("a transaction's operations have no conditions: use compare"))
    return (TXN, tuple(compares), tuple(lists[0]), tuple(lists[1]))


def _compare(message: kv_pb2.Compare) -> Operation:
    """Return a `Compare`, or a refusal."""
    target = message.WhichOneof("target")
    if not 0 < len(message.key) <= KEY_BYTES_MAX:
        return _refused(_fault(message.key))
    if target is None or message.comparator not in kv_pb2.Comparator.values():
        return _refused(InvalidArgument("the compare has no target, or an unknown comparator"))
    return (message.key, message.comparator, target, getattr(message, target))


def _refused_in_log(operation: Operation) -> Operation:
    if operation[0] == RANGE:
        return _refused(
            InvalidArgument("a batch with a range may only read: send the writes in another batch")
        )
    if operation[0] == OPEN_SESSION:
        return _refused(InvalidArgument("open_session must be the only operation of its batch"))
    return operation


def _check_operations_count(operations: list[Operation]) -> None:
    count = sum(1 if op[0] != TXN else 1 + len(op[1]) + len(op[2]) + len(op[3]) for op in operations)
    if count > BATCH_OPERATIONS_MAX:
        raise _too_many(count)


def _too_many(count: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"the batch has {count} operations, the limit is {BATCH_OPERATIONS_MAX}",
        metadata={"operations": count, "operations_max": BATCH_OPERATIONS_MAX},
    )


def _refused(error: KVError) -> Operation:
    return (REFUSED, error_part(error))


def _fault(key: bytes, value: bytes = b"") -> KVError:
    """Return the error of a key or value that is known to break its limit."""
    try:
        check_key(key)
        check_value(value)
    except KVError as error:
        return error
    raise AssertionError("the caller found a fault in this key or value")
