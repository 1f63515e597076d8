"""Seeds in several processes: the same runs, one end for all."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kv.errors import Internal
from kv.sim.jobs import run_jobs
from kv.sim.runner import Totals, Wishes, run_seeds
from kv.sim.world import MEMORY_FOLDER
from tests.sim.test_runner import STALE_READS, Unconfirmed

SHORT = Wishes(nodes=3, minutes_each=0.2)


def numbers(totals: Totals) -> dict[str, object]:
    """All but the times: that of the wall is another, and simulated seconds are added up in another order."""
    return {name: value for name, value in totals.fields().items() if not name.endswith("_s")}


def left_behind() -> set[Path]:
    """Folders of worlds whose process has ended."""
    found = {folder: folder.name.split("-")[2] for folder in MEMORY_FOLDER.glob("kv-sim-*-*")}
    return {folder for folder, process in found.items() if not Path("/proc", process).exists()}


def test_two_processes_run_what_one_runs() -> None:
    """The totals of a list of seeds do not depend on how many processes share it."""
    seeds = range(1, 6)
    one, _ = run_seeds(seeds, SHORT, wall=time.monotonic, tell=lambda _: None)
    two, broken = run_jobs(seeds, SHORT, 2, wall=time.monotonic, tell=lambda _: None)
    assert broken is None
    assert numbers(two) == numbers(one)
    assert two.seeds == 5
    assert two.wall_s > 0
    assert not multiprocessing.active_children()


def test_the_first_violation_ends_all() -> None:
    """The report comes from the process that found it, the same as in this one, and no process is left."""
    wishes = Wishes(nodes=3, schedule=STALE_READS, minutes_each=0.5, mutant=Unconfirmed())
    before = left_behind()
    _, broken = run_jobs(range(1, 1 << 40), wishes, 2, wall=time.monotonic, tell=lambda _: None)
    assert broken is not None
    assert broken.violation is not None
    _, again = run_seeds([broken.seed], wishes, wall=time.monotonic, tell=lambda _: None)
    assert again is not None
    assert (again.violation, again.digest) == (broken.violation, broken.digest)
    assert not multiprocessing.active_children()
    assert left_behind() <= before, "whoever is ended removes its folder"


def test_no_seed_begins_after_the_time_is_over() -> None:
    """The time is that of each process."""
    wishes = replace(SHORT, seconds=0.0)
    totals, broken = run_jobs(range(1 << 40), wishes, 2, wall=time.monotonic, tell=lambda _: None)
    assert (totals.seeds, broken) == (0, None)


def test_a_process_that_fails_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """It is not taken for a run without a violation; what it said stays to be read."""
    before = left_behind()
    with pytest.raises(Internal, match="ended with status 1"):
        run_jobs(range(4), Wishes(nodes=-1), 2, wall=time.monotonic, tell=lambda _: None)
    assert left_behind() <= before
    assert "Traceback" in capfd.readouterr().err
    assert not multiprocessing.active_children()


def test_a_schedule_travels() -> None:
    """Faults of a file are the same in another process."""
    assert pickle.loads(pickle.dumps(STALE_READS)) == STALE_READS
