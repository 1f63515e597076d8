"""What a run leaves behind is ended, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kv_jepsen.records import Records, clean, start_ticks, state_folder

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="records need /proc")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of record files, for this test alone."""
    monkeypatch.setenv("KV_JEPSEN_STATE", str(tmp_path / "state"))
    return state_folder()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits to be ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _of_dead_owner(path: Path, *entries: dict[str, object]) -> None:
    owner: dict[str, object] = {"kind": "owner", "pid": os.getpid(), "start": 1}  # this id, another process
    path.write_text("".join(json.dumps(one) + "\n" for one in (owner, *entries)))


def test_clean_ends_what_a_killed_run_left(folder: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A process and the data of a run whose harness is gone are ended and removed, and so is the record."""
    path = folder / "gone-1.jsonl"
    data = path.with_suffix(".data")
    data.mkdir()
    (data / "file").write_text("x")
    _of_dead_owner(path, {"kind": "process", "pid": sleeper.pid, "start": start_ticks(sleeper.pid)})
    assert list(clean()) == [f"gone-1: ended process {sleeper.pid}"]
    assert sleeper.wait(10) == -9
    assert not path.exists()
    assert not data.exists()


def test_clean_leaves_a_process_that_only_has_the_id(folder: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A process that got the id of one of ours, but began at another time, is left alone."""
    started = start_ticks(sleeper.pid)
    assert started is not None
    _of_dead_owner(folder / "gone-1.jsonl", {"kind": "process", "pid": sleeper.pid, "start": started + 1})
    assert list(clean()) == []
    assert sleeper.poll() is None


def test_clean_leaves_a_run_that_goes_on(folder: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """While the harness of a run lives, nothing of it is ended; after its close there is no record."""
    records = Records.fresh("mine")
    records.process(sleeper.pid)
    data = records.folder()
    assert ["still runs" in line for line in clean()] == [True]
    assert sleeper.poll() is None
    assert data.exists()
    records.close()
    assert list(folder.iterdir()) == []


def test_the_end_of_a_run_ends_what_is_left(folder: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A run that ends without having ended its nodes, as after a second Ctrl-C, leaves none behind."""
    records = Records.fresh("mine")
    records.process(sleeper.pid)
    records.close()
    assert sleeper.wait(10) == -9
    assert list(folder.iterdir()) == []


def test_a_torn_last_line_is_no_obstacle(folder: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """What was recorded before the harness died in the middle of a line is cleaned."""
    path = folder / "gone-1.jsonl"
    _of_dead_owner(path, {"kind": "process", "pid": sleeper.pid, "start": start_ticks(sleeper.pid)})
    with path.open("a") as file:
        file.write('{"kind": "proc')
    assert len(list(clean())) == 1
    assert sleeper.wait(10) == -9


def test_foreign_names_are_never_removed(folder: Path) -> None:
    """A namespace or an interface without our prefix is not touched, whatever a record says."""
    _of_dead_owner(
        folder / "gone-1.jsonl", {"kind": "namespace", "name": "other"}, {"kind": "interface", "name": "lo"}
    )
    assert list(clean()) == []
    with pytest.raises(AssertionError, match="our own"):
        Records.fresh("mine").namespace("other")
