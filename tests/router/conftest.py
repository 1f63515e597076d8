"""Fixtures of the router's tests: a cluster of real gRPC servers in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import pytest

from kv.cluster.map import ClusterMap, NodeInfo
from kv.ids import GroupId, NodeId
from kv.router.limits import RouterConfig
from kv.router.ring import Ring
from kv.v1 import cluster_pb2_grpc, kv_pb2_grpc
from tests.router.world import CLUSTER, FakeReplica, Group, WireNode, make_map


@dataclass
class WireWorld:
    """Nodes with real servers."""

    nodes: dict[NodeId, WireNode]
    groups: dict[GroupId, Group]
    map: ClusterMap
    ring: Ring
    channels: dict[NodeId, grpc.aio.Channel]

    def stub(self, node: NodeId) -> kv_pb2_grpc.KVServiceAsyncStub:
        return kv_pb2_grpc.KVServiceStub(self.channels[node])

    def cluster_stub(self, node: NodeId) -> cluster_pb2_grpc.ClusterServiceAsyncStub:
        return cluster_pb2_grpc.ClusterServiceStub(self.channels[node])

    def lead(self, node: NodeId | None) -> None:
        for group in self.groups.values():
            group.leader = node
            group.term += 1

    def group_of(self, key: bytes) -> Group:
        return self.groups[self.ring.partition_of(key)]

    async def connected(self, sender: NodeId, receiver: NodeId) -> None:
        """Wait until the forward stream is up: it is opened when it is first asked for."""
        async with asyncio.timeout(5):
            forwarders = self.nodes[sender].forwarders
            forwarders.get(receiver)
            while receiver not in forwarders.connected():  # noqa: ASYNC110 - a stream has no event to await
                await asyncio.sleep(0.005)


MakeWorld = Callable[..., Awaitable[WireWorld]]


@pytest.fixture
async def wire_world() -> AsyncIterator[MakeWorld]:
    """Return a function that starts a cluster; everything is stopped after the test."""
    async with AsyncExitStack() as stack:

        async def make(
            *,
            nodes: int = 2,
            partitions: int = 4,
            replication_factor: int = 2,
            config: RouterConfig | None = None,
            foreign: NodeId | None = None,
        ) -> WireWorld:
            names = [f"n{i}" for i in range(1, nodes + 1)]
            settings = config or RouterConfig()
            made = {n: WireNode(n, settings, "other" if n == foreign else CLUSTER) for n in names}
            infos = [NodeInfo(name, node.address) for name, node in made.items()]
            cluster_map = make_map(infos, partitions, replication_factor)
            groups = {p.id: Group(p.id, p.replicas[0]) for p in cluster_map.partitions}
            loop = asyncio.get_running_loop()
            channels = {}
            for name, node in made.items():
                node.map = cluster_map
                for partition in cluster_map.partitions:
                    if name in partition.replicas:
                        node.replicas[partition.id] = FakeReplica(groups[partition.id], name, cluster_map)
                await node.start(loop.call_later, loop.time)
                stack.push_async_callback(node.stop)
                channels[name] = await stack.enter_async_context(grpc.aio.insecure_channel(node.address))
            return WireWorld(made, groups, cluster_map, Ring(cluster_map.partitions), channels)

        yield make
