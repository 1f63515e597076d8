"""Asking nodes for their map and status, each node for itself.

The client asks any node; whoever looks at a cluster from outside wants to hear every node, and to
know which were silent. Only reads, and no retries beyond the one deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import grpc
import grpc.aio

from kv.cli.view import ClusterView, addresses
from kv.errors import KVError, Unavailable, from_grpc
from kv.v1 import cluster_pb2, cluster_pb2_grpc

CHANNEL_OPTIONS: Final = (
    # A node that was down a moment ago is asked again soon: gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


async def fetch_map(address: str, timeout_s: float) -> cluster_pb2.ClusterMap | None:
    """Return the map that the node at `address` has, None if it has none yet. Raises `KVError`."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        try:
            reply = await stub.GetMap(cluster_pb2.GetMapRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise kv_error(error, address, sent=False) from error
        return reply.map if reply.HasField("map") else None


async def fetch_status(address: str, timeout_s: float) -> cluster_pb2.NodeStatus:
    """Return what the node at `address` says of itself. Raises `KVError`."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        try:
            return (await stub.GetStatus(cluster_pb2.GetStatusRequest(), timeout=timeout_s)).status
        except grpc.aio.AioRpcError as error:
            raise kv_error(error, address, sent=False) from error


async def fetch_any_map(endpoints: Sequence[str], timeout_s: float) -> cluster_pb2.ClusterMap:
    """Return the newest map that any endpoint has. Raises `KVError` if none has one."""
    replies = await asyncio.gather(
        *(fetch_map(address, timeout_s) for address in endpoints), return_exceptions=True
    )
    maps = [reply for reply in replies if isinstance(reply, cluster_pb2.ClusterMap)]
    if maps:
        return max(maps, key=lambda found: found.epoch)
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    raise Unavailable(f"no cluster map at {', '.join(endpoints)}: the cluster is starting")


async def fetch_view(endpoints: Sequence[str], timeout_s: float) -> ClusterView:
    """Return the newest map of `endpoints` and the status of every node in it. Raises `KVError` without a map."""
    cluster_map = await fetch_any_map(endpoints, timeout_s)
    return await fetch_statuses(cluster_map, addresses(cluster_map), timeout_s)


async def fetch_statuses(
    cluster_map: cluster_pb2.ClusterMap | None, nodes: Mapping[str, str], timeout_s: float
) -> ClusterView:
    """Return the view made of `cluster_map` and the status of each of `nodes` (id to address) that answers."""
    replies = await asyncio.gather(
        *(fetch_status(address, timeout_s) for address in nodes.values()), return_exceptions=True
    )
    statuses, silent = {}, {}
    for node, reply in zip(nodes, replies, strict=True):
        match reply:
            case cluster_pb2.NodeStatus():
                statuses[node] = reply
            case KVError():
                silent[node] = reply.message
            case _:
                raise reply
    return ClusterView(cluster_map, statuses, silent)


def kv_error(error: grpc.aio.AioRpcError, address: str, *, sent: bool) -> KVError:
    """Return our error for a failed call; `sent` as in `kv.errors.from_grpc`, False for reads: they change nothing."""
    trailing = tuple(error.trailing_metadata() or ())
    found = from_grpc(error.code().value[0], error.details(), trailing, sent=sent)
    found.metadata.setdefault("address", address)
    return found
