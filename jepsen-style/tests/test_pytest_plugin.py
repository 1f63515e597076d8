"""The pytest plugin, in a run of pytest of its own: the example of the README with a real cluster, and what a failure leaves."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kv_jepsen
from kv_jepsen.cuts import sockets

ROOT = Path(kv_jepsen.__file__).parents[1]
linux = pytest.mark.skipif(not sockets.offered(), reason="proxy cuts need Linux")

FAILING = """
import pytest

@pytest.mark.partitioned_cluster(nodes=1, partitions=1)
def test_that_fails(partitioned_cluster):
    recording = partitioned_cluster.record()
    client = recording.client()
    client.put(b"k", b"1")
    partitioned_cluster.client().put(b"k", b"2")  # behind the back of the recording
    partitioned_cluster.pause("n1")
    partitioned_cluster.resume()
    client.get(b"k")
    recording.check()
"""


def _pytest(folder: Path, content: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a file with this content, as somebody would who has the package."""
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers -W error\n"
    )
    (folder / "test_it.py").write_text(content)
    path = os.pathsep.join([str(ROOT), str(ROOT.parent), os.environ.get("PYTHONPATH", "")])
    variables = {**os.environ, "PYTHONPATH": path, "KV_JEPSEN_STATE": str(folder / "state")}
    variables.pop("PYTEST_ADDOPTS", None)
    options = ["-p", "kv_jepsen.pytest_plugin", "-p", "no:cacheprovider", "--basetemp", str(folder / "kept")]
    command = [sys.executable, "-m", "pytest", *options, *arguments, "test_it.py"]
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=110
    )


def _example() -> str:
    """The example of the README."""
    (found,) = re.findall(
        r"```python\n(.*?partitioned_cluster.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert isinstance(found, str)
    return found


@linux
@pytest.mark.slow
def test_the_example_of_the_readme(tmp_path: Path) -> None:
    """It passes as it stands, in a synchronous and in an asynchronous test, and leaves neither folder nor process nor record."""
    example = _example()
    done = _pytest(tmp_path, example)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{example.count('def test_')} passed" in done.stdout
    assert not list((tmp_path / "kept").glob("partitioned_cluster*/*"))
    assert list((tmp_path / "state").iterdir()) == []


@linux
@pytest.mark.slow
def test_a_failure_keeps_the_folder(tmp_path: Path) -> None:
    """The report says why and where: logs, data and the judged recording are there."""
    done = _pytest(tmp_path, FAILING)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NotLinearizable" in done.stdout
    kept = re.findall(r"are kept in (\S+)", done.stdout)
    assert kept, done.stdout
    folder = Path(kept[0])
    assert (folder / "logs/n1.log").exists()
    assert (folder / "data/n1/node.json").exists()
    report = (folder / "recording-1/report.html").read_text()
    assert "invalid" in report
    assert "pause" in report
    assert list((tmp_path / "state").iterdir()) == []


def test_a_marker_that_is_wrong_is_told(tmp_path: Path) -> None:
    """An option that there is not ends the test before anything is started."""
    content = (
        "import pytest\n@pytest.mark.partitioned_cluster(node=3)\ndef test_it(partitioned_cluster): pass\n"
    )
    done = _pytest(tmp_path, content)
    assert "takes nodes, partitions, cuts, settings, not 'node'" in done.stdout
    assert done.returncode == 1


def test_the_entry_point_is_the_plugin() -> None:
    """What is installed names the module by itself, so that `-p` with the module's name does not register it twice."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"kv_jepsen.pytest_plugin": "kv_jepsen.pytest_plugin"}
    assert importlib.util.find_spec("kv_jepsen.pytest_plugin") is not None


def test_it_costs_nothing_where_it_is_not_used() -> None:
    """Loading the plugin imports nothing of the harness but itself, and neither the client nor gRPC."""
    code = (
        "import kv_jepsen.pytest_plugin, sys;"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('kv', 'grpc', 'kv_jepsen', 'typer')))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['kv_jepsen', 'kv_jepsen.pytest_plugin']"
