"""A node that was away for so long that the others compacted their logs catches up by snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kv.cli.cluster_process import LocalCluster
from kv.client import AsyncClient
from kv.v1 import kv_pb2
from tests.integration import support

PARTITIONS: Final = 2
KEYS: Final = 40
"""For each partition: their values make a snapshot of several chunks."""
VALUE_BYTES: Final = 16_384
ROUNDS: Final = 4
"""Of writes to every key while the node is away."""

OPTIONS: Final = {
    "log_retain_entries": 20,
    "checkpoint_ops_max": 20,
    "segment_bytes": support.SMALL_SEGMENT_BYTES,
    "snapshot_chunk_bytes": 65_536,
}

Keys = Mapping[int, list[bytes]]


def value(key: bytes, number: int) -> bytes:
    """Return the value of a key in a round of writes."""
    return (b"%s %d " % (key, number)).ljust(VALUE_BYTES, b".")


async def write(client: AsyncClient, keys: Keys, number: int) -> None:
    """Write each key, one entry of the log for each."""

    async def partition(of_partition: list[bytes]) -> None:
        for key in of_partition:
            await client.put(key, value(key, number))

    await asyncio.gather(*map(partition, keys.values()))


async def away(cluster: LocalCluster, client: AsyncClient, keys: Keys, node: str) -> None:
    """Kill the node and write until no log holds the next entry that it needs."""
    before = support.replicas(await support.status(cluster, node))
    cluster.kill(node)
    for number in range(1, ROUNDS + 1):
        await write(client, keys, number)

    async def compacted() -> bool | None:
        for other in cluster.running:
            now = support.replicas(await support.status(cluster, other))
            if any(now[part].first_index <= before[part].last_index + 1 for part in keys):
                return None
        return True

    await support.until(f"the logs are compacted past {node}", compacted)


async def check_alone(cluster: LocalCluster, keys: Keys, node: str, number: int) -> None:
    """Assert what the node's own replicas hold, without any help of the others."""
    async with support.stub_of(cluster.specs[node].address) as stub:
        for key in (key for of_partition in keys.values() for key in of_partition):
            request = kv_pb2.GetRequest(key=key, level=kv_pb2.READ_LEVEL_STALE)
            reply = await support.call(stub.Get(request, timeout=support.ASK_TIMEOUT_S))
            assert reply.evidence.node == node
            assert reply.item.value == value(key, number)


async def test_a_node_past_compaction_catches_up_by_snapshot(tmp_path: Path) -> None:
    """Interrupted twice and under writes, the snapshot arrives, and all replicas hold the same at the same index."""
    async with support.running(tmp_path, partitions=PARTITIONS, options=OPTIONS) as cluster:
        async with AsyncClient.from_url(cluster.url) as client:
            keys = support.keys_by_partition(await client.cluster_map(), "snapshot/", KEYS)
            await write(client, keys, 0)
            await away(cluster, client, keys, "n3")
            await interrupt(cluster, "n3", times=2)
            cluster.start("n3")
            await write(client, keys, ROUNDS + 1)
        targets = (await cluster.view()).commit_indexes()
        await cluster.wait_caught_up("n3", targets)
        assert support.log_text(cluster, "n3").count("snapshot installed") >= PARTITIONS
        assert await support.equal_content(cluster, keys) == dict.fromkeys(keys, KEYS)
        await check_alone(cluster, keys, "n3", ROUNDS + 1)
        await restart_alone(cluster, keys)


async def interrupt(cluster: LocalCluster, node: str, times: int) -> None:
    """Kill the node when it has just begun to catch up."""

    async def hears_a_leader() -> bool | None:
        replicas = (await support.status(cluster, node)).replicas
        return True if any(replica.leader for replica in replicas) else None

    for _ in range(times):
        cluster.start(node)
        await support.until(f"{node} hears a leader", hears_a_leader, every_s=0.01)
        cluster.kill(node)


async def restart_alone(cluster: LocalCluster, keys: Keys) -> None:
    """What came by snapshot is on the node's disk: it is there after SIGKILL, with nobody to ask."""
    cluster.kill()
    cluster.start("n3")

    async def holds_all() -> bool | None:
        replicas = support.replicas(await support.status(cluster, "n3"))
        return True if keys.keys() <= replicas.keys() else None

    await support.until("n3 answers alone", holds_all)
    await check_alone(cluster, keys, "n3", ROUNDS + 1)
