"""Stock against guarded: the library loses under these seeds what the guarded group keeps under the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import pysyncobj.syncobj
import pytest
import structlog

from kv.cli.sim_stock import KINDS_DEFAULT, run_stock
from kv.errors import InvalidArgument
from kv.sim.stock.fault_sets import fault_set
from kv.sim.stock.trial import Kind, Outcome, run_trial

VIOLATIONS = [
    pytest.param("power", 1, 0.15, "lost", id="lost"),
    pytest.param("power", 42, 0.3, "two leaders", id="two-leaders"),
    pytest.param("compaction", 3, 0.35, "differ", id="differ"),
]
SHORT_MIN = 0.1
CALM_S = 5.0
"""Guarded replicas are at rest long before; the library never gets there under the seeds used here."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nothing of the production code's log; afterwards the log is as it was, whatever the command did to it."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.configure(**before)


def trial(kind: Kind, name: str, seed: int, minutes: float) -> Outcome:
    """Run one trial of a fault set by its name."""
    return run_trial(kind, fault_set(name), seed, minutes, calm_s=CALM_S)


def assert_clean(outcome: Outcome) -> None:
    """All is well, and something happened."""
    assert outcome.violation is None, outcome.text
    assert not outcome.no_progress, outcome.text
    assert outcome.stale_reads == 0, outcome.first_stale_read
    assert outcome.acknowledged > 100
    assert outcome.reads > 10


@pytest.mark.parametrize(("name", "seed", "minutes", "kind"), VIOLATIONS)
def test_stock_violates_safety_where_guarded_does_not(
    name: str, seed: int, minutes: float, kind: str
) -> None:
    """The library as shipped violates this property under this seed; the guarded group violates none."""
    stock = trial("stock", name, seed, minutes)
    assert stock.violation == kind, stock.text
    assert "VIOLATION" in stock.history[-1]
    assert_clean(trial("guarded", name, seed, minutes))


def test_stock_is_stale_and_stuck_where_guarded_is_not() -> None:
    """A deposed leader of the library answers reads from its old state, and the group never recovers."""
    stock = trial("stock", "lossy3", 20, 0.2)
    assert stock.violation is None, stock.text
    assert stock.stale_reads > 0
    assert "was known" in stock.first_stale_read
    assert stock.no_progress
    assert "stays behind" in stock.text
    assert_clean(trial("guarded", "lossy3", 20, 0.2))


@pytest.mark.parametrize("kind", ["stock", "guarded"])
def test_a_seed_decides_everything(kind: Kind) -> None:
    """Two trials of one seed are equal in every event that is counted or noted; another seed differs."""
    assert trial(kind, "crash", 5, SHORT_MIN) == trial(kind, "crash", 5, SHORT_MIN)
    assert trial(kind, "crash", 5, SHORT_MIN) != trial(kind, "crash", 6, SHORT_MIN)


def test_a_seed_decides_everything_in_any_process() -> None:
    """Neither the hash seed of the process nor its other modules change a trial."""
    script = (
        "import json, structlog\n"
        "structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))\n"
        "from dataclasses import asdict\n"
        "from kv.sim.stock.fault_sets import fault_set\n"
        "from kv.sim.stock.trial import run_trial\n"
        "runs = [run_trial(kind, fault_set('lossy5'), 3, 0.05, 1.0) for kind in ('stock', 'guarded')]\n"
        "print(json.dumps([asdict(run) for run in runs]))\n"
    )
    here = [asdict(run_trial(kind, fault_set("lossy5"), 3, 0.05, 1.0)) for kind in KINDS_DEFAULT]
    process = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout) == json.loads(json.dumps(here))


def test_the_library_is_given_back_as_it_was() -> None:
    """A stock trial between two guarded ones changes nothing for them: the library's globals are put back."""
    before = {
        name: getattr(pysyncobj.syncobj, name) for name in ("monotonicTime", "random", "createJournal", "os")
    }
    first = trial("guarded", "cut", 1, SHORT_MIN)
    trial("stock", "power", 1, 0.15)
    assert {name: getattr(pysyncobj.syncobj, name) for name in before} == before
    assert trial("guarded", "cut", 1, SHORT_MIN) == first


def test_the_command_prints_one_record_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """With `as_json` each row is one object with all its seeds; what stock does wrong is no failure."""
    status = run_stock(seeds=[1], fault_sets=["power"], minutes=0.15, as_json=True, history=5)
    printed = capsys.readouterr()
    stock, guarded = (json.loads(text) for text in printed.out.splitlines())
    assert status == 0
    assert (stock["kind"], stock["violated"], stock["violations"]["lost"]) == ("stock", 1, [1])
    assert (guarded["kind"], guarded["violated"], guarded["no_progress"]) == ("guarded", 0, [])
    assert "VIOLATION (lost)" in printed.err


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Without, it prints a table with a row for each kind, and what it covered."""
    run_stock(seeds=[1], fault_sets=["power"], kinds=["stock"], minutes=0.15)
    header, row, total = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["faults", "kind", "seeds"]
    assert row.startswith("power: power loss")
    assert "simulated hours" in total


def test_the_command_names_the_fault_sets() -> None:
    """An unknown fault set is refused with the names of all."""
    with pytest.raises(InvalidArgument, match="slow, cut, crash, compaction, power, lossy3, lossy5"):
        run_stock(seeds=[1], fault_sets=["flood"])
