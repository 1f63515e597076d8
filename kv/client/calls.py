"""Calls: what callers wait for, as operations on the wire and back.

A call is one or more operations of one partition with one future. It knows how to add
itself to a `BatchRequest` and how to read its share of the `BatchResponse`. When it is
sent, with whom, and how often, is not its business: that is `kv.client.core`.

This is the hot path: a put costs one object and one future here, its protobuf
operation is written in place, and its reply is read in place.
"""

# ruff: noqa: ARG002  # the methods of a common face need not use all that they are given

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, TypeAlias

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from kv.client.columns import Column
from kv.client.operations import (
    OPERATION_OVERHEAD_BYTES,
    evidence_of,
    failure,
    fresh,
    is_plain_put,
    op_size,
    read_get,
    read_result,
    write_op,
)
from kv.client.types import Evidence, Get, Item, Op, Put, PutReply, Reading, ReadLevel, Result
from kv.errors import OUTCOME_KEY, Internal, KVError
from kv.outcome import OutcomeToken
from kv.v1 import kv_pb2

Operations: TypeAlias = RepeatedCompositeFieldContainer[kv_pb2.Operation]
Results: TypeAlias = Iterator[kv_pb2.OperationResult]
Proofs: TypeAlias = tuple[Evidence, ...]
"""Who served: the first is the evidence of the answer, the others are of QUORUM and ALL."""

_ASKS_SEVERAL: Final = frozenset({ReadLevel.QUORUM, ReadLevel.ALL})


class Call(ABC):
    """Operations of one partition, and who waits for them."""

    __slots__ = ("deadline", "size")

    count: int = 1
    """How many operations it adds to a request."""
    column: Column | None = None
    """Of what it can be a row, or some."""
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
    def resolve(self, results: Results, proofs: Proofs) -> None:
        """Take its `count` results off `results` and answer."""

    def add_rows(self, keys: list[bytes], values: list[bytes]) -> None:
        """Append its rows: the keys, and the values if it writes. Only if it has a `column`."""
        raise AssertionError(f"{type(self).__name__} is no row of a column")

    def resolve_puts(self, replies: Sequence[PutReply]) -> None:
        """Answer with its `count` replies."""
        raise AssertionError(f"{type(self).__name__} puts nothing")

    def resolve_gets(self, items: Sequence[Item | None], proofs: Proofs) -> bool:
        """Take what was found for the first of its keys; return whether that were all, so that it is answered.

        What is missing is asked for again, by the same call, which then has the other keys only.
        """
        raise AssertionError(f"{type(self).__name__} gets nothing")

    @abstractmethod
    def fail(self, error: KVError, token: OutcomeToken | None = None) -> None:
        """Answer with `error`, which is this call's own instance; `token`: by which to ask for the outcome."""


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

    def fail(self, error: KVError, token: OutcomeToken | None = None) -> None:
        """See `Call`."""
        if not self.future.done():
            self.future.set_exception(_with_token(error, token))

    def resolve(self, results: Results, proofs: Proofs) -> None:
        """See `Call`."""
        result = next(results)
        if self.future.done():
            return  # its caller was cancelled, or its deadline passed
        kind = result.WhichOneof("result")
        if kind == self.name:
            self.future.set_result(self.read(result, proofs))
        else:
            self.future.set_exception(failure(result, kind, self.name))

    @abstractmethod
    def read(self, result: kv_pb2.OperationResult, proofs: Proofs) -> object:
        """Return the reply that `result` is."""


class GetCall(KeyCall):
    """Reads a key."""

    __slots__ = ()
    name = "get"
    column = Column.GETS

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        operations.add().get.key = self.key

    def read(self, result: kv_pb2.OperationResult, proofs: Proofs) -> object:
        """See `KeyCall`; it is an `Item` or None."""
        return read_get(result.get, proofs[0])

    def add_rows(self, keys: list[bytes], values: list[bytes]) -> None:
        """See `Call`."""
        keys.append(self.key)

    def resolve_gets(self, items: Sequence[Item | None], proofs: Proofs) -> bool:
        """See `Call`."""
        if not items:
            return False
        future = self.future
        if not future.done():
            future.set_result(self.reply(items[0], proofs))
        return True

    def reply(self, item: Item | None, proofs: Proofs) -> object:
        """Return the reply that `item` is."""
        return item


class ReadingCall(GetCall):
    """Reads a key and keeps all evidence."""

    __slots__ = ()

    def read(self, result: kv_pb2.OperationResult, proofs: Proofs) -> Reading:
        """See `KeyCall`."""
        return self.reply(read_get(result.get, proofs[0]), proofs)

    def reply(self, item: Item | None, proofs: Proofs) -> Reading:
        """See `GetCall`."""
        proof = evidence_of(proofs[0], 0 if item is None else item.mod_revision)
        return Reading(item, proof, (proof, *proofs[1:]) if proof.level in _ASKS_SEVERAL else ())


class PutCall(KeyCall):
    """Writes a key."""

    __slots__ = ("column", "condition", "value")
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
        self.column = Column.PUTS
        if condition is not None:
            self.size += condition.ByteSize()
            self.column = None
        self.deadline = deadline
        self.future = future

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        put = operations.add().put
        put.key = self.key
        put.value = self.value
        if self.condition is not None:
            put.condition.CopyFrom(self.condition)

    def read(self, result: kv_pb2.OperationResult, proofs: Proofs) -> PutReply:
        """See `KeyCall`."""
        put = result.put
        return PutReply(put.revision, put.version, proofs[0])

    def add_rows(self, keys: list[bytes], values: list[bytes]) -> None:
        """See `Call`."""
        keys.append(self.key)
        values.append(self.value)

    def resolve_puts(self, replies: Sequence[PutReply]) -> None:
        """See `Call`."""
        future = self.future
        if not future.done():
            future.set_result(replies[0])


class OperationCall(KeyCall):
    """Any one operation that is already built. One without keys belongs to the partition that it is submitted to."""

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
        super().__init__(
            keys[0] if keys else b"", OPERATION_OVERHEAD_BYTES + operation.ByteSize(), deadline, future
        )
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

    def read(self, result: kv_pb2.OperationResult, proofs: Proofs) -> object:
        """See `KeyCall`."""
        return self.reader(result, proofs[0])


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

    def resolve(self, results: Results, proofs: Proofs) -> None:
        """See `Call`."""
        result = next(results)
        kind = result.WhichOneof("result")
        if kind == "open_session" and not result.open_session.session:
            self._end(Internal("the node opened session 0, which is none"))
        elif kind == "open_session":
            self._end(result.open_session.session)
        else:
            self._end(failure(result, kind, "open_session"))

    def fail(self, error: KVError, token: OutcomeToken | None = None) -> None:
        """See `Call`."""
        self._end(error)

    def _end(self, outcome: int | KVError) -> None:
        if not self._done:
            self._done = True
            self._on_end(outcome)


class BatchCall(Call):
    """A part of an explicit batch: some of its operations, all of one partition, in their order."""

    __slots__ = ("_done", "_on_end", "_positions", "_results", "column", "count", "ops")

    def __init__(
        self,
        ops: Sequence[Op],
        positions: Sequence[int],
        results: MutableSequence[Result],
        size: int,
        deadline: float,
        on_end: Callable[[KVError | None], None],
    ) -> None:
        """Write the results into `results` at `positions`, then call `on_end` once, with the failure if any."""
        assert len(ops) == len(positions), "each operation has a place for its result"
        self.ops = ops
        self.count = len(ops)
        self.size = size
        self.column = _column_of(ops)
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

    def resolve(self, results: Results, proofs: Proofs) -> None:
        """See `Call`."""
        for position in self._positions:
            result = next(results)
            if not self._done:
                self._results[position] = read_result(result, proofs[0])
        self._end(None)

    def add_rows(self, keys: list[bytes], values: list[bytes]) -> None:
        """See `Call`."""
        keys.extend([op.key for op in self.ops])
        if self.column is Column.PUTS:
            values.extend([op.value for op in self.ops])  # type: ignore[union-attr]  # they are all puts

    def resolve_puts(self, replies: Sequence[PutReply]) -> None:
        """See `Call`."""
        if not self._done:
            results = self._results
            for position, reply in zip(self._positions, replies, strict=True):
                results[position] = reply
        self._end(None)

    def resolve_gets(self, items: Sequence[Item | None], proofs: Proofs) -> bool:
        """See `Call`."""
        if not self._done:
            for position, item in zip(self._positions, items, strict=False):
                self._results[position] = item
        got = len(items)
        if got < self.count:
            self.ops, self._positions = self.ops[got:], self._positions[got:]
            self.count -= got
            self.size = sum(op_size(op) for op in self.ops)
            return False
        self._end(None)
        return True

    def fail(self, error: KVError, token: OutcomeToken | None = None) -> None:
        """See `Call`; each operation gets a token of its own."""
        if self._done:
            return
        for number, position in enumerate(self._positions):
            own = None if token is None else replace(token, position=token.position + number, count=1)
            self._results[position] = _with_token(fresh(error), own)
        self._end(error)

    def abandon(self) -> None:
        """Note that the caller of the batch does not wait any more."""
        self._done = True

    def _end(self, error: KVError | None) -> None:
        if not self._done:
            self._done = True
            self._on_end(error)


def _column_of(ops: Sequence[Op]) -> Column | None:
    kinds = set(map(type, ops))
    if kinds == {Get}:
        return Column.GETS
    return Column.PUTS if kinds == {Put} and all(map(is_plain_put, ops)) else None


def _with_token(error: KVError, token: OutcomeToken | None) -> KVError:
    if token is not None:
        error.metadata[OUTCOME_KEY] = str(token)
    return error
