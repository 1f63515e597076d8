"""How a scenario is played with a client of a fake cluster, in virtual time, and the rules by which its nodes fail."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from kv.client.aio import AsyncClient
from kv.client.limits import Limits
from kv.errors import KVError
from kv.ids import NodeId
from kv.v1 import kv_pb2
from tests.client.fakes import FakeCluster, FakeTransport, Fault
from tests.client.memory import rows_of
from tests.client.virtual import run_virtual

Scenario = Callable[[AsyncClient, FakeCluster, FakeTransport], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario, *, limits: Limits | None = None, partitions: int = 1, timeout: float = 5.0
) -> None:
    """Run the scenario with a client of a fresh cluster."""

    async def main() -> None:
        cluster = FakeCluster(partitions)
        transport = FakeTransport(cluster)
        addresses = list(cluster.addresses.values())
        async with AsyncClient(
            addresses, transport=transport, limits=limits, timeout=timeout, jitter=lambda: 0.5
        ) as client:
            await scenario(client, cluster, transport)
        assert transport.closed

    run_virtual(main)


def once(fault: Fault | KVError, wanted: str = "put") -> Callable[[NodeId, kv_pb2.PipelinedBatch], Any]:
    """Return a rule that lets the first request with a `wanted` operation suffer the fault."""
    left = [fault]

    def rule(_node: NodeId, request: kv_pb2.PipelinedBatch) -> Fault | KVError | None:
        kinds = {operation.WhichOneof("operation") for operation in rows_of(request.batch)}
        return left.pop() if left and wanted in kinds else None

    return rule


def always(fault: Fault | KVError, wanted: str = "put") -> Callable[[NodeId, kv_pb2.PipelinedBatch], Any]:
    """Return a rule that lets every request with a `wanted` operation suffer the fault."""

    def rule(_node: NodeId, request: kv_pb2.PipelinedBatch) -> Fault | KVError | None:
        kinds = {operation.WhichOneof("operation") for operation in rows_of(request.batch)}
        return fault if wanted in kinds else None

    return rule


def identities(cluster: FakeCluster) -> list[tuple[int, int]]:
    """Return (session, sequence) of each request with a put that reached a node."""
    return [
        (request.batch.request_id.session, request.batch.request_id.sequence)
        for _, request in cluster.requests
        if any(operation.HasField("put") for operation in rows_of(request.batch))
    ]
