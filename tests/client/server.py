"""A `FakeCluster` over real gRPC: one server for each node, on loopback ports that the system chooses."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from kv.direct import METADATA_KEY, PREFACE, TOKEN_BYTES, Offer
from kv.errors import KVError, Unavailable, from_proto, to_grpc, to_proto
from kv.frames import EMPTY, FrameReader, frame_of
from kv.ids import NodeId
from kv.router.ring import Ring
from kv.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc
from tests.client.fakes import FakeCluster, Fault

_SERVER_OPTIONS = (
    # The client's keepalive pings of an idle stream are allowed, as the nodes allow them.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)


async def abort(error: KVError, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """End a call with `error`."""
    code, details, trailing = to_grpc(error)
    status = next(one for one in grpc.StatusCode if one.value[0] == code)
    await context.abort(status, details, trailing)


class FakeNode(kv_pb2_grpc.KVServiceServicer, cluster_pb2_grpc.ClusterServiceServicer):
    """One node of the cluster."""

    def __init__(self, cluster: FakeCluster, node: NodeId) -> None:
        self.cluster = cluster
        self.node = node
        self.direct: FakeDirect | None = None

    async def Pipeline(  # noqa: N802  # the service's name
        self,
        request_iterator: AsyncIterator[kv_pb2.PipelineRequest],
        context: grpc.aio.ServicerContext[kv_pb2.PipelineRequest, kv_pb2.PipelineResponse],
    ) -> AsyncIterator[kv_pb2.PipelineResponse]:
        """Answer each message in order, suffering the cluster's faults."""
        if self.direct is not None:
            await context.send_initial_metadata(((METADATA_KEY, self.direct.offer.encode()),))
        async for message in request_iterator:
            self.cluster.messages += 1
            response = kv_pb2.PipelineResponse()
            for request in message.batches:
                self.cluster.requests.append((self.node, request))
                fault = self.cluster.rule(self.node, request)
                if fault is None:
                    response.replies.append(self.cluster.serve(self.node, request))
                elif isinstance(fault, KVError):
                    response.replies.add(id=request.id, error=to_proto(fault))
                else:
                    await self._suffer(fault, request, context)
            if response.replies:
                yield response

    async def _suffer(
        self,
        fault: Fault,
        request: kv_pb2.PipelinedBatch,
        context: grpc.aio.ServicerContext[kv_pb2.PipelineRequest, kv_pb2.PipelineResponse],
    ) -> None:
        if fault in {Fault.CUT_AFTER, Fault.SILENT_AFTER}:
            self.cluster.serve(self.node, request)
        if fault in {Fault.CUT_AFTER, Fault.CUT_BEFORE}:
            await abort(Unavailable("the node stops"), context)

    async def Scan(  # noqa: N802
        self,
        request: kv_pb2.ScanRequest,
        context: grpc.aio.ServicerContext[kv_pb2.ScanRequest, kv_pb2.ScanResponse],
    ) -> AsyncIterator[kv_pb2.ScanResponse]:
        """Stream the pages."""
        for page in self.cluster.scan(request):
            yield page

    async def Batch(  # noqa: N802
        self,
        request: kv_pb2.BatchRequest,
        context: grpc.aio.ServicerContext[kv_pb2.BatchRequest, kv_pb2.BatchResponse],
    ) -> kv_pb2.BatchResponse:
        """Serve a batch of one partition, with a trace of two steps if it is asked for."""
        [operation] = request.operations
        key = operation.put.key or operation.get.key
        partition = Ring(self.cluster.map.partitions).partition_of(key)
        reply = self.cluster.serve(self.node, kv_pb2.PipelinedBatch(id=1, batch=request, partition=partition))
        if reply.HasField("error"):
            await abort(from_proto(reply.error), context)
        if request.trace:
            served = reply.batch.evidence[0].node
            reply.batch.trace.add(component="leader", node=served, step="confirmed", at_us=300, detail="n3")
            reply.batch.trace.add(component="router", node=self.node, step="received", at_us=0)
        return reply.batch

    async def GetMap(  # noqa: N802
        self,
        request: cluster_pb2.GetMapRequest,
        context: grpc.aio.ServicerContext[cluster_pb2.GetMapRequest, cluster_pb2.GetMapResponse],
    ) -> cluster_pb2.GetMapResponse:
        """Return the map."""
        return cluster_pb2.GetMapResponse(map=self.cluster.map.to_proto())

    async def GetStatus(  # noqa: N802
        self,
        request: cluster_pb2.GetStatusRequest,
        context: grpc.aio.ServicerContext[cluster_pb2.GetStatusRequest, cluster_pb2.GetStatusResponse],
    ) -> cluster_pb2.GetStatusResponse:
        """Return the node's name."""
        return cluster_pb2.GetStatusResponse(status=cluster_pb2.NodeStatus(id=self.node))


class FakeDirect:
    """The direct way of one node: it serves the cluster, or does to each connection what `rude` says."""

    def __init__(self, node: FakeNode, rude: bytes | None = None) -> None:
        """`rude`: what is said to each connection in place of letting it in; nothing follows."""
        self.node = node
        self.rude = rude
        self.connections = self.messages = 0
        self.ended = asyncio.Event()
        """Whether a connection has ended."""
        self.offer = Offer(1, secrets.token_bytes(TOKEN_BYTES))
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen at a port that the system chooses, and offer it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.offer = Offer(self._server.sockets[0].getsockname()[1], self.offer.token)
        self.node.direct = self

    async def stop(self) -> None:
        """Listen no more; the offer stands."""
        assert self._server is not None, "it was started"
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        frames = FrameReader(PREFACE, 16 << 20)
        try:
            while data := await reader.read(1 << 16):
                if not all(self._take(payload, writer) for payload in frames.feed(data)):
                    break
        finally:
            self.ended.set()
            writer.close()

    def _take(self, payload: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer a message; return False to end the connection."""
        if payload == self.offer.token:
            writer.write(PREFACE + EMPTY if self.rude is None else self.rude)
            return True
        self.messages += 1
        cluster = self.node.cluster
        for request in kv_pb2.PipelineRequest.FromString(payload).batches:
            cluster.requests.append((self.node.node, request))
            fault = cluster.rule(self.node.node, request)
            if fault is Fault.CUT_AFTER:
                cluster.serve(self.node.node, request)
            if fault is not None:
                return False
            reply = cluster.serve(self.node.node, request)
            writer.write(frame_of(kv_pb2.PipelineResponse(replies=[reply]).SerializeToString()))
        return True


class GrpcCluster:
    """Three servers in this process, which can be stopped one by one."""

    def __init__(self) -> None:
        self.fake = FakeCluster()
        self.servers: dict[NodeId, grpc.aio.Server] = {}
        self.nodes: dict[NodeId, FakeNode] = {}

    @property
    def addresses(self) -> list[str]:
        """host:port of each node."""
        return list(self.fake.addresses.values())

    async def start(self, partitions: int = 4) -> None:
        """Listen, then make the map of the ports that the system gave."""
        addresses = {}
        for node in ("n1", "n2", "n3"):
            server = self.servers[node] = grpc.aio.server(options=_SERVER_OPTIONS)
            addresses[node] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        self.fake = FakeCluster(partitions, addresses)
        for node, server in self.servers.items():
            servicer = FakeNode(self.fake, node)  # type: ignore[abstract]  # the client calls no other method
            self.nodes[node] = servicer
            kv_pb2_grpc.add_KVServiceServicer_to_server(servicer, server)
            cluster_pb2_grpc.add_ClusterServiceServicer_to_server(servicer, server)
            await server.start()

    async def stop(self, node: NodeId) -> None:
        """Stop a node at once."""
        await self.servers.pop(node).stop(None)

    async def stop_all(self) -> None:
        """Stop every node."""
        await asyncio.gather(*(self.stop(node) for node in list(self.servers)))


@asynccontextmanager
async def grpc_cluster(partitions: int = 4) -> AsyncIterator[GrpcCluster]:
    """Run a cluster for the duration of a block."""
    cluster = GrpcCluster()
    await cluster.start(partitions)
    try:
        yield cluster
    finally:
        await cluster.stop_all()
