"""The state machine: what one command does to the state, and what it answers.

Step 8 of the path of a write. Here live the meaning of each operation and nothing else: a function
of (state, index, time, batches). No clock, randomness, I/O or store may come in here, so that each
replica that applies the same entries holds the same state and gives the same answers.

The revision of a write is the log index of its command. Requests that write the same key never share a
command (`queue`), so a revision names one request's write of a key; inside one batch the writes of a key
share it, and `version` counts them one by one. A batch is
not atomic: each operation succeeds or fails alone, in order. A transaction is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from kv.errors import Conflict, KVError, RequestTooLarge, ResultEvicted, SessionExpired, UnknownOutcome
from kv.partition.batch import (
    DELETE,
    GET,
    OPEN_SESSION,
    PUT,
    REFUSED,
    TXN,
    Batch,
    Compare,
    Condition,
    Operation,
)
from kv.partition.record import (
    HEADER,
    HEADER_BYTES,
    decode_record,
    error_part,
    get_part,
    result_part,
    txn_part,
)
from kv.partition.session import ORDINAL_BITS, SessionTable, Verdict
from kv.v1 import kv_pb2

RESULT_BYTES_MAX: Final = 3 * 1024 * 1024
"""A get whose result would bring its response above this fails; the rest of 4 MiB is for the other results."""

COMMAND_BATCHES_MAX: Final = 1 << ORDINAL_BITS
"""Batches in one command, so that their ordinals fit into a stamp."""

Outcome: TypeAlias = bytes | KVError
"""The serialized results of a batch, or why none of it was applied by this attempt."""


class StateView(Protocol):
    """The keys of the partition. Records are opaque here but for `kv.partition.record`."""

    def get(self, key: bytes) -> bytes | None:
        """Return the record of `key`, or None."""

    def put(self, key: bytes, record: bytes, is_new: bool) -> None:
        """Store the record of `key`; `is_new`: `get` found none."""

    def delete(self, key: bytes) -> None:
        """Remove `key`, which exists."""


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
            return verdict
        if verdict is not Verdict.NEW:
            return _session_error(verdict, batch)
        result = self.operations(batch.operations)
        self.sessions.record(batch.session, batch.sequence, result)
        return result

    def operations(self, operations: Sequence[Operation]) -> bytes:
        """Apply the operations in order and return their results, joined."""
        self.result_bytes = 0
        return b"".join([self.operation(operation) for operation in operations])

    def operation(self, operation: Operation) -> bytes:
        """Apply one operation and return its part of the response."""
        kind = operation[0]
        if kind == PUT:
            return self.put(operation[1], operation[2], operation[3])
        if kind == GET:
            return self.get(operation[1])
        if kind == DELETE:
            return self.delete(operation[1], operation[2])
        if kind == TXN:
            return self.txn(operation[1], operation[2], operation[3])
        if kind == OPEN_SESSION:
            return self.open_session()
        assert kind == REFUSED, f"operation {kind} in a command: the decoder lets none pass"
        part: bytes = operation[1]
        return part

    def put(self, key: bytes, value: bytes, condition: Condition | None) -> bytes:
        old = self.state.get(key)
        if condition is not None and not _holds(condition, old):
            return _conflict(old)
        index = self.index
        if old is None:
            created, version = index, 1
        else:
            created, _, version, _ = HEADER.unpack_from(old)
            version += 1
        self.state.put(key, HEADER.pack(created, index, version, 0) + value, old is None)
        part = self.put_parts.get(version)
        if part is None:
            put = kv_pb2.PutResult(revision=index, version=version)
            part = self.put_parts[version] = result_part(kv_pb2.OperationResult(put=put))
        return part

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

    def txn(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]
    ) -> bytes:
        """Atomic because nothing in the chosen list can fail: the decoder refused what could."""
        succeeded = all(_compare_holds(compare, self.state.get(compare[0])) for compare in compares)
        parts = [self.operation(operation) for operation in (then if succeeded else otherwise)]
        return txn_part(succeeded, self.index, parts)

    def open_session(self) -> bytes:
        self.sessions.open(self.stamp, self.time_ms)
        result = kv_pb2.OpenSessionResult(session=self.stamp, ttl_ms=self.sessions.limits.ttl_ms)
        return result_part(kv_pb2.OperationResult(open_session=result))


RESULT_TOO_LARGE_PART: Final = error_part(
    RequestTooLarge(f"the results of the batch exceed {RESULT_BYTES_MAX} bytes: get fewer keys in each batch")
)


def _holds(condition: Condition, record: bytes | None) -> bool:
    test, operand = condition
    match test:
        case "absent":
            return record is None
        case "present":
            return record is not None
        case "revision":
            return bool(_mod_revision(record) == operand)
        case "value":
            return record is not None and bool(record[HEADER_BYTES:] == operand)
        case _:
            raise AssertionError(f"unknown condition {test}: the decoder lets none pass")


def _conflict(record: bytes | None) -> bytes:
    revision = _mod_revision(record)
    return error_part(
        Conflict(f"the condition failed at revision {revision}", metadata={"revision": revision})
    )


def _mod_revision(record: bytes | None) -> int:
    revision: int = 0 if record is None else HEADER.unpack_from(record)[1]
    return revision


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
        case _:
            raise AssertionError(f"{verdict} is no error")
