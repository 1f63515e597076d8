"""The runner as a person starts it: refusals, a whole small run against ringkv, and the end of every process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from benchmarks.cli import HTML, MARKDOWN, RESULTS, main
from benchmarks.goals import FLOOD, PEAK
from benchmarks.h2load_text import H2Load
from benchmarks.processes import ROOT, Failed, clean_environment
from benchmarks.record import read_run
from benchmarks.rows.overload import merged
from benchmarks.rows.scale import windows
from benchmarks.rows.tasks import check_done, check_replies
from benchmarks.runner import reason, rotated

WAIT_S = 60.0
MARK = "BENCHMARK_TEST_MARK"
SMALL = [
    "--rounds",
    "1",
    "--seconds",
    "0.3",
    "--warmup-s",
    "0.1",
    "--keys",
    "1024",
    "--partitions",
    "1",
    "--batches-in-flight",
    "2",
]


def test_a_run_in_memory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a sync costs nothing there is nothing to measure."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no file system in memory here")
    assert main(["run", "--rows", "0", "--folder", "/dev/shm", "--out", str(tmp_path)]) == 2
    assert "in memory" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bad_usage_has_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that does not exist, and a report of no run."""
    assert main(["run", "--rows", "99", "--out", str(tmp_path)]) == 2
    assert "99" in capsys.readouterr().err
    assert main(["report", "--out", str(tmp_path)]) == 2
    assert RESULTS in capsys.readouterr().err


def test_the_goals_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with what it asks for."""
    assert main(["rows"]) == 0
    assert "put, 256 tasks, over etcd from grpc.aio: >= 10 x" in capsys.readouterr().out


def test_a_small_run_measures_and_reports(tmp_path: Path) -> None:
    """Row 13 needs only ringkv: fill, closed loop, open loop; and its report is rendered again the same."""
    assert main(["run", "--rows", "13", *SMALL, "--out", str(tmp_path), "--folder", str(tmp_path)]) == 0
    with (tmp_path / RESULTS).open(encoding="utf-8") as file:
        run = read_run(file)
    assert not run.missing
    assert [sample.work for sample in run.samples] == [PEAK, FLOOD]
    assert all(sample.metrics["per_s"] > 0 and sample.metrics["rss_mib"] > 0 for sample in run.samples)
    reports = {name: (tmp_path / name).read_text(encoding="utf-8") for name in (MARKDOWN, HTML)}
    assert main(["report", "--out", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in reports} == reports
    assert not list(tmp_path.glob("bench-*")), "the scratch folder is gone"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_stopped_ends_its_processes(tmp_path: Path, sent: signal.Signals) -> None:
    """Nothing that it started lives on, and the report of what there is was written."""
    command = [sys.executable, "-m", "benchmarks", "run", "--rows", "13", *SMALL, "--seconds", "60"]
    runner = await asyncio.create_subprocess_exec(
        *command,
        *("--out", str(tmp_path), "--folder", str(tmp_path)),
        env={**clean_environment(os.environ), MARK: str(tmp_path)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        async with asyncio.timeout(WAIT_S):
            while len(processes_of(tmp_path)) < 5:  # the runner, three nodes, and a load
                assert runner.returncode is None, "it ended by itself"
                await asyncio.sleep(0.05)  # other processes' state: there is no event to await
            runner.send_signal(sent)
            await runner.wait()
    finally:
        if runner.returncode is None:
            runner.kill()
            await runner.wait()
    assert not processes_of(tmp_path)
    assert (tmp_path / MARKDOWN).exists()


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes whose environment has this test's mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
            place = (path.parent / "environ").read_bytes()
        except (OSError, PermissionError):  # it ended this moment, or is somebody else's
            continue
        if os.fsencode(f"{MARK}={folder}") in place:
            found.append(line.decode())
    return found


def test_the_order_turns_with_the_rounds() -> None:
    """Each system is first once before any is first again."""
    assert [rotated(["a", "b", "c"], number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert sorted(rotated(["a", "b", "c"], 5)) == ["a", "b", "c"]


def test_a_group_of_errors_is_told_by_the_first_inside() -> None:
    """A person reads what happened, and not how the tasks were grouped."""
    assert (
        reason(ExceptionGroup("outer", [ExceptionGroup("inner", [Failed("h2load ended")])]))
        == "Failed: h2load ended"
    )


def test_replies_without_writes_are_no_measurement() -> None:
    """A gRPC call that was refused has HTTP status 200: so the store's own count decides."""
    check_done(10, 10)
    check_done(10, 12)  # the warm-up wrote as well
    with pytest.raises(Failed, match="only 9 writes"):
        check_done(10, 9)
    check_replies(H2Load(1.0, 10, 0, 1.0, 1.0, 1000), 100)
    with pytest.raises(Failed, match="only 999 bytes"):
        check_replies(H2Load(1.0, 10, 0, 1.0, 1.0, 999), 100)


def test_the_windows_of_a_long_load_are_its_first_and_its_last_minute() -> None:
    """Of a load shorter than two minutes its halves."""
    assert windows([1.0] * 60 + [5.0] * 100 + [3.0] * 60) == (1.0, 3.0)
    assert windows([1.0, 2.0, 4.0, 5.0]) == (1.5, 4.5)


def test_generators_together_add_up() -> None:
    """Rates are sums, the worst latency counts, and the definite share is that of all failures."""
    first = {"per_s": 10.0, "refused_per_s": 3.0, "unknown_per_s": 0.0, "p99_ms": 5.0, "definite_share": 1.0}
    second = {"per_s": 20.0, "refused_per_s": 0.0, "unknown_per_s": 1.0, "p99_ms": 9.0, "definite_share": 0.0}
    found = merged([first, second])
    assert found == {
        "per_s": 30.0,
        "refused_per_s": 3.0,
        "unknown_per_s": 1.0,
        "p99_ms": 9.0,
        "definite_share": 0.75,
    }
