"""The command line against real node processes: what it prints and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kv.cli.cluster_process import LocalCluster, node_environment
from kv.cli.probe import fetch_status
from kv.client import Client
from kv.errors import Unavailable

Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Done]


@pytest.fixture
def kv(cluster: LocalCluster) -> Run:
    """Give a function that runs `kv` as a person would, in a process of its own."""

    def run(*arguments: str, stdin: bytes = b"") -> Done:
        environment = {**node_environment(os.environ), "KV_ENDPOINTS": cluster.url}
        command = [sys.executable, "-m", "kv", *arguments]
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=30, env=environment, check=False
        )

    return run


def ok(done: Done) -> bytes:
    """Return what a command printed, after a check that it went well."""
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_put_get_delete(kv: Run) -> None:
    """A key that was put is read by another process, byte for byte, and gone after a delete."""
    value = bytes(range(256))
    revision = int(ok(kv("-o", "raw", "put", "cli/a", "-", stdin=value)))
    assert ok(kv("-o", "raw", "get", "cli/a")) == value
    fields = json.loads(ok(kv("-o", "json", "get", "cli/a")))
    assert (fields["key"], fields["revision"], fields["version"]) == ("cli/a", revision, 1)
    assert fields["evidence"]["node"] in ("n1", "n2", "n3")
    assert fields["evidence"]["level"] == "linearizable"
    shown = ok(kv("get", "cli/a")).decode()
    assert shown.splitlines()[0].split()[:3] == ["key", "value", "revision"]
    assert ok(kv("-o", "raw", "delete", "cli/a")) == b"1\n"
    missing = kv("get", "cli/a")
    assert missing.returncode == 3
    assert b"NOT_FOUND" in missing.stderr
    assert missing.stdout == b""
    assert ok(kv("-o", "raw", "delete", "cli/a")) == b"0\n"


def test_conditions_end_with_status_4(kv: Run) -> None:
    """A condition that does not hold changes nothing and ends with status 4."""
    ok(kv("put", "cli/c", "1", "--if-absent"))
    for flags in (["--if-absent"], ["--if-revision", "1"], ["--if-value", "other"]):
        refused = kv("put", "cli/c", "2", *flags)
        assert refused.returncode == 4
        assert b"CONDITION_FAILED" in refused.stderr
    assert ok(kv("-o", "raw", "get", "cli/c")) == b"1"
    ok(kv("put", "cli/c", "2", "--if-value", "1"))
    assert kv("delete", "cli/c", "--if-value", "1").returncode == 4
    ok(kv("delete", "cli/c", "--if-value", "2"))


def test_limits_end_with_status_2(kv: Run, tmp_path: Path) -> None:
    """A key or value beyond its limit is a usage error; at the limit it is written."""
    file = tmp_path / "value"
    file.write_bytes(b"x" * (1 << 20))
    ok(kv("put", "k" * 480, "--file", str(file)))
    assert len(ok(kv("-o", "raw", "get", "k" * 480))) == 1 << 20
    ok(kv("delete", "k" * 480))
    assert kv("put", "k" * 481, "1").returncode == 2
    file.write_bytes(b"x" * ((1 << 20) + 1))
    assert kv("put", "cli/big", "--file", str(file)).returncode == 2
    assert kv("put", "", "1").returncode == 2


def test_scan_is_in_key_order_over_partitions(kv: Run, cluster: LocalCluster) -> None:
    """A scan merges all partitions in key order, within its bounds."""
    with Client.from_url(cluster.url) as client:
        for number in range(9):
            client.put(b"cli-scan/%d" % number, b"%d" % number)
    lines = ok(kv("-o", "raw", "scan", "--prefix", "cli-scan/")).splitlines()
    assert lines == [b"cli-scan/%d\t%d" % (number, number) for number in range(9)]
    part = ok(kv("-o", "raw", "scan", "--start", "cli-scan/3", "--end", "cli-scan/7", "--keys-only"))
    assert part.splitlines() == [b"cli-scan/%d" % number for number in range(3, 7)]
    few = ok(kv("-o", "json", "scan", "--prefix", "cli-scan/", "--limit", "2")).splitlines()
    assert [json.loads(line)["key"] for line in few] == ["cli-scan/0", "cli-scan/1"]


def test_status_shows_every_node_and_a_leader_for_each_partition(kv: Run) -> None:
    """`kv status` tells the state of the whole cluster through any endpoint."""
    fields = json.loads(ok(kv("-o", "json", "status")))
    assert set(fields["nodes"]) == {"n1", "n2", "n3"}
    assert fields["silent"] == {}
    assert set(fields["leaders"].values()) <= {"n1", "n2", "n3"}
    assert len(fields["map"]["partitions"]) == 4
    shown = ok(kv("status")).decode()
    assert all(f"n{number}" in shown for number in (1, 2, 3))


def test_ring_agrees_with_who_served(kv: Run) -> None:
    """The partition that `kv ring` computes is the one that serves the key."""
    put = json.loads(ok(kv("-o", "json", "put", "{user7}/name", "Ada")))
    ring = json.loads(ok(kv("-o", "json", "ring", "{user7}/mail")))
    assert ring["tag"] == "user7"
    assert ring["partition"] == put["evidence"]["partition"]
    assert put["evidence"]["node"] in ring["replicas"]


def test_any_single_node_serves_every_key(kv: Run, cluster: LocalCluster) -> None:
    """Each node alone as the endpoint reads what was written through another."""
    for number, node in enumerate(cluster.specs):
        ok(kv("-e", cluster.url_of(node), "put", f"cli-any/{number}", node))
    for node in cluster.specs:
        lines = ok(kv("-e", cluster.url_of(node), "-o", "raw", "scan", "--prefix", "cli-any/")).splitlines()
        assert lines == [b"cli-any/0\tn1", b"cli-any/1\tn2", b"cli-any/2\tn3"]


def test_demo_starts_shows_and_stops() -> None:
    """`kv demo --exit` starts a cluster from nothing, shows it, and leaves no process behind."""
    command = [sys.executable, "-m", "kv", "-o", "json", "demo", "--exit", "--partitions", "2"]
    done = subprocess.run(
        command, capture_output=True, timeout=60, env=node_environment(os.environ), check=True
    )
    shown = json.loads(done.stdout)
    assert set(shown["pids"]) == {"n1", "n2", "n3"}
    assert None not in shown["leaders"].values()
    for pid in shown["pids"].values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_demo_prompt() -> None:
    """The prompt reads and writes keys, kills and starts nodes, and goes on after a mistake."""
    lines = [
        "put a 1",
        "get a",
        "kill 2",
        "nosuch",
        "put a 2",
        "start 2",
        "get a",
        "scan",
        "delete a",
        "get a",
        "status",
        "map",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "kv", "demo", "--partitions", "2"],
        input="\n".join([*lines, "quit"]).encode(),
        capture_output=True,
        timeout=60,
        env=node_environment(os.environ),
        check=True,
    )
    shown = done.stdout.decode()
    assert "killed n2" in shown
    assert "2  (revision" in shown
    assert "(no such key)" in shown
    assert "there is no command 'nosuch'" in done.stderr.decode()


def test_an_interrupted_demo_stops_its_nodes() -> None:
    """Ctrl-C at the prompt ends the demo with status 130 and all its nodes."""
    command = [sys.executable, "-m", "kv", "demo", "--partitions", "1", "--nodes", "1"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=node_environment(os.environ),
    ) as demo:
        assert demo.stdin is not None
        assert demo.stdout is not None
        demo.stdin.write(b"help\n")
        demo.stdin.flush()
        shown = b""
        while b"stop the nodes and leave" not in shown:
            shown += demo.stdout.readline()
        address = shown.split(b"kv://")[1].split()[0].decode()
        # CPython looks for signals before it reads a line, and reads it in another call: a signal between the two is
        # acted on when the line has come. So it is sent when the read waits.
        while Path(f"/proc/{demo.pid}/syscall").read_text(encoding="ascii").split()[1:2] != ["0x0"]:
            time.sleep(0.01)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(20) == 130
    with pytest.raises(Unavailable):
        asyncio.run(fetch_status(address, 1.0))


@pytest.mark.slow
def test_tour() -> None:
    """The tour ends well and says in one line what was acknowledged and that nothing was lost."""
    command = [sys.executable, "-m", "kv", "demo", "--tour", "--partitions", "4"]
    done = subprocess.run(
        command, capture_output=True, timeout=90, env=node_environment(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    last = done.stdout.decode().splitlines()[-1]
    figures = dict(part.split("=") for part in last.removeprefix("tour: ").split())
    assert int(figures["writes_acknowledged"]) > 0
    assert figures["lost"] == "0"
