"""Disks and clocks of ringkv's nodes, as far as the harness has them in hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kv_jepsen.schedule import KINDS
from kv_jepsen.targets import clocks, hosts
from kv_jepsen.targets.api import HOST_KINDS
from kv_jepsen.targets.clocks import WallClock, library
from kv_jepsen.targets.hosts import EXIT_FATAL, EXIT_REFUSED, Hosts
from kv_jepsen.unsupported import Unsupported

NODES = ("n1", "n2", "n3")


def test_production_runs_unless_something_else_is_asked_for(tmp_path: Path) -> None:
    """Without disk faults, rates and mutants the program is `kv serve`; with any of them the test build."""
    assert Hosts(NODES, tmp_path, None).program("n1")[1:] == ["-m", "kv", "serve"]
    for kind in HOST_KINDS:
        asked = Hosts(NODES, tmp_path, None)
        asked.refuses([kind])
        assert ("tests.faulty_node" in asked.program("n1")) == (kind != "clock_jump")
    assert Hosts(NODES, tmp_path, "ack-before-sync").program("n2")[-3:] == [
        "--mutant",
        "ack-before-sync",
        "--",
    ]


def test_every_fault_of_a_host_can_be_done(tmp_path: Path) -> None:
    """Each kind leaves its mark where the node will find it, and relief takes away what is no damage."""
    made = Hosts(NODES, tmp_path, None)
    assert {kind for kind in HOST_KINDS if kind != "power"} <= set(KINDS)
    made.refuses(HOST_KINDS)
    for kind in HOST_KINDS:
        made.afflict("n1", kind, 2.0)
    panel = tmp_path / "n1.panel"
    assert {file.name for file in panel.iterdir()} == {
        "power_failed", "slow_sync", "fail_sync", "flip", "clock_rate",
    }  # fmt: skip
    made.afflict("n1", "fill", 0.0)
    made.relieve()
    assert {file.name for file in panel.iterdir()} == {"power_failed", "flip"}
    assert (tmp_path / "n1.clock").read_text() == "+2.000s\n"


def test_only_a_minority_is_damaged(tmp_path: Path) -> None:
    """Of three nodes one log is damaged, of five two; further ones are left whole."""
    for count, most in ((3, 1), (5, 2)):
        nodes = [f"n{number}" for number in range(count)]
        folder = tmp_path / str(count)
        made = Hosts(nodes, folder, None)
        for node in nodes:
            made.afflict(node, "flip", 0.0)
        assert len(list(folder.glob("*/flip"))) == most


def test_only_asked_for_ends_are_pardoned(tmp_path: Path) -> None:
    """A node may end itself after a failed sync, and refuse a damaged log; any other end is a finding."""
    made = Hosts(NODES, tmp_path, None)
    assert not made.pardoned("n1", EXIT_FATAL)
    assert not made.pardoned("n1", EXIT_REFUSED)
    made.afflict("n1", "fail_sync", 0.0)
    (tmp_path / "n2.panel").mkdir()
    (tmp_path / "n2.panel" / "flipped").write_text("bit 1")
    assert made.pardoned("n1", EXIT_FATAL)
    assert made.pardoned("n2", EXIT_REFUSED)
    assert not made.pardoned("n1", EXIT_REFUSED)
    assert not made.pardoned("n2", EXIT_FATAL)
    assert not made.pardoned("n1", -11)


def test_an_installed_harness_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a checkout there is no test build, without libfaketime no jump: each is told, with what to do."""
    monkeypatch.setattr(hosts, "source_tree", lambda: None)
    monkeypatch.setattr(hosts, "library", lambda: None)
    problems = Hosts(NODES, tmp_path, None).refuses(["fill", "clock_jump"])
    assert problems == [clocks.MISSING, hosts.NO_TEST_BUILD.format("fill")]
    with pytest.raises(Unsupported, match="run kv-jepsen from a checkout"):
        Hosts(NODES, tmp_path, "ack-before-sync")


@pytest.mark.skipif(library() is None, reason=clocks.MISSING)
def test_a_wall_clock_jumps_and_the_steady_one_does_not(tmp_path: Path) -> None:
    """A process that goes by a jumping clock sees the jump in its wall clock, at once, and not in its steady one."""
    clock = WallClock(tmp_path / "clock")
    program = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clock.variables(),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    def told() -> tuple[float, float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("?\n")
        process.stdin.flush()
        wall, steady = map(float, process.stdout.readline().split())
        return wall, steady

    before = told()
    clock.jump(3600.0)
    after = told()
    clock.jump(-7200.0)
    back = told()
    process.stdin.close()
    process.wait()
    process.stdout.close()
    assert 3600.0 <= after[0] - before[0] < 3660.0
    assert -3600.0 <= back[0] - before[0] < -3540.0
    assert 0.0 <= after[1] - before[1] < 60.0
    assert 0.0 <= back[1] - after[1] < 60.0
