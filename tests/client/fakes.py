"""A cluster in memory for the client's tests: nodes that serve `MemoryPartition`s, and fail as told.

`FakeTransport` serves it without a network, for tests in virtual time; `server.py` beside it serves it over gRPC.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from enum import Enum

from kv.client.transport import OnClosed, OnReply
from kv.cluster.map import ClusterMap, NodeInfo, initial_map
from kv.errors import BehindSession, KVError, NoLeader, NotLeader, Unavailable, WrongPartition, to_proto
from kv.ids import GroupId, NodeId
from kv.router.ring import Ring
from kv.v1 import cluster_pb2, kv_pb2
from tests.client.memory import MemoryPartition, rows_of


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

    def flush(self) -> None:
        """What is sent is under way."""

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
