"""The commands `run` and `clean`, with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kv_jepsen
from kv_jepsen import runner
from kv_jepsen.cli import app
from kv_jepsen.cuts import sockets
from kv_jepsen.records import start_ticks
from kv_jepsen.targets.api import Answer, Client, Unknown
from kv_jepsen.targets.memory import MemoryTarget
from kv_jepsen.targets.panel import source_tree

ROOT = Path(kv_jepsen.__file__).parents[1]
EXAMPLE = "kv_jepsen.targets.example:Forgetful"
WAIT_S = 30.0

linux = pytest.mark.skipif(not sockets.offered(), reason="proxy cuts need Linux")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where a harness of its own finds the packages, and puts its record files."""
    path = os.pathsep.join([str(ROOT), str(ROOT.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "KV_JEPSEN_STATE": str(tmp_path / "state")}


def _command(results: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "kv_jepsen", "run", "--results", str(results), *arguments]


def _ran(results: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = _command(results, *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=110)


@linux
@pytest.mark.slow
def test_a_store_that_forgets_is_found_out(tmp_path: Path, environment: dict[str, str]) -> None:
    """A store that loses its memory when it is killed is not linearizable: exit status 1, and the page says so."""
    schedule = tmp_path / "schedule"
    # Now and then the first operation on each key after a crash is a write, and nothing shows: so it is killed often.
    kills = [f"{at:.1f} crash n1\n{at + 0.2:.1f} start n1\n" for at in (0.8, 1.4, 2.0, 2.6, 3.2)]
    schedule.write_text("".join(kills) + "3.8 calm *\n")
    done = _ran(
        tmp_path / "results", environment, "--target", EXAMPLE, "--nodes", "1", "--seconds", "4",
        "--schedule", str(schedule), "--rate", "200",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert re.search(r"not linearizable: key r\d-\d", done.stdout)
    folder = tmp_path / "results" / "latest"
    assert {path.name for path in folder.iterdir()} >= {
        "history.jsonl", "history.edn", "results.json", "schedule", "logs", "report.html",
    }  # fmt: skip
    assert json.loads((folder / "results.json").read_text())["valid"] is False
    assert list((tmp_path / "state").iterdir()) == []


@linux
@pytest.mark.slow
def test_ringkv_holds_under_partitions_and_kills(tmp_path: Path, environment: dict[str, str]) -> None:
    """Twenty seconds of leaders cut off, killed and paused: nothing is lost and no read is stale."""
    done = _ran(
        tmp_path / "results", environment, "--seconds", "20", "--faults", "leader,kill_leader,one_way",
        "--seed", "5", "--processes", "4", "--rate", "40",
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    calls, ok = map(int, re.findall(r"(\d+) calls, (\d+) ok", done.stdout)[0])
    assert ok > calls / 2 > 50
    loaded = json.loads((tmp_path / "results" / "latest" / "results.json").read_text())
    checks = {check["checker"]: check for check in loaded["checks"]}
    assert checks["replicas"]["valid"] is True
    assert checks["replicas"]["counts"]["compared"] == 4
    assert checks["recovery"]["counts"]["heals"] > 0
    assert list((tmp_path / "state").iterdir()) == []


@linux
@pytest.mark.skipif(source_tree() is None, reason="needs the store's source tree")
@pytest.mark.slow
def test_ringkv_holds_on_bad_disks(tmp_path: Path, environment: dict[str, str]) -> None:
    """Slow, full and failing disks, a power cut of all and a flipped bit: nothing is lost, and the damaged node stays away."""
    schedule = tmp_path / "schedule"
    schedule.write_text(
        "0.5 fail_sync n2\n0.5 slow_sync n1 seconds=0.05\n1 fill n1\n2 start n2\n3 crash * power=yes\n3.1 start *\n"
        "6 free n1\n6.5 flip n3\n6.6 start n3\n8 calm *\n"
    )
    done = _ran(
        tmp_path / "results", environment, "--seconds", "9", "--schedule", str(schedule), "--rate", "40",
        "--option", "partitions=2",
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    logs = tmp_path / "results" / "latest" / "logs"
    assert "Input/output error" in (logs / "n2.log").read_text()
    damaged = (logs / "n3.log").read_text()
    assert damaged.count("test build: flipped bit") == 1
    assert "a damaged record" in damaged


def _nodes(state: Path) -> list[dict[str, int]]:
    """The processes of three nodes, when all are in the record file."""
    end = time.monotonic() + WAIT_S
    nodes: list[dict[str, int]] = []
    while len(nodes) < 3 and time.monotonic() < end:
        time.sleep(0.05)  # another process's progress
        lines = "".join(path.read_text() for path in state.glob("*.jsonl")).splitlines()
        nodes = [entry for entry in map(json.loads, lines) if entry["kind"] == "process"]
    return nodes


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_its_history_and_nothing_else(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM end the nodes and forget the run: exit status 130, and `report` judges what was recorded."""
    harness = subprocess.Popen(
        _command(tmp_path / "results", "--target", EXAMPLE, "--faults", "none", "--seconds", "60"),
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    nodes = _nodes(tmp_path / "state")
    history = tmp_path / "results" / "latest" / "history.jsonl"
    end = time.monotonic() + WAIT_S
    while not (history.exists() and history.read_text().count('"ok"') > 3):
        assert time.monotonic() < end
        time.sleep(0.05)  # another process's progress
    harness.send_signal(number)
    _, told = harness.communicate(timeout=WAIT_S)
    assert harness.returncode == 130, told
    assert "interrupted; `kv-jepsen report" in told
    assert all(start_ticks(node["pid"]) is None for node in nodes)
    assert list((tmp_path / "state").iterdir()) == []
    judged = CliRunner().invoke(app, ["report", str(history.parent)])
    assert judged.exit_code == 0, judged.output


@linux
@pytest.mark.slow
def test_what_a_killed_harness_left_is_cleaned(tmp_path: Path, environment: dict[str, str]) -> None:
    """After kill -9 of the harness its nodes live on until `clean`, which ends them and removes their data."""
    harness = subprocess.Popen(
        _command(tmp_path / "results", "--target", EXAMPLE, "--faults", "none", "--seconds", "60"),
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    state = tmp_path / "state"
    nodes = _nodes(state)
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    assert len(nodes) == 3
    assert all(start_ticks(node["pid"]) == node["start"] for node in nodes)
    cleaned = CliRunner().invoke(app, ["clean"], env={"KV_JEPSEN_STATE": str(state)})
    assert cleaned.output.count("ended process") == 3
    end = time.monotonic() + WAIT_S
    while any(start_ticks(node["pid"]) == node["start"] for node in nodes):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert list(state.iterdir()) == []
    assert (
        CliRunner().invoke(app, ["clean"], env={"KV_JEPSEN_STATE": str(state)}).output
        == "nothing was left behind\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "oracle"], "there is no target 'oracle'"),
        (["--target", "kv_jepsen.targets.example:Nobody"], "cannot be loaded"),
        (["--workload", "poem"], "no workload 'poem'"),
        (["--faults", "meteor"], "no family of faults 'meteor'"),
        (["--cut", "scissors"], "no way 'scissors'"),
        (["--levels", "psychic"], "no read level 'psychic'"),
        (["--target", EXAMPLE, "--option", "x"], "is not name=value"),
    ],
)
def test_bad_requests_are_refused_before_anything_starts(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    """What cannot be run is exit status 2 and says what there is, and leaves no record."""
    state = tmp_path / "state"
    done = CliRunner().invoke(
        app, ["run", "--results", str(tmp_path / "r"), *arguments], env={"KV_JEPSEN_STATE": str(state)}
    )
    assert done.exit_code == 2
    assert says in done.output
    assert not state.exists() or list(state.iterdir()) == []


def test_a_fault_that_cannot_be_done_is_refused(tmp_path: Path) -> None:
    """A schedule with a fault that real processes cannot be given is refused before the cluster starts."""
    schedule = tmp_path / "schedule"
    schedule.write_text("1 fill n1\n")
    done = CliRunner().invoke(
        app,
        ["run", "--results", str(tmp_path / "r"), "--target", EXAMPLE, "--schedule", str(schedule)],
        env={"KV_JEPSEN_STATE": str(tmp_path / "state")},
    )
    assert done.exit_code == 2
    assert "fill cannot be done to the nodes of Forgetful" in done.output


class Mute(MemoryTarget):
    """A target whose clients never get an answer."""

    name = "mute"

    def __init__(self, nodes: Sequence[str], *_: object) -> None:
        super().__init__(nodes)

    def client(self, process: int) -> Client:
        """See `Target`."""
        del process
        return _Unanswered()


class _Unanswered(Client):
    """A client that never learns what became of anything."""

    async def read(self, key: str, level: str) -> Answer:
        """See `Client`."""
        raise Unknown(f"no answer to a {level} read of {key}")

    async def write(self, key: str, value: str) -> Answer:
        """See `Client`."""
        raise Unknown(f"no answer to a write of {value} to {key}")

    async def swap(self, expected: Mapping[str, str | None], new: Mapping[str, str]) -> Answer:
        """See `Client`."""
        raise Unknown(f"no answer to a swap of {len(expected)} and {len(new)} keys")


@linux
def test_a_run_without_an_answer_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in which no call succeeded is no pass: exit status 3, and the reason in words and in the results."""
    monkeypatch.setattr(runner, "LAST_TIMEOUT_S", 0.1)  # the last reads are asked again until then
    done = CliRunner().invoke(
        app,
        ["run", "--target", f"{__name__}:Mute", "--faults", "none", "--seconds", "1", "--results", str(tmp_path / "r")],
        env={"KV_JEPSEN_STATE": str(tmp_path / "state")},
    )  # fmt: skip
    assert done.exit_code == 3, done.output
    assert re.search(r"successes: unknown: none of \d+ calls succeeded", done.output)
    assert "register: unknown:" in done.output
    loaded = json.loads((tmp_path / "r" / "latest" / "results.json").read_text())
    assert loaded["valid"] == "unknown"
