"""The result folder: everything of a run is there, can be read back, and shows on the index page."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen import results
from kv_jepsen.checkers import CheckResult, Finding
from kv_jepsen.history import History, Op, OpType
from kv_jepsen.report import Run
from kv_jepsen.report.document import UnreadableResults

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HISTORY = History(
    [
        Op(0, 0, OpType.INVOKE, "write", "x", (1, "a"), 10),
        Op(1, 0, OpType.OK, "write", "x", (1, "a"), 2_000_000_000, None, {"index": 4}),
    ]
)
CHECKS = (CheckResult("set", False, (Finding("lost", "5 is gone.", (0,)),), {"lost": 1}),)


def test_a_saved_run_has_all_files_and_reads_back(tmp_path: Path) -> None:
    """Histories in both formats, verdicts, schedule, logs and report are there; history and summary read back equal."""
    folder = results.create(tmp_path, "register / partitions", STARTED)
    folder.log_file("n1").write_text("hello")
    folder.schedule_file.write_text("1.0 partition n1/*\n")
    folder.save(Run("register", "2026-01-02", HISTORY, {"seed": "4"}, checks=CHECKS))
    assert folder.path.name == "20260102T030405-register-partitions"
    files = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    assert files == {"history.jsonl", "history.edn", "results.json", "schedule", "report.html", "logs/n1.log"}
    assert folder.history().ops == HISTORY.ops
    page = (folder.path / "report.html").read_text()
    assert "1.0 partition n1/*" in page
    assert 'href="logs/n1.log"' in page
    summary = folder.summary()
    assert (summary.valid, summary.calls, summary.duration_s, summary.facts) == (False, 1, 2.0, {"seed": "4"})
    loaded = json.loads((folder.path / "results.json").read_text())
    assert loaded["checks"][0]["findings"] == [{"kind": "lost", "sentence": "5 is gone.", "ops": [0]}]


def test_latest_leads_to_the_newest_run(tmp_path: Path) -> None:
    """Each new run takes `latest`; two of one second and name get folders of their own."""
    first = results.create(tmp_path, "a", STARTED)
    second = results.create(tmp_path, "a", STARTED)
    assert (first.path.name, second.path.name) == ("20260102T030405-a", "20260102T030405-a-2")
    assert (tmp_path / "latest").resolve() == second.path.resolve()


def test_the_index_lists_judged_runs_and_names_broken_ones(tmp_path: Path) -> None:
    """A run without verdicts is not listed; one whose verdicts cannot be read is left out and told."""
    for name in ("good", "broken", "other", "running"):
        folder = results.create(tmp_path, name, STARTED)
        if name == "good":
            folder.save(Run(name, "2026", HISTORY, checks=CHECKS))
        elif name == "broken":
            (folder.path / "results.json").write_text("{")
        elif name == "other":
            (folder.path / "results.json").write_text('{"version": 1}')
    problems = results.write_index(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.count("report.html") == 1
    assert "20260102T030405-good/report.html" in page
    assert [problem.split(":")[0] for problem in problems] == [
        "20260102T030405-broken",
        "20260102T030405-other",
    ]


@pytest.mark.parametrize("content", ["[]", '{"version": 2}', '{"version": 1, "valid": []}', "nonsense", None])
def test_verdicts_that_are_none_are_refused(tmp_path: Path, content: str | None) -> None:
    """Whatever is in `results.json`, the error is the one that names the folder."""
    folder = results.create(tmp_path, "a", STARTED)
    if content is not None:
        (folder.path / "results.json").write_text(content)
    with pytest.raises(UnreadableResults, match=r"20260102T030405-a: results\.json"):
        folder.summary()


@given(st.text(max_size=200))
def test_a_slug_is_one_plain_file_name(name: str) -> None:
    """Whatever a run is called, its folder's name is no path, not hidden, not empty and not too long."""
    made = results.slug(name)
    assert 0 < len(made) <= results.NAME_CHARS_MAX
    assert "/" not in made
    assert not made.startswith((".", "-"))
