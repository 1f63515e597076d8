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
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, TypeAlias, TypeGuard

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from kv.client.columns import Column, bare_kind
from kv.client.operations import (
    OPERATION_OVERHEAD_BYTES,
    evidence_of,
    failure,
    fresh,
    read_get,
    read_result,
    write_op,
)
from kv.client.rows import Rows
from kv.client.types import Evidence, Item, PutReply, Reading, ReadLevel, Result
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

    __slots__ = ("count", "deadline", "size")

    count: int
    """How many operations it adds to a request. A slot, as what is read for each call is: a class's own is far."""
    column: Column | None = None
    """Of what it can be a row, or some."""
    bare: ClassVar[bool] = False
    """Whether it is one row with a `key` and a `future`, and its answer is what the row gives, as it is. The hot path:
    such calls are looked into from outside, all at once, where another call would be asked."""
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

    @property
    def values(self) -> Sequence[bytes]:
        """What it writes as a part of a column of puts: the value of each key."""
        raise AssertionError(f"{type(self).__name__} is no row of a column of puts")

    @abstractmethod
    def add_to(self, operations: Operations) -> None:
        """Append its operations."""

    @abstractmethod
    def resolve(self, results: Results, proofs: Proofs) -> None:
        """Take its `count` results off `results` and answer."""

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
        self.count = 1
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
    bare = True

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        operations.add().get.key = self.key

    def read(self, result: kv_pb2.OperationResult, proofs: Proofs) -> object:
        """See `KeyCall`; it is an `Item` or None."""
        return read_get(result.get, proofs[0])

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
    bare = False

    def read(self, result: kv_pb2.OperationResult, proofs: Proofs) -> Reading:
        """See `KeyCall`."""
        return self.reply(read_get(result.get, proofs[0]), proofs)

    def reply(self, item: Item | None, proofs: Proofs) -> Reading:
        """See `GetCall`."""
        proof = evidence_of(proofs[0], 0 if item is None else item.mod_revision)
        return Reading(item, proof, (proof, *proofs[1:]) if proof.level in _ASKS_SEVERAL else ())


class PutCall(KeyCall):
    """Writes a key."""

    __slots__ = ("value",)
    name = "put"
    column: Column | None = Column.PUTS
    bare = True

    def __init__(self, key: bytes, value: bytes, deadline: float, future: asyncio.Future[Any]) -> None:
        self.key = key
        self.value = value
        self.count = 1
        self.size = OPERATION_OVERHEAD_BYTES + len(key) + len(value)
        self.deadline = deadline
        self.future = future

    @property
    def values(self) -> Sequence[bytes]:
        """See `Call`."""
        return (self.value,)

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        put = operations.add().put
        put.key = self.key
        put.value = self.value

    def read(self, result: kv_pb2.OperationResult, proofs: Proofs) -> PutReply:
        """See `KeyCall`."""
        put = result.put
        return PutReply(put.revision, put.version, proofs[0])

    def resolve_puts(self, replies: Sequence[PutReply]) -> None:
        """See `Call`."""
        future = self.future
        if not future.done():
            future.set_result(replies[0])


class PutIfCall(PutCall):
    """Writes a key on a condition."""

    __slots__ = ("condition",)
    column: Column | None = None
    bare = False

    def __init__(
        self,
        key: bytes,
        value: bytes,
        condition: kv_pb2.Condition,
        deadline: float,
        future: asyncio.Future[Any],
    ) -> None:
        super().__init__(key, value, deadline, future)
        self.condition = condition
        self.size += condition.ByteSize()

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        put = operations.add().put
        put.key = self.key
        put.value = self.value
        put.condition.CopyFrom(self.condition)


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
        self.count = 1
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

    __slots__ = ("_done", "_on_end", "_positions", "_results", "column", "rows")

    def __init__(
        self,
        rows: Rows,
        positions: Sequence[int],
        results: MutableSequence[Result],
        deadline: float,
        on_end: Callable[[BatchCall, KVError | None], None],
    ) -> None:
        """Write the results into `results` at `positions`, then call `on_end` once, with itself and the failure if any."""
        self._take(rows, positions)
        self.deadline = deadline
        self._results = results
        self._on_end = on_end
        self._done = False

    def _take(self, rows: Rows, positions: Sequence[int]) -> None:
        assert len(rows) == len(positions), "each operation has a place for its result"
        self.rows = rows
        self.count = len(rows)
        self.size = rows.size()
        self.column = rows.column
        self._positions = positions

    @property
    def done(self) -> bool:
        """See `Call`."""
        return self._done

    @property
    def keys(self) -> Sequence[bytes]:
        """See `Call`."""
        return self.rows.keys

    @property
    def values(self) -> Sequence[bytes]:
        """See `Call`."""
        return self.rows.values

    def add_to(self, operations: Operations) -> None:
        """See `Call`."""
        for op in self.rows.ops:
            write_op(op, operations.add())

    def resolve(self, results: Results, proofs: Proofs) -> None:
        """See `Call`."""
        for position in self._positions:
            result = next(results)
            if not self._done:
                self._results[position] = read_result(result, proofs[0])
        self._end(None)

    def resolve_puts(self, replies: Sequence[PutReply]) -> None:
        """See `Call`."""
        if not self._done:
            self._write(replies)
        self._end(None)

    def resolve_gets(self, items: Sequence[Item | None], proofs: Proofs) -> bool:
        """See `Call`."""
        if not self._done:
            self._write(items)
        got = len(items)
        if got < self.count:
            self._take(self.rows.after(got), self._positions[got:])
            return False
        self._end(None)
        return True

    def _write(self, results: Sequence[Result]) -> None:
        """Put the results of the first operations where they belong."""
        positions, whole = self._positions, self._results
        if isinstance(positions, range):  # all of the batch is in one partition
            whole[positions.start : positions.start + len(results)] = results
            return
        for position, result in zip(positions, results, strict=False):
            whole[position] = result

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
            self._on_end(self, error)


BareCall: TypeAlias = PutCall | GetCall
"""What a call is that is `bare`."""


def all_bare(calls: Iterable[Call]) -> TypeGuard[Sequence[BareCall]]:
    """Whether all calls are `bare`, and of one class."""
    return bare_kind(calls) is not None


def _with_token(error: KVError, token: OutcomeToken | None) -> KVError:
    if token is not None:
        error.metadata[OUTCOME_KEY] = str(token)
    return error
