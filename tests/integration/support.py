"""What the tests with real processes share: clusters that show their logs when a test fails, and looking at nodes.

Here live starting and observing. Load and its records are in `workload`; what must hold is in the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import grpc
import grpc.aio

from kv.cli.cluster_process import LocalCluster
from kv.cli.probe import CHANNEL_OPTIONS, fetch_status
from kv.cluster.map import ClusterMap
from kv.errors import KVError, from_grpc
from kv.router.ring import Ring
from kv.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2_grpc

ASK_TIMEOUT_S: Final = 5.0
WAIT_S: Final = 30.0
"""For a condition that other processes must bring about: generous, because it costs time only when it fails."""
POLL_S: Final = 0.05

MIB: Final = 1 << 20
SMALL_SEGMENT_BYTES: Final = 9 * MIB
"""About the smallest segment that a node accepts: twice the largest entry."""

T = TypeVar("T")

LOG_LINES_SHOWN: Final = 25

_used: list[LocalCluster] = []
"""Clusters that run now, and those that the running test has just closed (its report is made afterwards)."""


@contextmanager
def started(directory: Path, **settings: object) -> Iterator[LocalCluster]:
    """Start a cluster, give it when it is ready, and stop it; `settings` are fields of `LocalCluster`."""
    with LocalCluster(directory, **settings) as cluster:  # type: ignore[arg-type]
        _used.append(cluster)
        cluster.start()
        asyncio.run(cluster.wait_ready())
        yield cluster


@asynccontextmanager
async def running(directory: Path, *, start: bool = True, **settings: object) -> AsyncIterator[LocalCluster]:
    """Do as `started` does, on the running loop; with `start=False` the caller starts the nodes."""
    with LocalCluster(directory, **settings) as cluster:  # type: ignore[arg-type]
        _used.append(cluster)
        if start:
            cluster.start()
            await cluster.wait_ready()
        yield cluster


async def until(
    what: str, look: Callable[[], Awaitable[T | None]], timeout_s: float = WAIT_S, *, every_s: float = POLL_S
) -> T:
    """Look again and again until `look()` is not None, and return that; it may raise `KVError` meanwhile.

    For states of other processes, of which there is no event to await.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    seen = "nothing yet"
    while True:
        try:
            found = await look()
            if found is not None:
                return found
        except KVError as error:
            seen = repr(error)
        if loop.time() > end:
            raise AssertionError(f"after {timeout_s} s still not: {what} (last: {seen})")
        await asyncio.sleep(every_s)


async def status(cluster: LocalCluster, node: str) -> cluster_pb2.NodeStatus:
    """Return what a node says of itself. Raises `KVError`."""
    return await fetch_status(cluster.specs[node].address, ASK_TIMEOUT_S)


def replicas(node_status: cluster_pb2.NodeStatus) -> dict[int, cluster_pb2.ReplicaStatus]:
    """Return the replicas of partitions in a status, by partition."""
    return {replica.partition: replica for replica in node_status.replicas if replica.partition}


async def content_hash(
    cluster: LocalCluster, node: str, partition: int
) -> cluster_pb2.GetContentHashResponse:
    """Return the hash of what a node holds of a partition. Raises `KVError`."""
    async with grpc.aio.insecure_channel(cluster.specs[node].address, options=CHANNEL_OPTIONS) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        request = cluster_pb2.GetContentHashRequest(partition=partition)
        try:
            return await stub.GetContentHash(request, timeout=ASK_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_grpc(error.code().value[0], error.details(), None, sent=False) from error


async def equal_content(cluster: LocalCluster, partitions: Iterable[int]) -> dict[int, int]:
    """Wait until all running replicas of each partition stand at one index; assert that they hold the same there.

    Returns the number of keys by partition.
    """
    keys: dict[int, int] = {}
    for partition in partitions:

        async def same_index(partition: int = partition) -> list[cluster_pb2.GetContentHashResponse] | None:
            hashes = [await content_hash(cluster, node, partition) for node in cluster.running]
            return hashes if len({found.index for found in hashes}) == 1 else None

        hashes = await until(f"equal indexes in partition {partition}", same_index)
        assert len({found.hash for found in hashes}) == 1, (
            f"the replicas of partition {partition} differ at index {hashes[0].index}"
        )
        keys[partition] = hashes[0].keys
    return keys


def log_tails() -> list[tuple[str, str]]:
    """Return the end of each node's log as sections of a report."""
    found = []
    for cluster in _used:
        for node in cluster.specs:
            if cluster.specs[node].log_path.exists():
                lines = log_text(cluster, node).splitlines()[-LOG_LINES_SHOWN:]
                found.append((f"log of {node} in {cluster.directory}", "\n".join(lines)))
    return found


def forget_closed() -> None:
    """Forget clusters that run no more: a later failure is not theirs."""
    _used[:] = [cluster for cluster in _used if cluster.running]


def log_text(cluster: LocalCluster, node: str) -> str:
    """Return the whole program log of a node."""
    return cluster.specs[node].log_path.read_text("utf-8", "replace")


def wal_segments(cluster: LocalCluster, node: str) -> list[Path]:
    """Return the segment files of a node's log, oldest first."""
    return sorted((cluster.specs[node].data_dir / "wal").glob("*"))


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    fields = _proc_status(pid)
    return int(fields["VmRSS"].split()[0]) * 1024


def _proc_status(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def exit_status(cluster: LocalCluster, node: str) -> int | None:
    """Return the exit status of a node that was started and has ended, else None."""
    process = cluster._processes.get(node)
    return None if process is None else process.poll()


async def wait_exit(cluster: LocalCluster, node: str) -> int:
    """Wait until a node's process has ended and return its exit status."""

    async def ended() -> int | None:
        return exit_status(cluster, node)

    return await until(f"{node} ends", ended)


def keys_by_partition(cluster_map: ClusterMap, prefix: str, each: int) -> dict[int, list[bytes]]:
    """Return `each` keys of every partition."""
    ring = Ring(cluster_map.partitions)
    keys: dict[int, list[bytes]] = {partition.id: [] for partition in cluster_map.partitions}
    for number in count():
        key = f"{prefix}{number}".encode()
        of_partition = keys[ring.partition_of(key)]
        if len(of_partition) < each:
            of_partition.append(key)
        if all(len(found) == each for found in keys.values()):
            return keys
    raise AssertionError("unreachable: the ring covers every hash")


@asynccontextmanager
async def stub_of(address: str) -> AsyncIterator[kv_pb2_grpc.KVServiceAsyncStub]:
    """Give a bare stub of one node: requests pass its router and nothing else of ours."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield kv_pb2_grpc.KVServiceStub(channel)


async def call(unary: Awaitable[T]) -> T:
    """Wait for a call of a bare stub; raise the `KVError` that its status carries."""
    try:
        return await unary
    except grpc.aio.AioRpcError as error:
        trailing = tuple(error.trailing_metadata() or ())
        raise from_grpc(error.code().value[0], error.details(), trailing, sent=True) from error
