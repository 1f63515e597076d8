"""Node processes."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from random import Random

import pytest

from kv_jepsen.records import Records
from kv_jepsen.targets.processes import PORT_FIRST, PORT_LAST, Processes, environment, free_ports

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="records need /proc")


async def test_a_node_lives_and_dies_by_its_handle(tmp_path: Path) -> None:
    """A node that runs is not started twice; killed, it is gone and can be started again; stop ends paused ones."""
    records = Records(tmp_path / "run.jsonl")
    processes = Processes(records)
    command = [sys.executable, "-c", "print('hello', flush=True); input()"]
    log = tmp_path / "logs" / "n1.log"
    processes.start("n1", command, log)
    first = processes.pid("n1")
    processes.start("n1", command, log)
    assert processes.pid("n1") == first
    processes.kill(["n1", "n2"])
    assert processes.pid("n1") is None
    assert processes.exited() == {}
    processes.start("n1", command, log)
    assert processes.pid("n1") != first
    processes.signal(["n1"], signal.SIGSTOP)
    await processes.stop()
    assert processes.pid("n1") is None
    assert log.exists()
    assert str(first) in records.path.read_text()
    records.close()


async def test_a_node_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    """A node that ended and was not killed is told with its status, also if it was started again."""
    records = Records(tmp_path / "run.jsonl")
    processes = Processes(records)
    log = tmp_path / "n1.log"
    processes.start("n1", [sys.executable, "-c", "raise SystemExit(7)"], log)
    async with asyncio.timeout(30):
        while processes.pid("n1") is not None:  # noqa: ASYNC110 - a child's end is no event of the loop
            await asyncio.sleep(0.01)
    assert processes.exited() == {"n1": 7}
    processes.start("n1", [sys.executable, "-c", "input()"], log)
    await processes.stop()
    assert processes.ended == ["n1 ended by itself with status 7; its log tells why"]
    records.close()


def test_ports_are_below_those_of_outgoing_connections() -> None:
    """Free ports are a row in a range from which Linux takes none by itself."""
    ports = free_ports(4, Random(1))
    assert ports == list(range(ports[0], ports[0] + 4))
    assert PORT_FIRST <= ports[0] < ports[-1] <= PORT_LAST


def test_the_environment_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node does not inherit its own settings; without a beginning it inherits everything."""
    monkeypatch.setenv("KV_NODE_ID", "x")
    assert "KV_NODE_ID" not in environment("KV_")
    assert environment("")["KV_NODE_ID"] == "x"
