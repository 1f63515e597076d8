"""A batch as the partition works on it: decoded once, checked, in plain tuples.

Here live the decoder from the serialized `kv.v1.BatchRequest` and the rules on what a request may
contain. The outcome depends on the bytes alone, so each replica decodes the same entry to the same
operations. Nothing here knows the state: conditions are judged in `kv.partition.machine`.

An operation that breaks a rule becomes `(REFUSED, part)`: a definite error of its own in the
response, while the rest of its batch goes on. A transaction with a bad operation is refused whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from google.protobuf.message import DecodeError

from kv.errors import InvalidArgument, KVError, RequestTooLarge
from kv.ids import KEY_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX, check_key, check_value
from kv.partition.options import AS_STALE, PLAIN, Options, read_options, write_options
from kv.partition.record import error_part
from kv.v1 import kv_pb2

BATCH_OPERATIONS_MAX: Final = 4096
"""Operations in one batch, those inside transactions included: so the results without values stay below 1 MiB."""

BATCHES_KEPT_MAX: Final = 64
KEPT_BYTES_MAX: Final = 4096
"""What `decode_again` remembers, for all replicas of the process: so many batches, of so many bytes each at most."""

GET: Final = 0
"""(GET, key)"""
PUT: Final = 1
"""(PUT, key, value, condition or None)"""
DELETE: Final = 2
"""(DELETE, key, condition or None)"""
TXN: Final = 3
"""(TXN, compares, then operations, else operations, whether one of the operations can fail)"""
OPEN_SESSION: Final = 4
"""(OPEN_SESSION,)"""
RANGE: Final = 5
"""(RANGE, start, end, limit, keys_only)"""
REFUSED: Final = 6
"""(REFUSED, part of the response)"""
INCREMENT: Final = 7
"""(INCREMENT, key, delta, condition or None)"""
APPEND: Final = 8
"""(APPEND, key, value, condition or None)"""
OUTCOME: Final = 9
"""(OUTCOME, session, sequence)"""
PUT_PREVIOUS: Final = 10
"""As PUT, and answers what the key held before. A kind of its own: plain puts are the hot path."""
DELETE_PREVIOUS: Final = 11
"""As DELETE, and answers what the key held before."""
PAGE: Final = 12
"""(PAGE, start, end, limit, keys_only, keep, snapshot): a RANGE that is part of a scan at one index; ids or 0"""
PUT_MANY: Final = 13
"""(PUT_MANY, keys, values): as so many PUTs without conditions. Columns: no object for each row on the hottest path."""
GET_MANY: Final = 14
"""(GET_MANY, keys): as so many GETs."""

Operation: TypeAlias = tuple[Any, ...]
"""One of the shapes above. A tuple: one object for each operation on the hot path."""

Condition: TypeAlias = tuple[str, Any]
"""(name of the test in `kv.v1.Condition`, operand)."""

Compare: TypeAlias = tuple[bytes, int, str, Any]
"""(key, comparator, name of the target in `kv.v1.Compare`, operand)."""

# Sets of kinds, as bits.
_CAN_FAIL: Final = 1 << INCREMENT | 1 << APPEND | 1 << PUT_PREVIOUS | 1 << DELETE_PREVIOUS
_WRITES_KEY: Final = 1 << PUT | 1 << DELETE | _CAN_FAIL
_IN_TXN: Final = 1 << GET | _WRITES_KEY | 1 << TXN
_ALONE: Final = 1 << OPEN_SESSION | 1 << OUTCOME
_WRITES: Final = _WRITES_KEY | 1 << TXN | _ALONE | 1 << PUT_MANY
_RANGES: Final = 1 << RANGE | 1 << PAGE
_MANY: Final = 1 << PUT_MANY | 1 << GET_MANY
_LOOKED_AT_TOGETHER: Final = 1 << TXN | _ALONE | _RANGES | _MANY

_LEVEL_PLAIN_MAX: Final[int] = kv_pb2.READ_LEVEL_STALE
_WRITE_LEVEL_PLAIN_MAX: Final[int] = kv_pb2.WRITE_LEVEL_QUORUM
"""Up to these the levels need no options. Names of their own: those of the generated module are slow to look up."""


@dataclass(slots=True)
class Batch:
    """A decoded batch. `session` is 0 if it only reads, or is not protected against repetition.

    A value that nobody changes; not frozen only because that triples the time to make one.
    """

    operations: tuple[Operation, ...]
    session: int
    sequence: int
    acknowledged: int
    level: int
    """A `kv.v1.ReadLevel`; without meaning if it writes."""
    writes: bool
    """Whether it must go through the log."""
    options: Options = PLAIN
    """What few batches have: `PLAIN` itself for all others."""

    @property
    def stale(self) -> bool:
        """Whether a replica answers it from what it has."""
        return self.level in AS_STALE

    @property
    def count(self) -> int:
        """How many operations it holds: each row of a column is one, a transaction is one."""
        return sum(len(operation[1]) if 1 << operation[0] & _MANY else 1 for operation in self.operations)

    def keys(self) -> Iterable[bytes]:
        """Return each key that the batch names, those of transactions included."""
        return _keys_of(self.operations) if self._column is None else self._column

    def written(self) -> Iterable[bytes]:
        """Return each key that the batch may write, again for each time."""
        return _written_by(self.operations) if self._column is None or not self.writes else self._column

    @property
    def _column(self) -> Sequence[bytes] | None:
        """The keys of its one operation, if that has a column of them: nothing has to go through it row by row."""
        operations = self.operations
        if len(operations) != 1 or not 1 << operations[0][0] & _MANY:
            return None
        keys: Sequence[bytes] = operations[0][1]
        return keys


def _keys_of(operations: Iterable[Operation]) -> Iterator[bytes]:
    for operation in operations:
        kind = operation[0]
        if kind == GET or 1 << kind & _WRITES_KEY:
            yield operation[1]
        elif 1 << kind & _MANY:
            yield from operation[1]
        elif kind == TXN:
            yield from (compare[0] for compare in operation[1])
            yield from _keys_of(operation[2])
            yield from _keys_of(operation[3])


def _written_by(operations: Iterable[Operation]) -> Iterator[bytes]:
    for operation in operations:
        kind = operation[0]
        if 1 << kind & _WRITES_KEY:
            yield operation[1]
        elif kind == PUT_MANY:
            yield from operation[1]
        elif kind == TXN:
            yield from _written_by(operation[2])
            yield from _written_by(operation[3])


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
    return batch_of(message)


def batch_of(message: kv_pb2.BatchRequest) -> Batch:
    """Check a batch that was parsed. Raises as `decode_batch` does."""
    listed = message.operations
    if len(listed) > BATCH_OPERATIONS_MAX:
        raise _too_many(len(listed))
    operations = [_operation(operation) for operation in listed]
    kinds = 1 << operations[0][0] if len(operations) == 1 else _kinds(operations)
    if kinds & _LOOKED_AT_TOGETHER:
        operations = _checked_together(operations, kinds)
        kinds = _kinds(operations)
    if kinds & _WRITES:
        return _writing(message, tuple(operations), kinds)
    level = message.level
    # looked at one by one only if there may be something: this is the hot path
    rare = (
        not 0 <= level <= _LEVEL_PLAIN_MAX or message.trace or kinds & 1 << PAGE or message.HasField("read")
    )
    return Batch(tuple(operations), 0, 0, 0, level, False, read_options(message) if rare else PLAIN)


_decode_kept = lru_cache(maxsize=BATCHES_KEPT_MAX)(decode_batch)


def decode_again(raw: bytes) -> Batch:
    """Decode as `decode_batch` does a batch that probably came before: short ones are remembered for a while."""
    return _decode_kept(raw) if len(raw) <= KEPT_BYTES_MAX else decode_batch(raw)


def _writing(message: kv_pb2.BatchRequest, operations: tuple[Operation, ...], kinds: int) -> Batch:
    request_id = message.request_id
    session, sequence, acknowledged = request_id.session, request_id.sequence, request_id.acknowledged
    if session and sequence <= acknowledged:
        raise InvalidArgument(
            "the request's sequence must be above what it acknowledges, and sequences start at 1"
        )
    if kinds & _ALONE and operations[0] == (OUTCOME, session, sequence):
        raise InvalidArgument("an outcome query cannot ask for itself: leave its request id out")
    options = PLAIN
    if not 0 <= message.write_level <= _WRITE_LEVEL_PLAIN_MAX or message.trace or kinds & _ALONE:
        options = write_options(message, tells_revision=not kinds & _ALONE)
    return Batch(operations, session, sequence, acknowledged, message.level, True, options)


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
        made = PUT_PREVIOUS if put.return_previous else PUT
        if put.HasField("condition"):
            return _conditional((made, key, value), put.condition)
        return (made, key, value, None)
    if kind == "get":
        key = message.get.key
        if not 0 < len(key) <= KEY_BYTES_MAX:
            return _refused(_fault(key))
        return (GET, key)
    return _rare_operation(message, kind)


def _rare_operation(message: kv_pb2.Operation, kind: str | None) -> Operation:
    decode = _RARE.get(kind or "")
    if decode is None:
        return _refused(InvalidArgument("the operation is empty, or of a newer version than this node"))
    return decode(getattr(message, str(kind)))


def _delete(message: kv_pb2.DeleteOperation) -> Operation:
    key = message.key
    if not 0 < len(key) <= KEY_BYTES_MAX:
        return _refused(_fault(key))
    kind = DELETE_PREVIOUS if message.return_previous else DELETE
    if message.HasField("condition"):
        return _conditional((kind, key), message.condition)
    return (kind, key, None)


def _increment(message: kv_pb2.IncrementOperation) -> Operation:
    key = message.key
    if not 0 < len(key) <= KEY_BYTES_MAX:
        return _refused(_fault(key))
    if message.HasField("condition"):
        return _conditional((INCREMENT, key, message.delta), message.condition)
    return (INCREMENT, key, message.delta, None)


def _append(message: kv_pb2.AppendOperation) -> Operation:
    key, value = message.key, message.value
    if not 0 < len(key) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
        return _refused(_fault(key, value))
    if message.HasField("condition"):
        return _conditional((APPEND, key, value), message.condition)
    return (APPEND, key, value, None)


def _put_many(message: kv_pb2.PutManyOperation) -> Operation:
    keys, values = message.keys[:], message.values[:]
    if len(keys) != len(values):
        return _refused(
            InvalidArgument(
                f"put_many has {len(keys)} keys and {len(values)} values: give each key one value"
            )
        )
    if values and max(map(len, values)) > VALUE_BYTES_MAX:
        return _refused(_fault(b"-", max(values, key=len)))
    fault = _fault_of(keys)
    return (PUT_MANY, keys, values) if fault is None else fault


def _get_many(message: kv_pb2.GetManyOperation) -> Operation:
    keys = message.keys[:]
    fault = _fault_of(keys)
    return (GET_MANY, keys) if fault is None else fault


def _fault_of(keys: Sequence[bytes]) -> Operation | None:
    """Return the refusal of a column of keys; None for a good one."""
    if not keys:
        return _refused(InvalidArgument("the operation has no keys: give at least one"))
    if not all(keys):
        return _refused(_fault(b""))
    if max(map(len, keys)) > KEY_BYTES_MAX:
        return _refused(_fault(max(keys, key=len)))
    return None


def _outcome(message: kv_pb2.OutcomeOperation) -> Operation:
    if not (message.session and message.sequence):
        return _refused(
            InvalidArgument("the outcome query names no request: sessions and sequences start at 1")
        )
    return (OUTCOME, message.session, message.sequence)


def _range(message: kv_pb2.RangeOperation) -> Operation:
    asked = (message.start, message.end, message.limit, message.keys_only)
    if message.keep_snapshot or message.snapshot:
        return (PAGE, *asked, message.keep_snapshot, message.snapshot)
    return (RANGE, *asked)


def _conditional(operation: Operation, message: kv_pb2.Condition) -> Operation:
    test = message.WhichOneof("test")
    operand = getattr(message, test) if test else None
    if operand is None or operand is False:
        return _refused(
            InvalidArgument("the condition is empty: set one of absent, present, revision, value")
        )
    return (*operation, (test, operand))


def _txn(message: kv_pb2.TxnOperation, *, nested: bool) -> Operation:
    """Return the transaction, or the refusal of all of it for the first fault in it."""
    compares = [_compare(compare) for compare in message.compare]
    then = [_in_txn(operation, nested) for operation in message.then_operations]
    otherwise = [_in_txn(operation, nested) for operation in message.else_operations]
    can_fail = False
    for step in (*compares, *then, *otherwise):
        if step[0] == REFUSED:
            return step
    for step in (*then, *otherwise):
        kind = step[0]
        if not 1 << kind & _IN_TXN:
            return _refused(
                InvalidArgument(
                    "a transaction holds only gets, puts, deletes, increments, appends and transactions"
                )
            )
        if 1 << kind & _WRITES_KEY and step[-1] is not None:
            return _refused(InvalidArgument("a transaction's operations have no conditions: use compare"))
        can_fail = can_fail or 1 << kind & _CAN_FAIL != 0 or (kind == TXN and step[4])
    return (TXN, tuple(compares), tuple(then), tuple(otherwise), can_fail)


def _in_txn(message: kv_pb2.Operation, nested: bool) -> Operation:
    if message.WhichOneof("operation") != "txn":
        return _operation(message)
    if nested:
        return _refused(InvalidArgument("a transaction inside a transaction holds no further one"))
    return _txn(message.txn, nested=True)


def _compare(message: kv_pb2.Compare) -> Operation:
    """Return a `Compare`, or a refusal."""
    target = message.WhichOneof("target")
    if not 0 < len(message.key) <= KEY_BYTES_MAX:
        return _refused(_fault(message.key))
    if target is None or message.comparator not in kv_pb2.Comparator.values():
        return _refused(InvalidArgument("the compare has no target, or an unknown comparator"))
    return (message.key, message.comparator, target, getattr(message, target))


def _checked_together(operations: list[Operation], kinds: int) -> list[Operation]:
    """Refuse the operations that cannot be with the others of their batch."""
    if kinds & (1 << TXN | _MANY):
        _check_operations_count(operations)
    logged, several = kinds & _WRITES != 0, len(operations) > 1
    return [_with_others(operation, logged, several) for operation in operations]


def _with_others(operation: Operation, logged: bool, several: bool) -> Operation:
    kind = operation[0]
    if logged and 1 << kind & _RANGES:
        return _refused(
            InvalidArgument("a batch with a range may only read: send the writes in another batch")
        )
    if logged and kind == GET_MANY:
        return _refused(
            InvalidArgument(
                "a batch with get_many may only read: use get, or send the writes in another batch"
            )
        )
    if several and 1 << kind & _ALONE:
        name = "open_session" if kind == OPEN_SESSION else "outcome"
        return _refused(InvalidArgument(f"{name} must be the only operation of its batch"))
    if several and kind == PAGE:
        return _refused(InvalidArgument("a range with a snapshot must be the only operation of its batch"))
    return operation


def _check_operations_count(operations: list[Operation]) -> None:
    count = _count(operations)
    if count > BATCH_OPERATIONS_MAX:
        raise _too_many(count)


def _count(operations: Iterable[Operation]) -> int:
    count = 0
    for operation in operations:
        kind = operation[0]
        if kind == TXN:
            count += 1 + _count(operation[2]) + _count(operation[3])
        else:
            count += len(operation[1]) if 1 << kind & _MANY else 1
    return count


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


_RARE: Final[dict[str, Callable[[Any], Operation]]] = {
    "delete": _delete,
    "increment": _increment,
    "append": _append,
    "txn": lambda message: _txn(message, nested=False),
    "open_session": lambda _: (OPEN_SESSION,),
    "outcome": _outcome,
    "range": _range,
    "put_many": _put_many,
    "get_many": _get_many,
}
"""Decoders of the operations that are not on the hot path, by their field in `kv.v1.Operation`."""
