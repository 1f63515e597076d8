"""The supervisor with real nodes: what it starts, stops, notices, and never leaves behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kv.cli.cluster_process import LocalCluster, node_environment
from kv.cli.probe import fetch_status
from kv.client import AsyncClient
from kv.errors import DeadlineExceeded, Unavailable


async def test_kill_restart_and_catch_up(tmp_path: Path) -> None:
    """A killed node is noticed, the rest go on, and after a restart it catches up from its disk."""
    with LocalCluster(tmp_path, partitions=2) as cluster:
        cluster.start()
        await cluster.wait_ready()
        async with AsyncClient.from_url(cluster.url) as client:
            await client.put(b"a", b"1")
            before = cluster.pid("n2")
            cluster.kill("n2")
            assert cluster.pid("n2") is None
            assert cluster.running == ("n1", "n3")
            await client.put(b"a", b"2", timeout=10.0)
            targets = (await cluster.view()).commit_indexes()
            cluster.start("n2")
            assert cluster.pid("n2") not in (None, before)
            view = await cluster.wait_caught_up("n2", targets)
            assert view.behind("n2", targets) == {}
            cluster.restart()
            await cluster.wait_ready()
            item = await client.get(b"a", timeout=10.0)
            assert item is not None
            assert item.value == b"2"
        assert cluster.stop() == {"n1": 0, "n2": 0, "n3": 0}
        assert not cluster.running


async def test_a_paused_node_is_awaited(tmp_path: Path) -> None:
    """A node that does not answer keeps a cluster from being ready, by name; resumed, it is ready."""
    with LocalCluster(tmp_path, partitions=1) as cluster:
        cluster.start()
        await cluster.wait_ready()
        cluster.pause("n3")
        with pytest.raises(Unavailable, match="n3 does not answer"):
            await cluster.wait_ready(timeout_s=0.1)
        assert "n3" in cluster.running
        cluster.resume("n3")
        await cluster.wait_ready()


async def test_a_node_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    """A node that exits by itself ends the wait at once, with the end of its log."""
    with LocalCluster(tmp_path, nodes=1, extra={"n1": {"heartbeat_ms": 0}}) as cluster:
        cluster.start()
        with pytest.raises(Unavailable, match="heartbeat_ms"):
            await cluster.wait_ready()


def test_nodes_end_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL of the supervising process leaves no node behind."""
    script = (
        "import sys, pathlib, time; from kv.cli.cluster_process import LocalCluster\n"
        "cluster = LocalCluster(pathlib.Path(sys.argv[1]), nodes=1, partitions=1); cluster.start()\n"
        "print(cluster.specs['n1'].address, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=node_environment(os.environ)) as supervisor:
        assert supervisor.stdout is not None
        address = supervisor.stdout.readline().decode().strip()
        asyncio.run(_until(address, answers=True))
        supervisor.kill()
    asyncio.run(_until(address, answers=False))


async def _until(address: str, *, answers: bool) -> None:
    """Wait until the node answers, or does not any more."""
    async with asyncio.timeout(20):
        while True:
            try:
                await fetch_status(address, 1.0)
                found = True
            except Unavailable:
                found = False
            except DeadlineExceeded:  # it has not ended yet, or a busy machine: neither an answer nor none
                continue
            if found == answers:
                return
            await asyncio.sleep(0.05)  # another process: there is no event to await
