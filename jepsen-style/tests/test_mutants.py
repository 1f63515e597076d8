"""Mutants of ringkv in real processes: what is hunted, and two that are caught quickly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kv_jepsen
from kv.sim.mutants import mutant
from kv_jepsen.cuts import sockets
from kv_jepsen.mutants import HUNTS, Hunt, hunt_of
from kv_jepsen.schedule import parse_schedule
from kv_jepsen.targets.panel import source_tree
from kv_jepsen.workloads import WORKLOADS

ROOT = Path(kv_jepsen.__file__).parents[1]

possible = pytest.mark.skipif(
    not sockets.offered() or source_tree() is None, reason="needs Linux, and the store's source tree"
)


@pytest.mark.parametrize("hunt", HUNTS, ids=lambda hunt: hunt.mutant)
def test_what_is_hunted_exists(hunt: Hunt) -> None:
    """Each is a mutant of the simulator under its name, with a schedule and a workload that can be run."""
    assert mutant(hunt.mutant).name == hunt.mutant
    assert hunt_of(hunt.mutant) is hunt
    faults = parse_schedule(hunt.schedule)
    assert faults[-1].kind == "calm"
    assert faults[-1].at_s < hunt.seconds
    assert hunt.workload in WORKLOADS


RUNS_MAX = 5
"""Whether a mutant shows in one short run is chance, as it depends on who asks whom at the moment of the fault."""


def _hunted(folder: Path, name: str, schedule: str, seconds: int) -> tuple[int, dict[str, object], str]:
    """Run a mutant until it is caught, at most `RUNS_MAX` times; exit status, verdicts, and what was printed."""
    for seed in range(3, 3 + RUNS_MAX):
        run = folder / str(seed)
        run.mkdir()
        status, results, told = _hunted_once(run, name, schedule, seconds, seed)
        if status != 0:
            break
    return status, results, told


def _hunted_once(
    folder: Path, name: str, schedule: str, seconds: int, seed: int
) -> tuple[int, dict[str, object], str]:
    """Run a mutant under a shorter schedule than its hunt's."""
    hunt = hunt_of(name)
    (folder / "schedule").write_text(schedule)
    path = os.pathsep.join([str(ROOT), str(ROOT.parent), os.environ.get("PYTHONPATH", "")])
    options = [f"--option={a}={b}" for a, b in {**hunt.options, "mutant": name}.items()]
    done = subprocess.run(
        [
            sys.executable, "-m", "kv_jepsen", "run", "--results", str(folder / "results"), "--seed", str(seed),
            "--schedule", str(folder / "schedule"), "--seconds", str(seconds), "--rate", "60",
            "--workload", hunt.workload, "--levels", ",".join(hunt.levels), *options,
        ],
        env={**os.environ, "PYTHONPATH": path, "KV_JEPSEN_STATE": str(folder / "state")},
        capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    results = json.loads((folder / "results" / "latest" / "results.json").read_text())
    return done.returncode, results, done.stdout + done.stderr


@possible
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_answer_before_the_commit_is_caught(tmp_path: Path) -> None:
    """A leader that answers puts when it proposes them loses some when it is cut off, and the histories show it."""
    status, results, told = _hunted(
        tmp_path, "reply-when-proposed", "1 partition leader:1/*\n3.5 heal *\n5 calm *\n", 6
    )
    assert status == 1, told
    assert results["valid"] is False
    # Which of them shows depends on who reads what when: the write that is lost, or the revision that it had.
    assert any(finding in told for finding in ("not linearizable", "went-back", "shared-revision")), told


@possible
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_bounded_read_without_a_bound_is_caught(tmp_path: Path) -> None:
    """A replica that takes any proof for a young one answers bounded reads with what is older than they allow."""
    status, _, told = _hunted(
        tmp_path, "any-proof-is-young", "1 partition follower:1/*\n4.5 heal *\n5 calm *\n", 6
    )
    assert status == 1, told
    assert "too-stale: A bounded read" in told
