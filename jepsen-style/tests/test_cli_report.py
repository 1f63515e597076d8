"""`report`: a history becomes a result folder, a folder is judged again; the exit status is the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from kv_jepsen.cli_report import report_command
from kv_jepsen.formats import dump_jsonl
from kv_jepsen.history import Op, OpType, Value

APP = typer.Typer()
APP.command()(report_command)

INVOKE, OK = OpType.INVOKE, OpType.OK


def recorded(folder: Path, *values: Value) -> Path:
    """A history of one write of 1 and reads of these values."""
    ops = [Op(0, 0, INVOKE, "write", "x", 1), Op(1, 0, OK, "write", "x", 1)]
    for value in values:
        ops += [Op(0, 0, INVOKE, "read", "x"), Op(1, 0, OK, "read", "x", value)]
    file = folder / "my run.jsonl"
    file.write_text(dump_jsonl(ops))
    return file


def call(*arguments: object) -> Result:
    """The command with these arguments."""
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("value", "status", "word"), [(1, 0, "valid"), (2, 1, "invalid")])
def test_a_history_becomes_a_folder(tmp_path: Path, value: int, status: int, word: str) -> None:
    """The exit status is the verdict, and the printed path is the report; the run is on the index page."""
    results = tmp_path / "results"
    result = call(recorded(tmp_path, value), "--results", results)
    assert result.exit_code == status
    assert result.stdout.startswith(f"register: {word}: {results}")
    report = Path(result.stdout.strip().split(": ")[-1])
    assert report.read_text().startswith("<!DOCTYPE html>")
    assert f"{report.parent.name}/report.html" in (results / "index.html").read_text()
    assert (results / "latest").resolve() == report.parent


def test_a_folder_is_judged_again_in_place(tmp_path: Path) -> None:
    """A folder keeps its name and start, and what its logs show counts."""
    results = tmp_path / "results"
    call(recorded(tmp_path, 1), "--results", results)
    (folder,) = [path for path in results.iterdir() if path.is_dir() and not path.is_symlink()]
    (folder / "logs").mkdir()
    (folder / "logs" / "n1.log").write_text("AssertionError: order")
    result = call(folder)
    assert result.exit_code == 1
    assert [path.name for path in results.iterdir() if path.is_dir() and not path.is_symlink()] == [
        folder.name
    ]
    page = (folder / "report.html").read_text()
    assert "n1, line 1: AssertionError: order" in page
    assert "my run" in page


def test_a_folder_that_was_never_judged(tmp_path: Path) -> None:
    """A history alone in a folder is enough."""
    folder = tmp_path / "20260101T000000-crashed"
    folder.mkdir()
    recorded(tmp_path, 1).rename(folder / "history.jsonl")
    assert call(folder).exit_code == 0
    assert (tmp_path / "index.html").exists()


def test_a_level_declared_linearizable_is_held_to_it(tmp_path: Path) -> None:
    """A stale read passes at its own level, and not if that is declared linearizable."""
    ops = [
        Op(0, 0, INVOKE, "write", "x", 1),
        Op(1, 0, OK, "write", "x", 1),
        Op(2, 0, INVOKE, "read", "x", extra={"level": "stale"}),
        Op(3, 0, OK, "read", "x", None, extra={"level": "stale"}),
    ]
    file = tmp_path / "h.jsonl"
    file.write_text(dump_jsonl(ops))
    assert call(file, "--results", tmp_path / "r").exit_code == 0
    assert call(file, "--results", tmp_path / "r", "--linearizable", "stale").exit_code == 1


@pytest.mark.parametrize("content", ["nonsense", '{"process":0,"type":"ok","f":"read"}'])
def test_what_cannot_be_read_is_status_2(tmp_path: Path, content: str) -> None:
    """Unreadable input, a missing file, and functions of no workload end with 2, a reason, and no folder."""
    file = tmp_path / "h.jsonl"
    file.write_text(content)
    for arguments in ([file], [tmp_path / "missing"], [recorded(tmp_path, 1), "--workload", "graph"]):
        result = call(*arguments, "--results", tmp_path / "r")
        assert result.exit_code == 2
        assert result.stderr
    assert not (tmp_path / "r").exists()
