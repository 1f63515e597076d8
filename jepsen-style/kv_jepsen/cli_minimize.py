"""The command `minimize`: a violation made small. Registered in `kv_jepsen.cli`.

It opens files, reads the clock, prints; `kv_jepsen.minimize` decides what to try, `rerun` runs it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from kv_jepsen.checkers.evidence import LINEARIZABLE_LEVELS
from kv_jepsen.choice import Choice, UnreadablePlan
from kv_jepsen.cli_report import judged_as
from kv_jepsen.cli_run import EXIT_INTERRUPTED
from kv_jepsen.formats import UnreadableHistory, parse
from kv_jepsen.history import History
from kv_jepsen.judge import WORKLOADS, judge, workload_for
from kv_jepsen.linearizable import Limits
from kv_jepsen.minimize import Complaint, Minimized, NothingToMinimize, complaints, minimize
from kv_jepsen.minimize.complaint import ABOUT_NO_CALL
from kv_jepsen.perform import Interrupted
from kv_jepsen.report import Run
from kv_jepsen.report.document import UnreadableResults
from kv_jepsen.rerun import Reruns, smallest_schedule
from kv_jepsen.results import ResultFolder, create
from kv_jepsen.schedule import BadSchedule, parse_schedule
from kv_jepsen.unsupported import Unsupported
from kv_jepsen.verdict import EXIT_BAD_INPUT

EXIT_NOT_MINIMAL: Final = 3
MINIMIZED: Final = "minimized"
"""Folder, in that of the run."""


def minimize_command(
    path: Annotated[Path, typer.Argument(help="A history, or the folder of a run.")],
    workload: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(WORKLOADS)}; by default the one of the run.")
    ] = None,
    linearizable: Annotated[
        list[str] | None, typer.Option(help="A read level that is held to be linearizable; may be repeated.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0.001, help="Seconds for the history.")] = 60.0,
    minutes: Annotated[
        float, typer.Option(min=0, help="For the schedule of a run's folder; 0 leaves it as it is.")
    ] = 10.0,
    attempts: Annotated[
        int, typer.Option(min=1, help="Runs of one schedule before it counts as harmless.")
    ] = 3,
    results: Annotated[Path, typer.Option(help="Where the result of a single history goes.")] = Path(
        "results"
    ),
) -> None:
    """Find the smallest part of a history, and of a run's schedule, that still shows the violation.

    Calls are left out as long as the same checker has the same complaint; an answer keeps the calls that it rests upon, so that
    nothing is made up. For the schedule the run is made again with fewer faults. All of it is in the folder `minimized` of the run.

    Exit status: 0 done, 3 the time was over before all was tried, 2 bad usage, unreadable input, or no violation.
    """
    if workload is not None and workload not in WORKLOADS:
        raise typer.BadParameter(f"no workload {workload!r}; there are {', '.join(WORKLOADS)}")
    try:
        case = _opened(path, workload, linearizable or ())
        complaint, found = _smallest_history(case, time_limit)
        minimal = _saved(case, found, results) if found is not None else True
        if case.folder is not None and case.choice is not None and minutes:
            minimal &= _schedule(case.folder, case.choice, complaint, minutes, attempts)
    except (OSError, UnreadableHistory, UnreadableResults, Unsupported, ValueError, TimeoutError) as error:
        typer.echo(f"{path}: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except Interrupted as interrupted:
        typer.echo(str(interrupted), err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(0 if minimal else EXIT_NOT_MINIMAL)


@dataclass(frozen=True, slots=True)
class _Case:
    """What is to be made smaller; a run of its own has a folder, and a choice if it can be made again."""

    name: str
    history: History
    workload: str
    levels: frozenset[str]
    folder: ResultFolder | None = None
    choice: Choice | None = None


def _opened(path: Path, workload: str | None, linearizable: Sequence[str]) -> _Case:
    held = frozenset({*LINEARIZABLE_LEVELS, *linearizable})
    if not path.is_dir():
        history = parse(path.read_text(encoding="utf-8"))
        return _Case(path.stem, history, workload or workload_for(history.calls), held)
    folder = ResultFolder(path.resolve())
    history = folder.history()
    try:
        choice = folder.plan()
    except UnreadablePlan as error:
        typer.echo(f"{error}; the schedule stays as it is", err=True)
        return _Case(path.name, history, workload or workload_for(history.calls), held, folder)
    levels = held | choice.held()
    return _Case(choice.name, history, workload or judged_as(choice), levels, folder, choice)


def _smallest_history(case: _Case, seconds: float) -> tuple[Complaint, Minimized | None]:
    """What is wrong, and the calls that show it; None if what is wrong is about no call."""
    try:
        found = minimize(case.history, case.workload, case.levels, Limits(seconds), time.monotonic)
    except NothingToMinimize:
        checks = () if case.folder is None else case.folder.checks(ABOUT_NO_CALL)
        of_nodes = complaints(Run("", "", case.history, checks=checks))
        if not of_nodes:
            raise
        typer.echo(f"{of_nodes[0]}: no call shows it, so the history stays as it is")
        return of_nodes[0], None
    return found.complaint, found


def _saved(case: _Case, found: Minimized, results: Path) -> bool:
    """Judge what is left, and write it with its report; whether it is minimal."""
    typer.echo(found.words())
    name = f"{case.name}-minimized"
    if case.folder is None:
        folder = create(results, name, datetime.now(UTC))
    else:
        folder = ResultFolder(case.folder.path / MINIMIZED)
        folder.path.mkdir(exist_ok=True)
    facts = {"minimized": found.words()}
    above = ("../index.html", "all runs") if case.folder is None else ("../report.html", "the whole run")
    run = Run(name, "", found.history, facts, above=above)
    folder.save(judge(run, case.workload, levels=case.levels, now=time.monotonic))
    typer.echo(f"history: {folder.path / 'report.html'}")
    return found.minimal


def _schedule(
    folder: ResultFolder, choice: Choice, complaint: Complaint, minutes: float, attempts: int
) -> bool:
    """Make the run again with fewer and fewer faults; whether nothing is left to try."""
    try:
        schedule = parse_schedule(folder.schedule_file.read_text(encoding="utf-8"))
    except (OSError, BadSchedule) as error:
        typer.echo(f"the schedule stays as it is: {error}", err=True)
        return True
    target = folder.path / MINIMIZED
    target.mkdir(exist_ok=True)
    reruns = Reruns(
        choice,
        complaint,
        target / "attempts",
        attempts,
        time.monotonic() + minutes * 60,
        lambda line: typer.echo(line, err=True),
    )
    return smallest_schedule(reruns, schedule, target, typer.echo)
