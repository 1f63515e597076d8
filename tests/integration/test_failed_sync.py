"""A log that cannot be made durable ends the process: after a failed sync nobody knows what the disk holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from kv.cli.cluster_process import LocalCluster, node_environment
from kv.client import AsyncClient
from kv.errors import KVError
from kv.node import EXIT_FATAL
from tests.integration import failing_sync_node, support

FAILURES_AFTER: Final = 40
PUTS_MAX: Final = 200
EXIT_S: Final = 10.0


@pytest.mark.parametrize("operation", ["sync", "write"])
async def test_a_failed_sync_ends_the_process_and_acknowledges_nothing(
    tmp_path: Path, operation: str
) -> None:
    """The process ends with status 70, and every write that it acknowledged is there when it starts again."""
    async with support.running(tmp_path, start=False, nodes=1, partitions=1) as cluster:
        process = start_on_failing_disk(cluster, operation)
        try:
            acknowledged = await put_until_it_fails(cluster)
            assert process.wait(EXIT_S) == EXIT_FATAL
        finally:
            process.kill()
            process.wait(EXIT_S)
        text = support.log_text(cluster, "n1")
        assert "the disk failed" in text
        assert "the process ends" in text
        assert 0 < len(acknowledged) < FAILURES_AFTER
        cluster.start()
        await cluster.wait_ready()
        async with AsyncClient.from_url(cluster.url) as client:
            held = {item.key: item.value async for item in client.scan()}
        assert acknowledged.items() <= held.items()


def start_on_failing_disk(cluster: LocalCluster, operation: str) -> subprocess.Popen[bytes]:
    """Start the cluster's only node on a disk that fails."""
    spec = cluster.specs["n1"]
    settings = {
        "node_id": spec.id,
        "data_dir": str(spec.data_dir),
        "listen": spec.address,
        "peers": {spec.id: spec.address},
        "partitions": 1,
        "operation": operation,
        "failures_after": FAILURES_AFTER,
    }
    command = [sys.executable, failing_sync_node.__file__, json.dumps(settings)]
    with spec.log_path.open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=node_environment(os.environ))


async def put_until_it_fails(cluster: LocalCluster) -> dict[bytes, bytes]:
    """Write one key after the other until one is not acknowledged, and return those that were."""
    acknowledged: dict[bytes, bytes] = {}
    async with AsyncClient.from_url(cluster.url) as client:
        first = True
        for number in range(PUTS_MAX):
            key, value = b"sync/%d" % number, b"value %d" % number
            try:
                await client.put(key, value, timeout=support.WAIT_S if first else 3.0)
            except KVError:
                return acknowledged
            first = False
            acknowledged[key] = value
    raise AssertionError("the disk never failed")
