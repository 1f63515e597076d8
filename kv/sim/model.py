"""The independent model of one partition: what its committed log means, in plain dictionaries. Pure.

Here lives a second reading of the log format and of the rules for sessions, written apart from
`kv.partition` on purpose: it shares no code with what it checks but the generated messages. It keeps
the whole history of each key, so that a read at any index can be judged later.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeAlias

from kv.internal.v1 import log_pb2
from kv.v1 import kv_pb2

FIRST_INDEX = 3
"""A group starts from an empty snapshot at index 2."""
VALUE_BYTES_MAX = 1 << 20
INTEGER = re.compile(rb"-?(0|[1-9][0-9]{0,18})")
"""What an increment takes for a number."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a key is from `index` on; `value` is None if it does not exist."""

    index: int
    value: bytes | None
    created: int = 0
    version: int = 0


Conditional: TypeAlias = (
    kv_pb2.PutOperation | kv_pb2.DeleteOperation | kv_pb2.IncrementOperation | kv_pb2.AppendOperation
)

NOTHING = Version(0, None)
_index_of = attrgetter("index")


@dataclass(slots=True)
class _Session:
    used_ms: int
    acknowledged: int = 0
    applied: set[int] = field(default_factory=set)
    fenced: set[int] = field(default_factory=set)
    """Sequences that an outcome query has declared not applied."""


@dataclass(frozen=True, slots=True)
class Written:
    """Where a value that is written once in a run was written."""

    index: int
    key: bytes
    version: int


class Impossible(Exception):
    """An operation that cannot be done: its transaction is not, as a whole."""


class DoublyApplied(Exception):
    """A value that a client wrote once is in the state's history twice."""


class ForbiddenApplied(Exception):
    """A value whose write had failed definitely is in the state's history."""


class Model:
    """One partition, as far as its log is committed."""

    def __init__(self, session_ttl_ms: int, sessions_max: int, forbidden: Mapping[bytes, str]) -> None:
        """`forbidden`: values that must never be written any more, with the reason; it grows."""
        self._forbidden = forbidden
        self._session_ttl_ms, self._sessions_max = session_ttl_ms, sessions_max
        self.index = FIRST_INDEX - 1
        self.history: dict[bytes, list[Version]] = {}
        self.written: dict[bytes, Written] = {}
        self.deletes: dict[tuple[int, bytes], list[bool]] = {}
        self.appended: dict[bytes, Written] = {}
        """By the bytes that an append added, which each append of a run has of its own."""
        self.operations = self.repetitions = self.expired = self.refused = 0
        self._time_ms = 0
        self._undo: list[Callable[[], object]] | None = None
        """How to take back what the present transaction did; None outside of one."""
        self._sessions: OrderedDict[int, _Session] = OrderedDict()

    @property
    def sessions(self) -> int:
        """Open sessions."""
        return len(self._sessions)

    # ------------------------------------------------------------ questions

    def at(self, key: bytes, index: int) -> Version:
        """The key after entry `index`."""
        versions = self.history.get(key)
        if not versions:
            return NOTHING
        position = bisect_right(versions, index, key=_index_of)
        return versions[position - 1] if position else NOTHING

    def between(self, key: bytes, low: int, high: int) -> list[Version]:
        """All that the key was at some moment after entry `low` and up to the end of entry `high`."""
        versions = self.history.get(key, [])
        start = bisect_right(versions, low, key=_index_of)
        end = bisect_right(versions, high, key=_index_of)
        return [versions[start - 1] if start else NOTHING, *versions[start:end]]

    def content(self, index: int) -> dict[bytes, Version]:
        """All keys that exist after entry `index`."""
        found = {key: self.at(key, index) for key in self.history}
        return {key: version for key, version in found.items() if version.value is not None}

    # ------------------------------------------------------------ the log

    def apply(self, index: int, data: bytes) -> None:
        """Take the next committed entry. Raises `DoublyApplied` or `ForbiddenApplied`."""
        assert index == self.index + 1, "the committed log has no gaps"
        self.index = index
        if data == b"\x01":
            self._expire()
            return
        command = log_pb2.Command.FromString(data[1:])
        self._time_ms = max(self._time_ms, command.time_ms)
        self._expire()
        for ordinal, raw in enumerate(command.batches):
            self._batch(kv_pb2.BatchRequest.FromString(raw), (index << 16) + ordinal)

    def _expire(self) -> None:
        while self._sessions:
            oldest, session = next(iter(self._sessions.items()))
            if self._time_ms - session.used_ms < self._session_ttl_ms:
                return
            del self._sessions[oldest]

    def _batch(self, batch: kv_pb2.BatchRequest, stamp: int) -> None:
        if batch.request_id.session and not self._is_new(batch.request_id):
            return
        for operation in batch.operations:
            self._operation(operation, stamp)

    def _is_new(self, request: kv_pb2.RequestId) -> bool:
        session = self._sessions.get(request.session)
        if session is None:
            self.expired += 1
            return False
        self._sessions.move_to_end(request.session)
        session.used_ms = self._time_ms
        session.acknowledged = max(session.acknowledged, request.acknowledged)
        if request.sequence in session.applied or request.sequence <= session.acknowledged:
            self.repetitions += 1
            return False
        if request.sequence in session.fenced:
            self.refused += 1
            return False
        session.applied.add(request.sequence)
        return True

    def _operation(self, operation: kv_pb2.Operation, stamp: int) -> None:
        self.operations += 1
        match operation.WhichOneof("operation"):
            case "open_session":
                self._sessions[stamp] = _Session(self._time_ms)
                while len(self._sessions) > self._sessions_max:
                    self._sessions.popitem(last=False)
            case "outcome":
                self._outcome(operation.outcome)
            case "txn":
                with suppress(Impossible):
                    self._txn(operation.txn)
            case "put_many":
                self.operations += len(operation.put_many.keys) - 1
                for key, value in zip(operation.put_many.keys, operation.put_many.values, strict=True):
                    self._put(key, value)
            case _:
                with suppress(Impossible):
                    self._write(operation)

    def _write(self, operation: kv_pb2.Operation) -> None:
        """Any operation on one key. Raises `Impossible`, having changed nothing."""
        match operation.WhichOneof("operation"):
            case "put":
                if self._allows(operation.put.key, operation.put):
                    self._put(operation.put.key, operation.put.value)
            case "delete":
                if self._allows(operation.delete.key, operation.delete):
                    self._delete(operation.delete.key)
            case "increment":
                if self._allows(operation.increment.key, operation.increment):
                    self._increment(operation.increment.key, operation.increment.delta)
            case "append":
                if self._allows(operation.append.key, operation.append):
                    self._append(operation.append.key, operation.append.value)
            case "get":
                pass
            case other:
                raise AssertionError(f"the log holds an operation {other}")

    def _outcome(self, asked: kv_pb2.OutcomeOperation) -> None:
        """Whoever asks what became of a request decides it: what was not applied never will be."""
        session = self._sessions.get(asked.session)
        if session is None or asked.sequence in session.applied or asked.sequence <= session.acknowledged:
            return
        session.fenced.add(asked.sequence)

    def _now(self, key: bytes) -> Version:
        versions = self.history.get(key)
        return versions[-1] if versions else NOTHING

    def _allows(self, key: bytes, write: Conditional) -> bool:
        if not write.HasField("condition"):
            return True
        now, condition = self._now(key), write.condition
        match condition.WhichOneof("test"):
            case "absent":
                return now.value is None
            case "present":
                return now.value is not None
            case "revision":
                return condition.revision == (0 if now.value is None else now.index)
            case "value":
                return now.value is not None and now.value == condition.value
            case other:
                raise AssertionError(f"the log holds a condition {other}")

    def _put(self, key: bytes, value: bytes) -> None:
        self._once(self.written, value, key, self._store(key, value))

    def _store(self, key: bytes, value: bytes) -> int:
        """Give the key a value; return its version."""
        now = self._now(key)
        created, count = (self.index, 1) if now.value is None else (now.created, now.version + 1)
        self._add(key, Version(self.index, value, created, count))
        return count

    def _add(self, key: bytes, version: Version) -> None:
        versions = self.history.setdefault(key, [])
        versions.append(version)
        if self._undo is not None:
            self._undo.append(versions.pop)

    def _once(self, seen: dict[bytes, Written], what: bytes, key: bytes, version: int) -> None:
        """Note a value, or an appended piece, that is written once in a run."""
        before = seen.get(what)
        if before is not None:
            raise DoublyApplied(
                f"{what!r} was written to {before.key!r} at {before.index} and to {key!r} at {self.index}"
            )
        seen[what] = Written(self.index, key, version)
        if self._undo is not None:
            self._undo.append(lambda: seen.pop(what))
        if what in self._forbidden:
            raise ForbiddenApplied(f"{what!r} was written at {self.index}; {self._forbidden[what]}")

    def _increment(self, key: bytes, delta: int) -> None:
        now = self._now(key).value
        if now is not None and not INTEGER.fullmatch(now):
            raise Impossible
        total = int(now or b"0") + delta
        if not -(1 << 63) <= int(now or b"0") < 1 << 63 or not -(1 << 63) <= total < 1 << 63:
            raise Impossible
        self._store(key, b"%d" % total)

    def _append(self, key: bytes, piece: bytes) -> None:
        whole = (self._now(key).value or b"") + piece
        if len(whole) > VALUE_BYTES_MAX:
            raise Impossible
        self._once(self.appended, piece, key, self._store(key, whole))

    def _delete(self, key: bytes) -> None:
        existed = self._now(key).value is not None
        told = self.deletes.setdefault((self.index, key), [])
        told.append(existed)
        if self._undo is not None:
            self._undo.append(told.pop)
        if existed:
            self._add(key, Version(self.index, None))

    def _txn(self, txn: kv_pb2.TxnOperation) -> None:
        """All or nothing: what one operation makes impossible is undone for all."""
        self._undo = []
        try:
            self._branch(txn)
        except Impossible:
            for step in reversed(self._undo):
                step()
            raise
        finally:
            self._undo = None

    def _branch(self, txn: kv_pb2.TxnOperation) -> None:
        holds = all(self._compare(compare) for compare in txn.compare)
        for operation in txn.then_operations if holds else txn.else_operations:
            self.operations += 1
            if operation.WhichOneof("operation") == "txn":
                self._branch(operation.txn)
            else:
                self._write(operation)

    def _compare(self, compare: kv_pb2.Compare) -> bool:
        now = self._now(compare.key)
        exists = now.value is not None
        target = compare.WhichOneof("target")
        has: int | bytes | bool | None = {
            "value": now.value,
            "mod_revision": now.index if exists else 0,
            "create_revision": now.created if exists else 0,
            "version": now.version if exists else 0,
            "exists": exists,
        }[str(target)]
        named = getattr(compare, str(target))
        equal = bool(has == named)
        match compare.comparator:
            case kv_pb2.COMPARATOR_EQUAL | kv_pb2.COMPARATOR_UNSPECIFIED:
                return equal
            case kv_pb2.COMPARATOR_NOT_EQUAL:
                return not equal
            case kv_pb2.COMPARATOR_LESS:
                return has is not None and bool(has < named)
            case kv_pb2.COMPARATOR_GREATER:
                return has is not None and bool(has > named)
            case other:
                raise AssertionError(f"the log holds a comparator {other}")
