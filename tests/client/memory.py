"""A partition in memory, which keeps keys, sessions and their results.

It follows `kv.v1`'s contract, not the server's code, so that the tests of the client do not depend on the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kv.errors import (
    Conflict,
    InvalidArgument,
    KVError,
    NotAnInteger,
    NotOnAllReplicas,
    OutcomeDecided,
    ResultEvicted,
    SessionExpired,
    to_proto,
)
from kv.ids import GroupId, NodeId
from kv.v1 import kv_pb2


def rows_of(batch: kv_pb2.BatchRequest) -> list[kv_pb2.Operation]:
    """Return the operations of a batch, each row of a column as one of its own."""
    rows: list[kv_pb2.Operation] = []
    for operation in batch.operations:
        puts, gets = operation.put_many, operation.get_many
        if operation.HasField("put_many"):
            for key, value in zip(puts.keys, puts.values, strict=True):
                rows.append(kv_pb2.Operation(put=kv_pb2.PutOperation(key=key, value=value)))
        elif operation.HasField("get_many"):
            rows.extend(kv_pb2.Operation(get=kv_pb2.GetOperation(key=key)) for key in gets.keys)
        else:
            rows.append(operation)
    return rows


def _results_by_row(response: kv_pb2.BatchResponse) -> list[kv_pb2.OperationResult]:
    results: list[kv_pb2.OperationResult] = []
    for result in response.results:
        many = result.put_many
        rows = [kv_pb2.PutResult(revision=many.revision, version=version) for version in many.versions]
        results.extend([kv_pb2.OperationResult(put=row) for row in rows] or [result])
    return results


@dataclass
class MemorySession:
    """A session's results by sequence."""

    acknowledged: int = 0
    results: dict[int, kv_pb2.BatchResponse] = field(default_factory=dict)
    fenced: set[int] = field(default_factory=set)


@dataclass
class MemoryPartition:
    """One partition: keys, sessions and a log index."""

    id: GroupId
    index: int = 2
    data: dict[bytes, kv_pb2.KeyValue] = field(default_factory=dict)
    sessions: dict[int, MemorySession] = field(default_factory=dict)
    applied: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Every put in the order of its application: (key, value)."""
    batch_sizes: list[int] = field(default_factory=list)
    """Operations of each request that was applied."""
    get_rows_max: int = 4096
    """More rows of a `GetManyResult` than that are left out: its answer is full."""
    lagging: set[NodeId] = field(default_factory=set)
    """Replicas that hold writes at level ALL back."""

    def serve(self, batch: kv_pb2.BatchRequest, node: NodeId) -> kv_pb2.BatchResponse | KVError:
        """Apply or read the batch, once for each (session, sequence)."""
        session = None
        identity = batch.request_id
        if identity.session:
            session = self.sessions.get(identity.session)
            if session is None:
                return SessionExpired(f"there is no session {identity.session}")
            if identity.sequence in session.fenced:
                return OutcomeDecided(f"sequence {identity.sequence} was declared not applied")
            if identity.sequence in session.results:
                return self._promised(batch, session.results[identity.sequence])
            if identity.sequence <= session.acknowledged:
                return ResultEvicted(f"sequence {identity.sequence} was acknowledged")
            session.acknowledged = max(session.acknowledged, identity.acknowledged)
            for old in [one for one in session.results if one <= session.acknowledged]:
                del session.results[old]
        self.index += 1
        self.batch_sizes.append(len(rows_of(batch)))
        response = kv_pb2.BatchResponse(results=[self._apply(one) for one in batch.operations])
        response.evidence.append(self.evidence(batch, node))
        if session is not None:
            session.results[identity.sequence] = response
        return self._promised(batch, response)

    def evidence(self, batch: kv_pb2.BatchRequest, node: NodeId) -> kv_pb2.Evidence:
        """Return what a reply of `node` says; levels that may be old have an age."""
        level = batch.level or kv_pb2.READ_LEVEL_LINEARIZABLE
        evidence = kv_pb2.Evidence(
            partition=self.id, map_epoch=1, term=1, index=self.index, node=node, level=level
        )
        rows = rows_of(batch)
        found = [self.data[op.get.key].mod_revision for op in rows if op.get.key in self.data]
        is_read = all(op.HasField("get") for op in rows)
        evidence.revision = max(found, default=0) if is_read else self.index
        if level not in (kv_pb2.READ_LEVEL_LINEARIZABLE, kv_pb2.READ_LEVEL_LEASE):
            evidence.age_ms = 7
        return evidence

    def _promised(
        self, batch: kv_pb2.BatchRequest, response: kv_pb2.BatchResponse
    ) -> kv_pb2.BatchResponse | KVError:
        """Return the response, unless it was to wait for a replica that lags."""
        if batch.write_level != kv_pb2.WRITE_LEVEL_ALL or not self.lagging:
            return response
        metadata = {"revision": response.evidence[0].index, "missing": ",".join(sorted(self.lagging))}
        return NotOnAllReplicas("applied, but not everywhere", metadata=metadata)

    def _outcome(self, asked: kv_pb2.OutcomeOperation) -> kv_pb2.OutcomeResult:
        session = self.sessions.get(asked.session)
        if session is None or asked.sequence <= session.acknowledged:
            return kv_pb2.OutcomeResult(outcome=kv_pb2.WRITE_OUTCOME_UNKNOWN)
        if asked.sequence in session.results:
            kept = _results_by_row(session.results[asked.sequence])
            return kv_pb2.OutcomeResult(outcome=kv_pb2.WRITE_OUTCOME_APPLIED, results=kept)
        session.fenced.add(asked.sequence)
        return kv_pb2.OutcomeResult(outcome=kv_pb2.WRITE_OUTCOME_NOT_APPLIED)

    def _apply(self, operation: kv_pb2.Operation) -> kv_pb2.OperationResult:
        kind = operation.WhichOneof("operation") or ""
        serve: dict[str, Callable[[Any], Any]] = {
            "get": lambda get: kv_pb2.GetResult(item=self.data.get(get.key)),
            "put": self._put,
            "delete": self._delete,
            "open_session": self._open,
            "txn": self._txn,
            "increment": self._increment,
            "append": self._append,
            "outcome": self._outcome,
            "put_many": self._put_many,
            "get_many": self._get_many,
        }
        try:
            if kind not in serve:
                raise InvalidArgument(f"no such operation here: {kind}")
            return kv_pb2.OperationResult(**{kind: serve[kind](getattr(operation, kind))})
        except KVError as error:
            return kv_pb2.OperationResult(error=to_proto(error))

    def _open(self, _: kv_pb2.OpenSessionOperation) -> kv_pb2.OpenSessionResult:
        self.sessions[self.index << 16] = MemorySession()
        return kv_pb2.OpenSessionResult(session=self.index << 16, ttl_ms=1000)

    def _check(self, key: bytes, condition: kv_pb2.Condition) -> None:
        item = self.data.get(key)
        match condition.WhichOneof("test"):
            case "absent":
                holds = item is None
            case "present":
                holds = item is not None
            case "revision":
                holds = item is not None and item.mod_revision == condition.revision
            case "value":
                holds = item is not None and item.value == condition.value
            case _:
                holds = True
        if not holds:
            revision = item.mod_revision if item is not None else 0
            raise Conflict("the condition does not hold", metadata={"revision": revision})

    def _put(self, put: kv_pb2.PutOperation) -> kv_pb2.PutResult:
        self._check(put.key, put.condition)
        self.applied.append((put.key, put.value))
        old = self.data.get(put.key)
        item = kv_pb2.KeyValue(
            key=put.key,
            value=put.value,
            create_revision=old.create_revision if old else self.index,
            mod_revision=self.index,
            version=old.version + 1 if old else 1,
        )
        self.data[put.key] = item
        previous = old if put.return_previous else None
        return kv_pb2.PutResult(revision=self.index, version=item.version, previous=previous)

    def _put_many(self, many: kv_pb2.PutManyOperation) -> kv_pb2.PutManyResult:
        rows = rows_of(kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put_many=many)]))
        return kv_pb2.PutManyResult(
            revision=self.index, versions=[self._put(row.put).version for row in rows]
        )

    def _get_many(self, many: kv_pb2.GetManyOperation) -> kv_pb2.GetManyResult:
        result = kv_pb2.GetManyResult()
        for key in many.keys[: self.get_rows_max]:
            item = self.data.get(key, kv_pb2.KeyValue())
            result.values.append(item.value)
            result.create_revisions.append(item.create_revision)
            result.mod_revisions.append(item.mod_revision)
            result.versions.append(item.version)
        return result

    def _delete(self, delete: kv_pb2.DeleteOperation) -> kv_pb2.DeleteResult:
        self._check(delete.key, delete.condition)
        old = self.data.pop(delete.key, None)
        previous = old if delete.return_previous else None
        return kv_pb2.DeleteResult(deleted=old is not None, revision=self.index, previous=previous)

    def _increment(self, increment: kv_pb2.IncrementOperation) -> kv_pb2.IncrementResult:
        self._check(increment.key, increment.condition)
        old = self.data.get(increment.key)
        if old is not None and not old.value.lstrip(b"-").isdigit():
            raise NotAnInteger("the value is no integer")
        total = int(old.value if old else 0) + increment.delta
        put = self._put(kv_pb2.PutOperation(key=increment.key, value=b"%d" % total))
        return kv_pb2.IncrementResult(value=total, revision=put.revision, version=put.version)

    def _append(self, append: kv_pb2.AppendOperation) -> kv_pb2.AppendResult:
        self._check(append.key, append.condition)
        old = self.data.get(append.key)
        value = (old.value if old else b"") + append.value
        put = self._put(kv_pb2.PutOperation(key=append.key, value=value))
        return kv_pb2.AppendResult(length=len(value), revision=put.revision, version=put.version)

    def _txn(self, txn: kv_pb2.TxnOperation) -> kv_pb2.TxnResult:
        holds = all(self._compare(one) for one in txn.compare)
        operations = txn.then_operations if holds else txn.else_operations
        results = [self._apply(one) for one in operations]
        return kv_pb2.TxnResult(succeeded=holds, revision=self.index, results=results)

    def _compare(self, compare: kv_pb2.Compare) -> bool:
        assert compare.comparator == kv_pb2.COMPARATOR_EQUAL, "the fake knows equality only"
        item = self.data.get(compare.key)
        match compare.WhichOneof("target"):
            case "exists":
                return (item is not None) == compare.exists
            case "value":
                return item is not None and item.value == compare.value
            case _:
                return (item.mod_revision if item else 0) == compare.mod_revision
