"""A whole node in this process: what it does by itself, before anybody asks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from kv.cluster.map import NodeInfo, initial_map
from kv.config import NodeConfig
from kv.internal.v1 import peer_pb2
from kv.node import MAP_FILE, Node
from kv.router.forward import FORWARD_METHOD
from kv.router.streams import Context

PEER_SERVICE, METHOD = FORWARD_METHOD.strip("/").split("/")


def free_address() -> str:
    """Return an address on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Peer:
    """Another node, as far as a node sees it that dials: it notes who says hello."""

    def __init__(self) -> None:
        self.hello: asyncio.Future[peer_pb2.Hello] = asyncio.get_running_loop().create_future()
        self.server = grpc.aio.server()
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._forward)
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(PEER_SERVICE, {METHOD: handler}),)
        )
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    async def _forward(self, requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        async for raw in requests:
            self.hello.set_result(peer_pb2.ForwardRequest.FromString(raw).hello)
            yield peer_pb2.ForwardResponse(
                hello=peer_pb2.Hello(cluster="test", node="n2")
            ).SerializeToString()


def write_map(config: NodeConfig) -> None:
    """Write the map that an earlier run of the node had learned."""
    nodes = [NodeInfo(name, address) for name, address in sorted(config.peers.items())]
    known = initial_map(
        "test", nodes, partitions=1, replication_factor=1, virtual_nodes=config.virtual_nodes, load_factor=2.0
    )
    config.data_dir.mkdir()
    (config.data_dir / MAP_FILE).write_bytes(known.encode())


async def test_streams_to_the_nodes_of_the_map_are_opened_at_start(tmp_path: Path) -> None:
    """A node that knows a map dials the others at once: no request has to come first, and to go elsewhere for it."""
    peer = Peer()
    await peer.server.start()
    here = free_address()
    config = NodeConfig(
        node_id="n1",
        cluster="test",
        listen=here,
        peers={"n1": here, "n2": peer.address},
        data_dir=tmp_path / "n1",
    )
    write_map(config)
    failures: list[BaseException] = []
    node = Node(config, fatal=failures.append)
    await node.start()
    try:
        async with asyncio.timeout(10):
            hello = await peer.hello
        assert (hello.cluster, hello.node) == ("test", "n1")
    finally:
        await node.stop()
        await peer.server.stop(None)
    assert failures == []
