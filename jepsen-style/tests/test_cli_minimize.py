"""`minimize` and `replay`: files and folders in, smaller ones out; with real processes where a run is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kv_jepsen.cli import app
from kv_jepsen.cuts import sockets
from kv_jepsen.formats import dump_jsonl, parse
from kv_jepsen.history import Op, OpType
from kv_jepsen.results import ResultFolder

DATA = Path(__file__).parent / "data"
EXAMPLE = "kv_jepsen.targets.example:Forgetful"
linux = pytest.mark.skipif(not sockets.offered(), reason="proxy cuts need Linux")


def call(*arguments: object, state: Path | None = None) -> Result:
    """The command with these arguments."""
    environment = {} if state is None else {"KV_JEPSEN_STATE": str(state)}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def test_a_file_becomes_a_folder(tmp_path: Path) -> None:
    """What is left of a history is a run of its own: history, report and all; it can be checked, and is still wrong."""
    done = call("minimize", DATA / "kv/c10-bad.txt", "--results", tmp_path)
    assert done.exit_code == 0, done.output
    assert "405 calls became" in done.output
    folder = tmp_path / "latest"
    assert len(parse((folder / "history.jsonl").read_text()).calls) < 10
    assert "none of them can be left out" in (folder / "report.html").read_text()
    assert call("check", folder / "history.jsonl").exit_code == 1


def test_a_level_declared_linearizable(tmp_path: Path) -> None:
    """A stale read is wrong only if its level is held to be linearizable."""
    ops: list[Op] = []
    for f, given, answer in [("write", 1, 1), ("write", 2, 2), ("read", None, 1), ("write", 3, 3)]:
        extra = {"level": "stale"} if f == "read" else {}
        ops += [
            Op(0, 0, OpType.INVOKE, f, "x", given, extra=extra),
            Op(0, 0, OpType.OK, f, "x", answer, extra=extra),
        ]
    file = tmp_path / "h.jsonl"
    file.write_text(dump_jsonl(ops))
    assert call("minimize", file, "--results", tmp_path / "r").exit_code == 2
    done = call("minimize", file, "--results", tmp_path / "r", "--linearizable", "stale")
    assert "4 calls became 3" in done.output


@pytest.mark.parametrize("command", ["minimize", "replay"])
def test_what_cannot_be_read_is_status_2(tmp_path: Path, command: str) -> None:
    """A missing or broken input, and a folder without a plan, end with 2 and a reason."""
    (tmp_path / "h.jsonl").write_text("nonsense")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "h.jsonl", tmp_path / "missing", tmp_path / "folder"):
        done = call(command, path)
        assert done.exit_code == 2
        assert done.stderr


def test_a_correct_history_has_nothing_to_minimize(tmp_path: Path) -> None:
    """Exit status 2, and why."""
    done = call("minimize", DATA / "kv/c01-ok.txt", "--results", tmp_path)
    assert done.exit_code == 2
    assert "find no violation" in done.stderr


@linux
@pytest.mark.slow
def test_a_run_is_made_smaller_and_made_again(tmp_path: Path) -> None:
    """Of a pause and a crash the crash is what makes a store forget; made again, the run has the same verdict."""
    schedule, state, results = tmp_path / "faults", tmp_path / "state", tmp_path / "results"
    schedule.write_text("0.2 pause n1\n0.3 resume n1\n0.6 crash n1\n0.7 start n1\n1.4 calm *\n")
    ran = call(
        "run", "--target", EXAMPLE, "--nodes", 1, "--workload", "set", "--seconds", 1.5, "--rate", 200, "--schedule", schedule,
        "--seed", 1, "--results", results, state=state,
    )  # fmt: skip
    assert ran.exit_code == 1, ran.output
    folder = ResultFolder((results / "latest").resolve())
    done = call("minimize", folder.path, "--attempts", 2, state=state)
    assert done.exit_code == 0, done.output
    assert "2 faults became 1" in done.output
    assert "crash" in (folder.path / "minimized/schedule").read_text()
    assert "pause" not in (folder.path / "minimized/schedule").read_text()
    assert len(ResultFolder(folder.path / "minimized").history().calls) < 10
    again = call("replay", folder.path, state=state)
    assert again.exit_code == 0, again.output
    assert "the same verdict" in again.output
    fresh = ResultFolder((results / "latest").resolve())
    assert fresh.path != folder.path
    assert fresh.plan() == folder.plan()
    assert fresh.schedule_file.read_text() == folder.schedule_file.read_text()
    loaded = json.loads((folder.path / "results.json").read_text())
    (folder.path / "results.json").write_text(json.dumps({**loaded, "valid": True}))
    assert call("replay", folder.path, state=state).exit_code == 1
    assert list(state.iterdir()) == []
