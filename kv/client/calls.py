"""Calls: what callers wait for, as operations on the wire and back.

A call is one or more operations of one partition with one future. It knows how to add
itself to a `BatchRequest` and how to read its share of the `BatchResponse`. When it is
sent, with whom, and how often, is not its business: that is `kv.client.core`.

This is the hot path: a put costs one object and one future here, its protobuf
operation is written in place, and its reply is read in place.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from kv.client.types import (
    Compare,
    Delete,
    DeleteReply,
    Evidence,
    Get,
    Item,
    Op,
    Put,
    PutReply,
    Result,
    TxnReply,
)
from kv.errors import Internal, InvalidArgument, KVError, from_proto
from kv.ids import check_key, check_value
from kv.v1 import kv_pb2

OPERATION_OVERHEAD_BYTES: Final = 40
"""Upper bound of what one operation adds to a request besides its keys and values: tags, lengths, a revision."""

Operations: TypeAlias = RepeatedCompositeFieldContainer[kv_pb2.Operation]
Results: TypeAlias = Iterator[kv_pb2.OperationResult]


def fresh(error: KVError) -> KVError:
    """Return a copy of `error`: an exception instance belongs to one raiser, or their tracebacks mix."""
    return type(error)(error.message, metadata=error.metadata, definite=error.definite)


class Call(ABC):
    """Operations of one partition, and who waits for them."""

    __slots__ = ("deadline", "size")

    count: int = 1
    """How many operations it adds to a request."""
    size: int
    """How many bytes it adds to a request, at most."""
    deadline: float
    """Loop time in seconds at which its caller stops waiting."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nobody waits any more: answered, failed or cancelled."""

    @property
    @abstractmethod
    def keys(self) -> Sequence[bytes]:
        """The keys that decide the partition; empty if the partition was named."""

    @abstractmethod
    def add_to(self, operations: Operations) -> None:
        """Append its operations."""

    @abstractmethod
    def resolve(self, results: Results, evidence: Evidence) -> None:
        """Take its `count` results off `results` and answer."""

    @abstractmethod
    def fail(self, error: KVError) -> None:
        """Answer with `error`, which is this call's own instance."""


class KeyCall(Call):
    """One operation on one key with a future of its own."""

    __slots__ = ("future", "key")

    name: ClassVar[str]
    """The arm of `OperationResult` that answers it."""

    def __init__(self, key: bytes, size: int, deadline: float, future: asyncio.Future[Any]) -> None:
        self.key = key
        self.size = size
        self.deadline = deadline
        self.future = future

    @property
    def done(self) -> bool:
        """See `Call`."""
        return self.future.done()

    @property
    def keys(self) -> Sequence[bytes]:
        """See `Call`."""
        return (self.key,)

    def fail(self, error: KVError) -> None:
        """See `Call`."""
        if not self.future.done():
            self.future.set_exception(error)

    def resolve(self, results: Results, evidence: Evidence) -> None:
        """See `Call`."""
        result = next(results)
        if self.future.done():
            return  # its caller was cancelled, or its deadline passed
        kind = result.WhichOneof("result")
        if kind == self.name:
            self.future.set_result(self.read(result, evidence))
        else:
            self.future.set_exception(_failure(result, kind, self.name))

    @abstractmethod
    def read(self, result: kv_pb2.OperationResult, evidence: Evidence) -> object:
        """Return the reply that `result` is."""


class GetCall(KeyCall):
    """Reads a key."""

    __slots__ = ()
    name = "get"

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        operations.add().get.key = self.key

    def read(self, result: kv_pb2.OperationResult, evidence: Evidence) -> Item | None:
        """See `KeyCall`."""
        return _read_get(result.get, evidence)


class PutCall(KeyCall):
    """Writes a key."""

    __slots__ = ("condition", "value")
    name = "put"

    def __init__(
        self,
        key: bytes,
        value: bytes,
        condition: kv_pb2.Condition | None,
        deadline: float,
        future: asyncio.Future[Any],
    ) -> None:
        self.key = key
        self.value = value
        self.condition = condition
        self.size = OPERATION_OVERHEAD_BYTES + len(key) + len(value)
        if condition is not None:
            self.size += condition.ByteSize()
        self.deadline = deadline
        self.future = future

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        put = operations.add().put
        put.key = self.key
        put.value = self.value
        if self.condition is not None:
            put.condition.CopyFrom(self.condition)

    def read(self, result: kv_pb2.OperationResult, evidence: Evidence) -> PutReply:
        """See `KeyCall`."""
        put = result.put
        return PutReply(put.revision, put.version, evidence)


class OperationCall(KeyCall):
    """Any one operation that is already built: a delete or a transaction."""

    __slots__ = ("_keys", "name", "operation", "reader")

    def __init__(
        self,
        name: str,
        operation: kv_pb2.Operation,
        reader: Callable[[kv_pb2.OperationResult, Evidence], object],
        keys: Sequence[bytes],
        deadline: float,
        future: asyncio.Future[Any],
    ) -> None:
        super().__init__(keys[0], OPERATION_OVERHEAD_BYTES + operation.ByteSize(), deadline, future)
        self.name = name  # type: ignore[misc]  # a slot here, the class's own elsewhere
        self.operation = operation
        self.reader = reader
        self._keys = keys

    @property
    def keys(self) -> Sequence[bytes]:
        """See `Call`."""
        return self._keys

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        operations.append(self.operation)

    def read(self, result: kv_pb2.OperationResult, evidence: Evidence) -> object:
        """See `KeyCall`."""
        return self.reader(result, evidence)


class OpenCall(Call):
    """Opens a session; answered to the core itself."""

    __slots__ = ("_done", "_on_end")

    def __init__(self, deadline: float, on_end: Callable[[int | KVError], None]) -> None:
        """Call `on_end` once, with the session's id or the failure."""
        self.size = OPERATION_OVERHEAD_BYTES
        self.deadline = deadline
        self._on_end = on_end
        self._done = False

    @property
    def done(self) -> bool:
        """See `Call`."""
        return self._done

    @property
    def keys(self) -> Sequence[bytes]:
        """See `Call`."""
        return ()

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        operations.add().open_session.SetInParent()

    def resolve(self, results: Results, evidence: Evidence) -> None:  # noqa: ARG002  # the core needs no proof
        """See `Call`."""
        result = next(results)
        kind = result.WhichOneof("result")
        if kind == "open_session" and not result.open_session.session:
            self._end(Internal("the node opened session 0, which is none"))
        elif kind == "open_session":
            self._end(result.open_session.session)
        else:
            self._end(_failure(result, kind, "open_session"))

    def fail(self, error: KVError) -> None:
        """See `Call`."""
        self._end(error)

    def _end(self, outcome: int | KVError) -> None:
        if not self._done:
            self._done = True
            self._on_end(outcome)


class BatchCall(Call):
    """A part of an explicit batch: some of its operations, all of one partition, in their order."""

    __slots__ = ("_done", "_on_end", "_positions", "_results", "count", "ops")

    def __init__(
        self,
        ops: Sequence[Op],
        positions: Sequence[int],
        results: MutableSequence[Result],
        deadline: float,
        on_end: Callable[[KVError | None], None],
    ) -> None:
        """Write the results into `results` at `positions`, then call `on_end` once, with the failure if any."""
        assert len(ops) == len(positions), "each operation has a place for its result"
        self.ops = ops
        self.count = len(ops)
        self.size = sum(op_size(op) for op in ops)
        self.deadline = deadline
        self._positions = positions
        self._results = results
        self._on_end = on_end
        self._done = False

    @property
    def done(self) -> bool:
        """See `Call`."""
        return self._done

    @property
    def keys(self) -> Sequence[bytes]:
        """See `Call`."""
        return [op.key for op in self.ops]

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        for op in self.ops:
            write_op(op, operations.add())

    def resolve(self, results: Results, evidence: Evidence) -> None:
        """See `Call`."""
        for position in self._positions:
            result = next(results)
            if not self._done:
                self._results[position] = read_result(result, evidence)
        self._end(None)

    def fail(self, error: KVError) -> None:
        """See `Call`."""
        if self._done:
            return
        for position in self._positions:
            self._results[position] = fresh(error)
        self._end(error)

    def abandon(self) -> None:
        """Note that the caller of the batch does not wait any more."""
        self._done = True

    def _end(self, error: KVError | None) -> None:
        if not self._done:
            self._done = True
            self._on_end(error)


# --- from our types to the wire ---------------------------------------------------------------------


def make_condition(
    if_absent: bool = False,
    if_present: bool = False,
    if_revision: int | None = None,
    if_value: bytes | None = None,
) -> kv_pb2.Condition | None:
    """Return the one condition that is given, None if none is; raise `InvalidArgument` for two."""
    given = if_absent + if_present + (if_revision is not None) + (if_value is not None)
    if given == 0:
        return None
    if given > 1:
        raise InvalidArgument("give at most one of if_absent, if_present, if_revision and if_value")
    if if_absent:
        return kv_pb2.Condition(absent=True)
    if if_present:
        return kv_pb2.Condition(present=True)
    if if_value is not None:
        return kv_pb2.Condition(value=check_bytes(if_value, "if_value"))
    revision = if_revision or 0
    if not 0 <= revision < 2**64:
        raise InvalidArgument(f"the revision {revision} is not in 0 to 2^64 - 1")
    return kv_pb2.Condition(revision=revision)


def check_bytes(value: bytes, name: str) -> bytes:
    """Return `value`; raise `TypeError` unless it is bytes: the store has no text and chooses no encoding."""
    if not isinstance(value, bytes):
        raise TypeError(f"{name} must be bytes, not {type(value).__name__}: encode text first")
    return value


def check_op(op: Op) -> None:
    """Raise a definite error, or `TypeError`, unless the operation can be sent."""
    if not isinstance(op, Get | Put | Delete):
        raise TypeError(f"an operation is a Get, Put or Delete, not {type(op).__name__}")
    check_key(check_bytes(op.key, "key"))
    if isinstance(op, Put):
        check_value(check_bytes(op.value, "value"))
    _condition_of(op)


def op_size(op: Op) -> int:
    """Return how many bytes `op` adds to a request, at most."""
    size = OPERATION_OVERHEAD_BYTES + len(op.key)
    if isinstance(op, Put):
        size += len(op.value)
    if not isinstance(op, Get) and op.if_value is not None:
        size += len(op.if_value)
    return size


def write_op(op: Op, operation: kv_pb2.Operation) -> None:
    """Write `op` into an empty `operation`."""
    if isinstance(op, Get):
        operation.get.key = op.key
        return
    condition = _condition_of(op)
    if isinstance(op, Put):
        operation.put.key = op.key
        operation.put.value = op.value
        if condition is not None:
            operation.put.condition.CopyFrom(condition)
        return
    operation.delete.key = op.key
    if condition is not None:
        operation.delete.condition.CopyFrom(condition)


def _condition_of(op: Op) -> kv_pb2.Condition | None:
    match op:
        case Put():
            return make_condition(op.if_absent, op.if_present, op.if_revision, op.if_value)
        case Delete():
            return make_condition(False, op.if_present, op.if_revision, op.if_value)
        case _:
            return None


def write_compare(compare: Compare) -> kv_pb2.Compare:
    """Return `compare` as it travels; raise `InvalidArgument` unless exactly one target is given."""
    check_key(check_bytes(compare.key, "key"))
    targets = {
        name: target
        for name in ("value", "mod_revision", "create_revision", "version", "exists")
        if (target := getattr(compare, name)) is not None
    }
    if len(targets) != 1:
        raise InvalidArgument(f"a Compare has exactly one target, not {len(targets)}: {sorted(targets)}")
    # The enum numbers are equal (a test holds them so); mypy-protobuf gives them a type of their own.
    comparator = kv_pb2.Comparator.ValueType(int(compare.relation))
    return kv_pb2.Compare(key=compare.key, comparator=comparator, **targets)


# --- from the wire to our types ---------------------------------------------------------------------


def read_item(item: kv_pb2.KeyValue, evidence: Evidence | None) -> Item:
    """Return `item` as callers see it."""
    return Item(item.key, item.value, item.create_revision, item.mod_revision, item.version, evidence)


def read_result(result: kv_pb2.OperationResult, evidence: Evidence) -> Result:
    """Return the result of one operation of a batch."""
    match result.WhichOneof("result"):
        case "put":
            return PutReply(result.put.revision, result.put.version, evidence)
        case "get":
            return _read_get(result.get, evidence)
        case "delete":
            return read_delete(result, evidence)
        case kind:
            return _failure(result, kind, "get, put or delete")


def read_delete(result: kv_pb2.OperationResult, evidence: Evidence) -> DeleteReply:
    """Return the reply to a delete."""
    return DeleteReply(result.delete.deleted, result.delete.revision, evidence)


def read_txn(result: kv_pb2.OperationResult, evidence: Evidence) -> TxnReply:
    """Return the reply to a transaction."""
    txn = result.txn
    results = tuple(read_result(inner, evidence) for inner in txn.results)
    return TxnReply(txn.succeeded, txn.revision, results, evidence)


def _read_get(get: kv_pb2.GetResult, evidence: Evidence) -> Item | None:
    return read_item(get.item, evidence) if get.HasField("item") else None


def _failure(result: kv_pb2.OperationResult, kind: str | None, wanted: str) -> KVError:
    if kind == "error":
        return from_proto(result.error)
    return Internal(f"the answer to {wanted} was {kind}: client and node do not understand each other")
