"""The state machine: what one command does to the state, and what it answers.

Step 8 of the path of a write. Here live the meaning of each operation and nothing else: a function
of (state, index, time, batches). No clock, randomness, I/O or store may come in here, so that each
replica that applies the same entries holds the same state and gives the same answers.

The revision of a write is the log index of its command. Requests that write the same key never share a
command (`queue`), so a revision names one request's write of a key; inside one batch the writes of a key
share it, and `version` counts them one by one. A batch is
not atomic: each operation succeeds or fails alone, in order. A transaction is: if an operation in it
can fail, it runs on an overlay, which becomes the state only when all of it was done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from kv.errors import (
    Conflict,
    IntegerOverflow,
    KVError,
    NotAnInteger,
    OutcomeDecided,
    RequestTooLarge,
    ResultEvicted,
    SessionExpired,
    UnknownOutcome,
    ValueTooLarge,
)
from kv.ids import VALUE_BYTES_MAX
from kv.partition.batch import (
    APPEND,
    DELETE,
    DELETE_PREVIOUS,
    GET,
    INCREMENT,
    OPEN_SESSION,
    OUTCOME,
    PUT,
    PUT_MANY,
    PUT_PREVIOUS,
    REFUSED,
    TXN,
    Batch,
    Compare,
    Condition,
    Operation,
)
from kv.partition.overlay import Overlay, StateView
from kv.partition.record import (
    HEADER,
    HEADER_BYTES,
    decode_record,
    error_part,
    get_part,
    item_of,
    mod_revision_of,
    result_part,
    row_by_row,
    txn_part,
    unpack_birth,
)
from kv.partition.session import ORDINAL_BITS, Fate, SessionTable, Verdict
from kv.v1 import kv_pb2

RESULT_BYTES_MAX: Final = 3 * 1024 * 1024
"""A get whose result would bring its response above this fails; the rest of 4 MiB is for the other results."""

COMMAND_BATCHES_MAX: Final = 1 << ORDINAL_BITS
"""Batches in one command, so that their ordinals fit into a stamp."""

INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 63) - 1
"""Bounds of what an increment reads and writes: a signed 64-bit integer."""

_pack_header: Final = HEADER.pack

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
"""Decimal text in its one shortest form."""

Outcome: TypeAlias = bytes | KVError
"""The serialized results of a batch, or why none of it was applied by this attempt."""


class Repeated(bytes):
    """An outcome that a session remembered: the results of an earlier command, not of this one."""


class _Failed(Exception):
    """An operation cannot be done, for a reason of its own; nothing of it was. Carries its part."""

    def __init__(self, part: bytes) -> None:
        super().__init__()
        self.part = part


def apply_command(
    state: StateView, sessions: SessionTable, index: int, time_ms: int, batches: Sequence[Batch]
) -> list[Outcome]:
    """Apply the command of entry `index` and return one outcome for each of its batches.

    `time_ms` never goes back from one command to the next. Raises only what `state` raises;
    then the command is half applied, and the caller discards the state.
    """
    assert len(batches) <= COMMAND_BATCHES_MAX
    sessions.expire(time_ms)
    run = _Run(state, sessions, index, time_ms)
    return [run.batch(batch, ordinal) for ordinal, batch in enumerate(batches)]


class _Run:
    """One command while it is applied."""

    def __init__(self, state: StateView, sessions: SessionTable, index: int, time_ms: int) -> None:
        self.state = state
        self.sessions = sessions
        self.index = index
        self.time_ms = time_ms
        self.stamp = 0
        self.result_bytes = 0
        self.put_parts: dict[int, bytes] = {}  # by version: the revision is the same for the whole command

    def batch(self, batch: Batch, ordinal: int) -> Outcome:
        """Apply one batch, unless its session knows better."""
        self.stamp = (self.index << ORDINAL_BITS) | ordinal
        if not batch.session:
            return self.operations(batch.operations)
        verdict = self.sessions.check(
            batch.session, batch.sequence, batch.acknowledged, self.stamp, self.time_ms
        )
        if isinstance(verdict, bytes):
            return Repeated(verdict)
        if verdict is not Verdict.NEW:
            return _session_error(verdict, batch)
        result = self.operations(batch.operations)
        self.sessions.record(batch.session, batch.sequence, result)
        return result

    def operations(self, operations: Sequence[Operation]) -> bytes:
        """Apply the operations in order and return their results, joined."""
        self.result_bytes = 0
        apply = self.operation
        return b"".join([apply(operation) for operation in operations])

    def operation(self, operation: Operation) -> bytes:
        """Apply one operation and return its part of the response."""
        kind = operation[0]
        if kind == PUT:
            _, key, value, condition = operation
            return self.put(key, value, condition)
        if kind == GET:
            return self.get(operation[1])
        if kind == PUT_MANY:
            return self.put_many(operation[1], operation[2])
        if kind == DELETE:
            return self.delete(operation[1], operation[2])
        try:
            return self.rare_operation(kind, operation)
        except _Failed as failed:
            return failed.part

    def rare_operation(self, kind: int, operation: Operation) -> bytes:
        """Apply an operation that is not on the hot path. Raises `_Failed`."""
        if kind == TXN:
            return self.txn(*operation[1:])
        if kind == REFUSED:
            part: bytes = operation[1]
            return part
        found = _OPERATIONS.get(kind)
        assert found is not None, f"operation {kind} in a command: the decoder lets none pass"
        return found(self, *operation[1:])

    def put(self, key: bytes, value: bytes, condition: Condition | None) -> bytes:
        old = self.state.get(key)
        if condition is not None and not _holds(condition, old):
            return _conflict(old)
        index = self.index
        if old is None:
            created, version = index, 1
        else:
            created, version = unpack_birth(old)
            version += 1
        self.state.put(key, _pack_header(created, index, version, 0) + value, old is None)
        part = self.put_parts.get(version)
        if part is None:
            put = kv_pb2.PutResult(revision=index, version=version)
            part = self.put_parts[version] = result_part(kv_pb2.OperationResult(put=put))
        return part

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> bytes:
        """Apply what `put` does to each row, in their order. One loop without calls of our own: the hottest one."""
        index, get, put = self.index, self.state.get, self.state.put
        first = _pack_header(index, index, 1, 0)
        versions: list[int] = []
        for key, value in zip(keys, values, strict=True):
            old = get(key)
            if old is None:
                put(key, first + value, True)
                versions.append(1)
            else:
                created, version = unpack_birth(old)
                put(key, _pack_header(created, index, version + 1, 0) + value, False)
                versions.append(version + 1)
        result = kv_pb2.OperationResult()
        result.put_many.revision = index
        result.put_many.versions.extend(versions)
        return result_part(result)

    def get(self, key: bytes) -> bytes:
        part = get_part(key, self.state.get(key))
        if self.result_bytes + len(part) > RESULT_BYTES_MAX:
            return RESULT_TOO_LARGE_PART
        self.result_bytes += len(part)
        return part

    def delete(self, key: bytes, condition: Condition | None) -> bytes:
        old = self.state.get(key)
        if condition is not None and not _holds(condition, old):
            return _conflict(old)
        if old is not None:
            self.state.delete(key)
        result = kv_pb2.DeleteResult(deleted=old is not None, revision=self.index)
        return result_part(kv_pb2.OperationResult(delete=result))

    def put_previous(self, key: bytes, value: bytes, condition: Condition | None) -> bytes:
        old = self.old(key, condition)
        previous = self.previous(key, old)
        revision, version = self.write(key, old, value)
        put = kv_pb2.PutResult(revision=revision, version=version, previous=previous)
        return result_part(kv_pb2.OperationResult(put=put))

    def delete_previous(self, key: bytes, condition: Condition | None) -> bytes:
        old = self.old(key, condition)
        previous = self.previous(key, old)
        if old is not None:
            self.state.delete(key)
        result = kv_pb2.DeleteResult(deleted=old is not None, revision=self.index, previous=previous)
        return result_part(kv_pb2.OperationResult(delete=result))

    def increment(self, key: bytes, delta: int, condition: Condition | None) -> bytes:
        old = self.old(key, condition)
        total = (0 if old is None else _integer(old[HEADER_BYTES:])) + delta
        if not INTEGER_MIN <= total <= INTEGER_MAX:
            raise _Failed(INTEGER_OVERFLOW_PART)
        revision, version = self.write(key, old, b"%d" % total)
        result = kv_pb2.IncrementResult(value=total, revision=revision, version=version)
        return result_part(kv_pb2.OperationResult(increment=result))

    def append(self, key: bytes, value: bytes, condition: Condition | None) -> bytes:
        old = self.old(key, condition)
        whole = value if old is None else old[HEADER_BYTES:] + value
        if len(whole) > VALUE_BYTES_MAX:
            raise _Failed(APPEND_TOO_LARGE_PART)
        revision, version = self.write(key, old, whole)
        result = kv_pb2.AppendResult(length=len(whole), revision=revision, version=version)
        return result_part(kv_pb2.OperationResult(append=result))

    def old(self, key: bytes, condition: Condition | None) -> bytes | None:
        """Return the record of `key`. Raises `_Failed` if the condition does not hold."""
        old = self.state.get(key)
        if condition is not None and not _holds(condition, old):
            raise _Failed(_conflict(old))
        return old

    def write(self, key: bytes, old: bytes | None, value: bytes) -> tuple[int, int]:
        """Store a value and return its revision and version."""
        created, version = self.index, 1
        if old is not None:
            created, version = unpack_birth(old)
            version += 1
        self.state.put(key, HEADER.pack(created, self.index, version, 0) + value, old is None)
        return self.index, version

    def previous(self, key: bytes, old: bytes | None) -> kv_pb2.KeyValue | None:
        """Return what the key held. Raises `_Failed`, before anything is written, if the response has no room."""
        if old is None:
            return None
        item = item_of(key, old)
        size = item.ByteSize() + PREVIOUS_FRAME_BYTES
        if self.result_bytes + size > RESULT_BYTES_MAX:
            raise _Failed(RESULT_TOO_LARGE_PART)
        self.result_bytes += size
        return item

    def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Operation],
        otherwise: Sequence[Operation],
        can_fail: bool,
    ) -> bytes:
        """Atomic: without an operation that can fail because none fails, else by an overlay. Raises `_Failed`."""
        if not can_fail:
            return self.chosen(compares, then, otherwise)
        beneath, result_bytes = self.state, self.result_bytes
        overlay = self.state = Overlay(beneath)
        try:
            part = self.chosen(compares, then, otherwise)
        except _Failed:
            self.result_bytes = result_bytes
            raise
        finally:
            self.state = beneath
        overlay.flush()
        return part

    def chosen(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]
    ) -> bytes:
        """Apply one of the lists and return the transaction's part. Raises `_Failed`."""
        succeeded = all(_compare_holds(compare, self.state.get(compare[0])) for compare in compares)
        parts = [self.in_txn(operation) for operation in (then if succeeded else otherwise)]
        return txn_part(succeeded, self.index, parts)

    def in_txn(self, operation: Operation) -> bytes:
        """Apply one operation of a transaction. Raises `_Failed`: then nothing of the transaction may stay."""
        kind = operation[0]
        if kind in (GET, PUT, DELETE):
            return self.operation(operation)
        return self.rare_operation(kind, operation)

    def outcome(self, session: int, sequence: int) -> bytes:
        """Tell what became of a request, and decide it."""
        fate = self.sessions.outcome(session, sequence)
        result = kv_pb2.OutcomeResult(outcome=_OUTCOMES[fate if isinstance(fate, Fate) else Fate.APPLIED])
        if isinstance(fate, bytes):
            result.results.extend(row_by_row(kv_pb2.BatchResponse.FromString(fate).results))
        return result_part(kv_pb2.OperationResult(outcome=result))

    def open_session(self) -> bytes:
        self.sessions.open(self.stamp, self.time_ms)
        result = kv_pb2.OpenSessionResult(session=self.stamp, ttl_ms=self.sessions.limits.ttl_ms)
        return result_part(kv_pb2.OperationResult(open_session=result))


RESULT_TOO_LARGE_PART: Final = error_part(
    RequestTooLarge(f"the results of the batch exceed {RESULT_BYTES_MAX} bytes: get fewer keys in each batch")
)


INTEGER_OVERFLOW_PART: Final = error_part(
    IntegerOverflow("the sum is no signed 64-bit integer any more; nothing was written")
)
NOT_AN_INTEGER_PART: Final = error_part(
    NotAnInteger("the value is no signed 64-bit integer in decimal text; nothing was written")
)
APPEND_TOO_LARGE_PART: Final = error_part(
    ValueTooLarge(
        f"the value would have more than {VALUE_BYTES_MAX} bytes",
        metadata={"value_bytes_max": VALUE_BYTES_MAX},
    )
)

PREVIOUS_FRAME_BYTES: Final = 32
"""Counted for the result around a previous item."""

_OPERATIONS: Final[dict[int, Callable[..., bytes]]] = {
    OPEN_SESSION: _Run.open_session,
    OUTCOME: _Run.outcome,
    INCREMENT: _Run.increment,
    APPEND: _Run.append,
    PUT_PREVIOUS: _Run.put_previous,
    DELETE_PREVIOUS: _Run.delete_previous,
}

_OUTCOMES: Final = {
    Fate.APPLIED: kv_pb2.WRITE_OUTCOME_APPLIED,
    Fate.FENCED: kv_pb2.WRITE_OUTCOME_NOT_APPLIED,
    Fate.UNKNOWN: kv_pb2.WRITE_OUTCOME_UNKNOWN,
}


def _integer(text: bytes) -> int:
    """Return the signed 64-bit integer that `text` is. Raises `_Failed`."""
    number = int(text) if _INTEGER.fullmatch(text) else INTEGER_MAX + 1
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise _Failed(NOT_AN_INTEGER_PART)
    return number


def _holds(condition: Condition, record: bytes | None) -> bool:
    test, operand = condition
    match test:
        case "absent":
            return record is None
        case "present":
            return record is not None
        case "revision":
            return bool(mod_revision_of(record) == operand)
        case "value":
            return record is not None and bool(record[HEADER_BYTES:] == operand)
        case _:
            raise AssertionError(f"unknown condition {test}: the decoder lets none pass")


def _conflict(record: bytes | None) -> bytes:
    revision = mod_revision_of(record)
    return error_part(
        Conflict(f"the condition failed at revision {revision}", metadata={"revision": revision})
    )


_COMPARATORS: Final[dict[int, Callable[[Any, Any], bool]]] = {
    kv_pb2.COMPARATOR_UNSPECIFIED: lambda has, named: has == named,
    kv_pb2.COMPARATOR_EQUAL: lambda has, named: has == named,
    kv_pb2.COMPARATOR_NOT_EQUAL: lambda has, named: has != named,
    kv_pb2.COMPARATOR_LESS: lambda has, named: has < named,
    kv_pb2.COMPARATOR_GREATER: lambda has, named: has > named,
}


def _compare_holds(compare: Compare, record: bytes | None) -> bool:
    _, comparator, target, operand = compare
    if target == "value" and record is None:
        return comparator == kv_pb2.COMPARATOR_NOT_EQUAL  # no value is equal to, above or below any
    created, modified, version, value = (0, 0, 0, b"") if record is None else decode_record(record)
    has: object
    match target:
        case "value":
            has = value
        case "mod_revision":
            has = modified
        case "create_revision":
            has = created
        case "version":
            has = version
        case "exists":
            has = record is not None
        case _:
            raise AssertionError(f"unknown target {target}: the decoder lets none pass")
    return _COMPARATORS[comparator](has, operand)


def _session_error(verdict: Verdict, batch: Batch) -> KVError:
    named = {"session": batch.session, "sequence": batch.sequence}
    match verdict:
        case Verdict.EXPIRED:
            return SessionExpired(f"the session {batch.session} is unknown or expired", metadata=named)
        case Verdict.EVICTED:
            return ResultEvicted(f"the result of sequence {batch.sequence} is no longer kept", metadata=named)
        case Verdict.FORGOTTEN:
            return UnknownOutcome(f"sequence {batch.sequence} is too old to be known", metadata=named)
        case Verdict.FENCED:
            return OutcomeDecided(
                f"sequence {batch.sequence} was declared not applied, and stays so", metadata=named
            )
        case _:
            raise AssertionError(f"{verdict} is no error")
