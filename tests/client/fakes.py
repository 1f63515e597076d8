"""A cluster in memory for the client's tests: partitions that keep sessions, nodes that fail as told.

`MemoryPartition` follows `kv.v1`'s contract, not the server's code, so that the tests of the client
do not depend on the server. `FakeTransport` serves it without a network, for tests in virtual time;
`server.py` beside it serves it over gRPC.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from kv.client.transport import OnClosed, OnReply
from kv.cluster.map import ClusterMap, NodeInfo, initial_map
from kv.errors import (
    BehindSession,
    Conflict,
    InvalidArgument,
    KVError,
    NoLeader,
    NotAnInteger,
    NotLeader,
    NotOnAllReplicas,
    OutcomeDecided,
    ResultEvicted,
    SessionExpired,
    Unavailable,
    WrongPartition,
    to_proto,
)
from kv.ids import GroupId, NodeId
from kv.router.ring import Ring
from kv.v1 import cluster_pb2, kv_pb2

_T = TypeVar("_T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when nothing is ready, and then at once."""

    def __init__(self) -> None:
        self._now = 1000.0
        selector = selectors.DefaultSelector()
        real_select = selector.select

        def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            assert timeout is not None, "the test waits for something that never happens"
            self._now += max(0.0, timeout)
            return real_select(0)

        selector.select = select  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now


def run_virtual(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run `main` in virtual time; an exception in a callback fails it too."""
    lost: list[BaseException] = []

    def keep(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        lost.append(context.get("exception") or AssertionError(context["message"]))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(keep)
        result = runner.run(main())
    if lost:
        raise lost[0]
    return result


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


class Fault(Enum):
    """What a node does with a request instead of serving it well."""

    CUT_BEFORE = "the stream breaks, nothing applied"
    CUT_AFTER = "applied, then the stream breaks: the reply is lost"
    SILENT_BEFORE = "nothing happens"
    SILENT_AFTER = "applied, but no reply comes"
    LATE = "the stream breaks, and the request is applied later"


_SEVERAL = (kv_pb2.READ_LEVEL_QUORUM, kv_pb2.READ_LEVEL_ALL)
_ANY_REPLICA = (
    *_SEVERAL,
    kv_pb2.READ_LEVEL_STALE,
    kv_pb2.READ_LEVEL_SESSION,
    kv_pb2.READ_LEVEL_BOUNDED,
)

FaultRule = Callable[[NodeId, kv_pb2.PipelinedBatch], "Fault | KVError | None"]


class FakeCluster:
    """Three nodes in memory. Every node forwards unless `forwards` is false."""

    def __init__(self, partitions: int = 4, addresses: dict[NodeId, str] | None = None) -> None:
        self.addresses = addresses or {f"n{i}": f"n{i}:7001" for i in (1, 2, 3)}
        self.map: ClusterMap = initial_map(
            "test",
            [NodeInfo(node, address) for node, address in self.addresses.items()],
            partitions=partitions,
            replication_factor=min(3, len(self.addresses)),
            virtual_nodes=16,
            load_factor=1.25,
        )
        self.partitions = {part.id: MemoryPartition(part.id) for part in self.map.partitions}
        self.leaders: dict[GroupId, NodeId | None] = {
            part.id: part.replicas[0] for part in self.map.partitions
        }
        self.forwards = True
        self.down: set[NodeId] = set()
        self.rule: FaultRule = lambda _node, _request: None
        self.requests: list[tuple[NodeId, kv_pb2.PipelinedBatch]] = []
        """Every request that reached a node."""
        self.scans: list[kv_pb2.ScanRequest] = []
        """Every scan that reached a node."""
        self.messages = 0
        """Messages that carried them, where there is a wire."""

    def node_at(self, address: str) -> NodeId:
        """Return who listens there."""
        return next(node for node, at in self.addresses.items() if at == address)

    def serve(self, node: NodeId, request: kv_pb2.PipelinedBatch) -> kv_pb2.PipelinedReply:
        """Serve the request at the node, without faults."""
        outcome = self._outcome(node, request)
        if isinstance(outcome, KVError):
            return kv_pb2.PipelinedReply(id=request.id, error=to_proto(outcome))
        return kv_pb2.PipelinedReply(id=request.id, batch=outcome)

    def _outcome(self, node: NodeId, request: kv_pb2.PipelinedBatch) -> kv_pb2.BatchResponse | KVError:
        partition = self.partitions[request.partition]
        ring = Ring(self.map.partitions)
        for operation in rows_of(request.batch):
            arm = getattr(operation, operation.WhichOneof("operation") or "get")
            key = getattr(arm, "key", b"")
            if key and ring.partition_of(key) != request.partition:
                return WrongPartition("not mine", metadata={"map_epoch": self.map.epoch})
        read = request.batch.read
        local = read.node == node or read.preference == kv_pb2.REPLICA_PREFERENCE_LOCAL
        is_read = not request.batch.HasField("request_id")
        if is_read and (local or request.batch.level in _ANY_REPLICA):
            return self._serve_here(partition, node, request.batch)
        return self._serve_at_leader(partition, node, request.batch)

    def _serve_here(
        self, partition: MemoryPartition, node: NodeId, batch: kv_pb2.BatchRequest
    ) -> kv_pb2.BatchResponse | KVError:
        if any(after.index > partition.index for after in batch.read.after):
            return BehindSession("behind", metadata={"applied_index": partition.index})
        response = partition.serve(batch, node)
        if batch.level in _SEVERAL and isinstance(response, kv_pb2.BatchResponse):
            response.evidence.extend(
                partition.evidence(batch, other) for other in self.addresses if other != node
            )
        return response

    def _serve_at_leader(
        self, partition: MemoryPartition, node: NodeId, batch: kv_pb2.BatchRequest
    ) -> kv_pb2.BatchResponse | KVError:
        leader = self.leaders[partition.id]
        if leader is None or leader in self.down:
            return NoLeader("no leader", metadata={"partition": partition.id})
        if leader != node and not self.forwards:
            return NotLeader("not me", metadata={"leader": leader, "partition": partition.id})
        return partition.serve(batch, leader)

    def scan(self, request: kv_pb2.ScanRequest) -> list[kv_pb2.ScanResponse]:
        """Return the pages of a scan, two items each, with the evidence of every partition."""
        self.scans.append(request)
        batch = kv_pb2.BatchRequest(level=request.level)
        proofs = [part.evidence(batch, "n1") for part in self.partitions.values()]
        items = sorted(
            (item for part in self.partitions.values() for item in part.data.values()), key=lambda i: i.key
        )
        wanted = [
            item
            for item in items
            if item.key >= request.start
            and item.key.startswith(request.prefix)
            and (not request.end or item.key < request.end)
        ]
        if request.limit:
            wanted = wanted[: request.limit]
        return [
            kv_pb2.ScanResponse(items=wanted[at : at + 2], evidence=proofs)
            for at in range(0, max(1, len(wanted)), 2)
        ]


class FakeStream:
    """A stream to one node, without a network."""

    def __init__(
        self, transport: FakeTransport, node: NodeId, on_reply: OnReply, on_closed: OnClosed
    ) -> None:
        self._transport = transport
        self._node = node
        self._on_reply = on_reply
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._unsent: dict[int, bytes] = {}
        self._on_way: deque[int] = deque()  # a stream keeps its order, timers of one moment do not
        if node in transport.cluster.down:
            self._loop.call_later(0.01, self._cut)

    def send(self, request_id: int, raw: bytes) -> None:
        """Let the request arrive one millisecond later."""
        self._unsent[request_id] = raw
        if self._node not in self._transport.black_holes:
            self._on_way.append(request_id)
            self._loop.call_later(0.001, self._arrive)

    def withdraw(self, request_id: int) -> bool:
        """Take back what has not arrived at the fake network."""
        return self._unsent.pop(request_id, None) is not None

    def close(self) -> None:
        """End the stream."""
        self._open = False

    def _cut(self) -> None:
        if self._open:
            self._open = False
            self._on_closed(Unavailable("the stream broke"), list(self._unsent))

    def _arrive(self) -> None:
        raw = self._unsent.pop(self._on_way.popleft(), None)
        if raw is None or not self._open:
            return
        cluster = self._transport.cluster
        if self._node in cluster.down:
            self._cut()
            return
        [request] = kv_pb2.PipelineRequest.FromString(raw).batches
        cluster.requests.append((self._node, request))
        fault = cluster.rule(self._node, request)
        if fault is None:
            self._reply(cluster.serve(self._node, request))
        elif isinstance(fault, KVError):
            self._reply(kv_pb2.PipelinedReply(id=request.id, error=to_proto(fault)))
        else:
            self._suffer(fault, request)

    def _suffer(self, fault: Fault, request: kv_pb2.PipelinedBatch) -> None:
        cluster = self._transport.cluster
        if fault in {Fault.CUT_AFTER, Fault.SILENT_AFTER}:
            cluster.serve(self._node, request)
        if fault is Fault.LATE:
            self._loop.call_later(self._transport.late_s(), cluster.serve, self._node, request)
        if fault in {Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.LATE}:
            self._cut()

    def _reply(self, reply: kv_pb2.PipelinedReply) -> None:
        def deliver() -> None:
            if self._open:
                self._on_reply(kv_pb2.PipelineResponse(replies=[reply]))

        self._loop.call_later(0.001 + self._transport.delays_s.get(self._node, 0.0), deliver)


class FakeTransport:
    """`kv.client.transport.Transport` over a `FakeCluster`."""

    def __init__(self, cluster: FakeCluster, late_s: Callable[[], float] = lambda: 0.5) -> None:
        self.cluster = cluster
        self.delays_s: dict[NodeId, float] = {}
        """How much longer than the others a node takes to reply."""
        self.late_s = late_s
        self.black_holes: set[NodeId] = set()
        """Nodes to which a stream never connects."""
        self.scan_cut_after: int | None = None
        """A scan breaks after so many pages."""
        self.maps_asked = 0
        self.closed = False

    def open(self, address: str, on_reply: OnReply, on_closed: OnClosed) -> FakeStream:
        """Open a stream."""
        return FakeStream(self, self.cluster.node_at(address), on_reply, on_closed)

    async def get_map(self, address: str, timeout_s: float) -> cluster_pb2.GetMapResponse:
        """Return the cluster's map."""
        await self._reach(address)
        self.maps_asked += 1
        return cluster_pb2.GetMapResponse(map=self.cluster.map.to_proto())

    async def get_status(self, address: str, timeout_s: float) -> cluster_pb2.GetStatusResponse:
        """Return a status that names the node."""
        await self._reach(address)
        return cluster_pb2.GetStatusResponse(
            status=cluster_pb2.NodeStatus(id=self.cluster.node_at(address), cluster="test")
        )

    async def scan(
        self, address: str, request: kv_pb2.ScanRequest, timeout_s: float
    ) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        """Yield the pages of a scan, breaking as told."""
        await self._reach(address)
        for number, page in enumerate(self.cluster.scan(request)):
            if number == self.scan_cut_after:
                raise Unavailable("the scan broke")
            await asyncio.sleep(0.001)
            yield page

    async def close(self) -> None:
        """Note it."""
        self.closed = True

    async def _reach(self, address: str) -> None:
        await asyncio.sleep(0.001)
        node = self.cluster.node_at(address)
        if node in self.cluster.down or node in self.black_holes:
            raise Unavailable(f"{address} cannot be reached")
