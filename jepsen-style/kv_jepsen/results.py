"""The result folder: where the files of a run are, and the index over all runs.

    results/index.html
    results/latest -> the newest run
    results/20261122T101500-register-partitions/
        history.jsonl  history.edn     what the clients saw
        results.json                   the verdicts
        report.html                    the same for people
        schedule                       the faults, as they were asked for
        plan.json                      everything else that was asked for, to run it again
        logs/NODE.log                  what the nodes wrote

Files only: what is in them comes from `kv_jepsen.formats` and `kv_jepsen.report`. Each file is written beside its
place and renamed, so that a reader never sees half of one. The time is a parameter.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Final

from kv_jepsen.checkers import CheckResult
from kv_jepsen.choice import Choice, UnreadablePlan, chosen
from kv_jepsen.formats import dump_edn, dump_jsonl, parse
from kv_jepsen.history import History
from kv_jepsen.report import Run, Summary, index, report
from kv_jepsen.report.document import UnreadableResults, checks_of, document, summary

NAME_CHARS_MAX: Final = 80
"""Of a run's name in its folder's name; the rest is cut."""

LATEST: Final = "latest"


@dataclass(frozen=True, slots=True)
class ResultFolder:
    """The folder of one run."""

    path: Path

    @property
    def history_file(self) -> Path:
        """Where the history is, or is recorded while the run goes on."""
        return self.path / "history.jsonl"

    @property
    def schedule_file(self) -> Path:
        """Where the schedule of faults is."""
        return self.path / "schedule"

    @property
    def plan_file(self) -> Path:
        """Where it stands what was asked for, but the schedule; see `choice`."""
        return self.path / "plan.json"

    def plan(self) -> Choice:
        """What was asked for.

        Raises:
            UnreadablePlan: there is no `plan.json`, or it is not one.
        """
        try:
            return chosen(json.loads(self.plan_file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UnreadablePlan(f"{self.path.name}: plan.json cannot be read: {error}") from error

    def log_file(self, node: str) -> Path:
        """Where the log of a node is; its folder is made."""
        logs = self.path / "logs"
        logs.mkdir(exist_ok=True)
        return logs / f"{slug(node)}.log"

    def logs(self) -> dict[str, str]:
        """Node to the path of its log, relative to this folder."""
        return {file.stem: f"logs/{file.name}" for file in sorted(self.path.glob("logs/*.log"))}

    def history(self) -> History:
        """The recorded history.

        Raises:
            OSError: there is none.
            UnreadableHistory: it cannot be parsed.
            MalformedHistory: it breaks the rules of recording.
        """
        return parse(self.history_file.read_text(encoding="utf-8"))

    def save(self, run: Run) -> None:
        """Write everything of a run that was judged; logs and schedule that are there already are linked and shown."""
        schedule = run.schedule
        if not schedule and self.schedule_file.exists():
            schedule = self.schedule_file.read_text(encoding="utf-8")
        whole = replace(run, schedule=schedule, logs=run.logs or self.logs())
        _write(self.history_file, dump_jsonl(run.history))
        _write(self.path / "history.edn", dump_edn(run.history))
        if schedule:
            _write(self.schedule_file, schedule)
        _write(self.path / "results.json", json.dumps(document(whole), indent=1, ensure_ascii=False) + "\n")
        _write(self.path / "report.html", report(whole))

    def summary(self) -> Summary:
        """The line of the index page.

        Raises:
            UnreadableResults: there is no `results.json`, or it is not one.
        """
        return summary(self.path.name, self._results())

    def checks(self, names: Collection[str]) -> tuple[CheckResult, ...]:
        """What the checkers with these names had found: those that the history alone cannot be judged by again.

        Raises:
            UnreadableResults: as of `summary`.
        """
        return checks_of(self.path.name, self._results(), names)

    def _results(self) -> object:
        try:
            return json.loads((self.path / "results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UnreadableResults(f"{self.path.name}: results.json cannot be read: {error}") from error


def create(root: Path, name: str, started: datetime) -> ResultFolder:
    """Make the folder of a new run, and point `latest` to it."""
    root.mkdir(parents=True, exist_ok=True)
    path = _unused(root, f"{started:%Y%m%dT%H%M%S}-{slug(name)}")
    _point(root / LATEST, path.name)
    return ResultFolder(path)


def _unused(root: Path, base: str) -> Path:
    """Make a folder of this name, or of this name with a number if it is taken."""
    names = chain([base], (f"{base}-{number}" for number in count(2)))
    for name in names:
        path = root / name
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("there are always more numbers")


def slug(name: str) -> str:
    """The name as part of a file name: letters, digits, dots, dashes; never empty, never a path."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:NAME_CHARS_MAX].strip("-.")
    return plain or "run"


def runs(root: Path) -> Iterator[ResultFolder]:
    """The runs that have been judged, oldest first."""
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.is_symlink() and (path / "results.json").exists():
            yield ResultFolder(path)


def write_index(root: Path) -> list[str]:
    """Write the index page over all runs; returns what is wrong with those that could not be read and were left out."""
    summaries: list[Summary] = []
    problems: list[str] = []
    for folder in runs(root):
        try:
            summaries.append(folder.summary())
        except UnreadableResults as error:
            problems.append(str(error))
    _write(root / "index.html", index(summaries))
    return problems


def _point(link: Path, target: str) -> None:
    """Make or move a symbolic link in one step."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)


def _write(path: Path, content: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
