"""The commands `campaign` and `mutants`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from kv_jepsen import cli_tour
from kv_jepsen.checkers import Valid
from kv_jepsen.cli import app
from kv_jepsen.cuts import firewall, sockets
from kv_jepsen.draw import FAMILIES
from kv_jepsen.mutants import Hunt
from kv_jepsen.targets.clocks import MISSING

EXAMPLE = "kv_jepsen.targets.example:Forgetful"


@pytest.mark.skipif(not sockets.offered(), reason="proxy cuts need Linux")
def test_a_campaign_leaves_a_table_and_its_worst_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is made even if the time is short, it is in the table with what it met, and its verdict is the exit status."""
    monkeypatch.setattr(cli_tour, "RUN_S", 3.0)
    monkeypatch.setattr(cli_tour, "RUN_S_MIN", 3.0)
    arguments = ["--target", EXAMPLE, "--seconds", "1", "--faults", "reset", "--workloads", "register"]
    done = CliRunner().invoke(
        app,
        ["campaign", "--cut", "proxy", "--seed", "3", "--results", str(tmp_path), *arguments],
        env={"KV_JEPSEN_STATE": str(tmp_path / "state")},
    )
    assert done.exit_code == 0, done.output
    table = (tmp_path / "campaign.md").read_text()
    assert table in done.output
    assert "A campaign of 1 runs (seed 3)" in table
    assert "Runs: 1 valid." in table
    assert "reset" in table
    assert (tmp_path / "latest" / "report.html").exists()


def test_what_cannot_be_done_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a checkout and libfaketime, and for other targets, a campaign goes without what needs them, and says so."""
    everything = set(FAMILIES)
    assert set(cli_tour._available("etcd")) == everything - {*cli_tour.OF_HOSTS, "router"}
    monkeypatch.setattr(cli_tour, "library", lambda: "somewhere")
    monkeypatch.setattr(cli_tour, "source_tree", Path)
    capsys.readouterr()
    assert set(cli_tour._available("ringkv")) == everything
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(cli_tour, "library", lambda: None)
    monkeypatch.setattr(cli_tour, "source_tree", lambda: None)
    assert set(cli_tour._available("ringkv")) == everything - set(cli_tour.OF_HOSTS)
    told = capsys.readouterr().err
    assert f"without clock: {MISSING}" in told
    assert "without flip: the store's test build is not here" in told


def test_ways_to_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes namespaces in turn with proxies where they can be made and filtered, and proxies elsewhere."""
    for can, ways in ((True, ["proxy", "netns"]), (False, ["proxy"])):
        monkeypatch.setattr(cli_tour, "possible", lambda can=can: can)
        monkeypatch.setattr(firewall, "offered", lambda: True)
        assert cli_tour._cuts("auto") == ways
    monkeypatch.setattr(cli_tour, "possible", lambda: True)
    monkeypatch.setattr(firewall, "offered", lambda: False)
    assert cli_tour._cuts("auto") == ["proxy"]
    assert cli_tour._cuts("netns") == ["netns"]
    assert cli_tour._cuts("both") == ["proxy", "netns"]


def test_the_worst_verdict_decides() -> None:
    """One violation is exit status 1, whatever else there is; unknown is 3, and only all valid is 0."""
    assert cli_tour._worst([True, "unknown", False]) == 1
    assert cli_tour._worst([True, "unknown"]) == 3
    assert cli_tour._worst([True, True]) == 0


def test_a_mutant_that_is_not_hunted(tmp_path: Path) -> None:
    """A name that is not in the table is exit status 2, with those that are."""
    done = CliRunner().invoke(app, ["mutants", "--only", "perfect", "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert "'perfect' is not hunted with real processes; these are: reply-when-proposed" in done.output


class _Judged:
    """Stands for a run of which only the verdict is asked."""

    def __init__(self, valid: Valid) -> None:
        self.valid = valid


@pytest.mark.parametrize(
    ("verdicts", "status", "says"),
    [
        (["unknown", True], 0, "1 runs without a mutant: 1 valid, 0 invalid, 0 that showed nothing"),
        (["unknown", False], 1, "0 valid, 1 invalid"),
        (["unknown"] * cli_tour.CONTROLS_MAX, 3, "0 valid, 0 invalid, 1 that showed nothing"),
    ],
)
def test_a_control_that_shows_nothing_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verdicts: list[Valid], status: int, says: str
) -> None:
    """A run that proves nothing is told and followed by one from another seed; if none proves anything it is unknown."""
    seeds: list[int] = []

    def attempt(hunt: Hunt, mutant: tuple[str, ...], seed: int, results: Path) -> _Judged:
        del hunt, results
        assert mutant == ()
        seeds.append(seed)
        return _Judged(verdicts[len(seeds) - 1])

    monkeypatch.setattr(cli_tour, "_attempt", attempt)
    arguments = ["--control", "--only", "follower-reads", "--runs", "1", "--seed", "4"]
    done = CliRunner().invoke(app, ["mutants", *arguments, "--results", str(tmp_path)])
    assert done.exit_code == status, done.output
    assert says in done.output
    assert "control-follower-reads: run 1 of at most 3 showed nothing" in done.output
    assert seeds == [4 + cli_tour.ATTEMPT_SEEDS * number for number in range(len(verdicts))]
