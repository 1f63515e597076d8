"""`kv bench` against real nodes: every kind of load, and a cluster of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kv.cli.cluster_process import LocalCluster, node_environment

KEYS = 60


def bench(*arguments: str, url: str = "", folder: Path) -> dict[str, Any]:
    """Run `kv bench` in a process of its own and return its document."""
    environment = {**node_environment(os.environ), "TMPDIR": str(folder)}
    if url:
        environment["KV_ENDPOINTS"] = url
    command = [
        sys.executable,
        "-m",
        "kv",
        "bench",
        *arguments,
        "--warmup",
        "0",
        "--keys",
        str(KEYS),
        "--json",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("kind", "options", "items"),
    [
        ("mixed", ("--level", "linearizable", "--prefer", "local", "--write-level", "all"), 1),
        ("scan", ("--scan-length", "40"), 40),
        ("batch", ("--batch-size", "30", "--rate", "200", "-p", "2"), 30),
    ],
)
def test_every_load_is_served(
    cluster: LocalCluster, tmp_path: Path, kind: str, options: tuple[str, ...], items: int
) -> None:
    """Real nodes serve each kind of load; every operation succeeds and touches its number of keys."""
    found = bench(kind, "-n", "40", *options, url=cluster.url, folder=tmp_path)
    assert (found["succeeded"], found["failed"], found["dropped"]) == (40, 0, 0)
    assert found["items_per_s"] == pytest.approx(items * found["goodput_per_s"], rel=1e-3)


def test_a_cluster_of_its_own_is_gone_afterwards(tmp_path: Path) -> None:
    """--local starts nodes for the run; afterwards neither their folder nor anyone at their addresses is there."""
    found = bench("put", "-n", "40", "--local", "1", "--partitions", "2", folder=tmp_path)
    assert found["succeeded"] == 40
    assert list(tmp_path.glob("ringkv-bench-*")) == []
    command = [sys.executable, "-m", "kv", "-e", found["plan"]["url"], "--timeout", "500ms", "get", "x"]
    gone = subprocess.run(
        command, capture_output=True, timeout=30, env=node_environment(os.environ), check=False
    )
    assert gone.returncode in {6, 7}
