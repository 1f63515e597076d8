"""The command `report`: judge a recorded history with all checkers of its workload, and write the result folder.

It opens files, reads the clock, prints; others judge. It is registered in `kv_jepsen.cli`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from kv_jepsen.checkers import CheckResult, Valid, log_patterns
from kv_jepsen.checkers.evidence import LINEARIZABLE_LEVELS
from kv_jepsen.choice import Choice, UnreadablePlan
from kv_jepsen.formats import UnreadableHistory, parse
from kv_jepsen.judge import WORKLOADS, judge, workload_for
from kv_jepsen.linearizable import Limits
from kv_jepsen.report import Run
from kv_jepsen.report.document import UnreadableResults
from kv_jepsen.results import ResultFolder, create, write_index
from kv_jepsen.targets import class_of
from kv_jepsen.verdict import EXIT_BAD_INPUT
from kv_jepsen.workloads import WORKLOADS as CLIENT_WORKLOADS

EXIT: Final[Mapping[Valid, int]] = {True: 0, False: 1, "unknown": 3}
"""Exit status by verdict, as of `check`."""

SEEN_ONCE: Final = frozenset({"cluster", "replicas"})
"""Checkers of what the harness saw during the run: their results are kept when the history is judged again."""

WORD: Final[Mapping[Valid, str]] = {True: "valid", False: "invalid", "unknown": "unknown"}


def report_command(
    path: Annotated[Path, typer.Argument(help="A history, or the folder of a run to judge again.")],
    workload: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(WORKLOADS)}; by default the one that the functions speak of."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default that of the file.")] = None,
    results: Annotated[Path, typer.Option(help="Where result folders are made.")] = Path("results"),
    linearizable: Annotated[
        list[str] | None, typer.Option(help="A read level that is held to be linearizable; may be repeated.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0.001, help="Seconds for linearizability.")] = 60.0,
) -> None:
    """Judge a history and write its report, a page of its own, and the index over all runs.

    Exit status: 0 valid, 1 a violation, 3 unknown, 2 bad usage or unreadable input.
    """
    if workload is not None and workload not in WORKLOADS:
        raise typer.BadParameter(f"no workload {workload!r}; there are {', '.join(WORKLOADS)}")
    try:
        run, folder, choice = _opened(path, name)
        chosen = workload or (judged_as(choice) if choice is not None else workload_for(run.history.calls))
        held = LINEARIZABLE_LEVELS if choice is None else choice.held()
        levels = held | frozenset(linearizable or ())
        judged = judge(
            run, chosen, levels=levels, limits=Limits(seconds=time_limit), now=time.monotonic,
            recovery_ms_max=None if choice is None else choice.recovery_ms_max,
        )  # fmt: skip
    except (OSError, UnicodeDecodeError, UnreadableHistory, ValueError) as error:
        typer.echo(f"{path}: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    folder = folder or create(results, judged.name, datetime.now(UTC))
    folder.save(judged)
    for problem in write_index(folder.path.parent):
        typer.echo(f"left out of the index: {problem}", err=True)
    for check in judged.checks:
        if check.valid == "unknown":
            typer.echo(f"{check.checker}: unknown: {check.reason}")
    typer.echo(f"{chosen}: {WORD[judged.valid]}: {folder.path / 'report.html'}")
    raise typer.Exit(EXIT[judged.valid])


def judged_as(choice: Choice) -> str:
    """The workload of `judge` that the workload of a choice is.

    Raises:
        ValueError: there is none of this name here.
    """
    if choice.workload not in CLIENT_WORKLOADS:
        raise ValueError(f"no workload {choice.workload!r}; there are {', '.join(CLIENT_WORKLOADS)}")
    return CLIENT_WORKLOADS[choice.workload].judged_as


def _opened(path: Path, name: str | None) -> tuple[Run, ResultFolder | None, Choice | None]:
    """The run to judge, its folder if it has one, and what was asked for if the folder tells."""
    if not path.is_dir():
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return Run(name or path.stem, started, parse(path.read_text(encoding="utf-8"))), None, None
    folder = ResultFolder(path.resolve())
    try:
        choice = folder.plan()
    except UnreadablePlan:
        choice = None  # a history was put there by hand, or by an older version
    facts = {} if choice is None else choice.facts()
    run = Run(name or path.name, "", folder.history(), facts, checks=_logs(folder, choice))
    try:
        before = folder.summary()
    except UnreadableResults:
        return run, folder, choice  # it was recorded and never judged
    checks = (*run.checks, *folder.checks(SEEN_ONCE))
    run = Run(name or before.name, before.started, run.history, before.facts, checks=checks)
    return run, folder, choice


def _logs(folder: ResultFolder, choice: Choice | None) -> tuple[CheckResult, ...]:
    """What the nodes' logs show, if there is anything in them."""
    paths = folder.logs()
    lines = {
        node: (folder.path / path).read_text(encoding="utf-8", errors="replace").splitlines()
        for node, path in paths.items()
    }
    allowed = () if choice is None else class_of(choice.target).log_allowed
    return (log_patterns(lines, allowed=allowed),) if any(lines.values()) else ()
