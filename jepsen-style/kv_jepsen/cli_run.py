"""The commands `run`, `clean` and `lab`: campaigns against real processes.

They make folders, read the clock, print; `runner` runs, others judge. Registered in `kv_jepsen.cli`.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from typing import Annotated, Final

import typer

from kv_jepsen.checkers import CheckResult, Finding, log_patterns
from kv_jepsen.checkers.evidence import LINEARIZABLE_LEVELS
from kv_jepsen.cli_report import EXIT, WORD
from kv_jepsen.cuts.api import Cuts
from kv_jepsen.cuts.netns import NetnsCuts
from kv_jepsen.cuts.proxy import ProxyCuts
from kv_jepsen.draw import FAMILIES, draw_schedule
from kv_jepsen.judge import judge
from kv_jepsen.lab import lab_page, lab_rows, lab_text
from kv_jepsen.linearizable import Limits
from kv_jepsen.nemesis import unsupported
from kv_jepsen.records import Records, clean
from kv_jepsen.report import Run
from kv_jepsen.results import ResultFolder, create, write_index
from kv_jepsen.runner import Plan, Recorded, campaign
from kv_jepsen.schedule import Fault, format_schedule, parse_schedule
from kv_jepsen.targets import TARGETS, Places, Target, by_name
from kv_jepsen.unsupported import Unsupported
from kv_jepsen.verdict import EXIT_BAD_INPUT
from kv_jepsen.workloads import WORKLOADS, Workload

SEED_MAX: Final = 1 << 32
NODES_MAX: Final = 9
EXIT_INTERRUPTED: Final = 130

TargetOption = Annotated[
    str, typer.Option(help=f"{', '.join(TARGETS)}, or module:Class of your own.", show_default=True)
]
FaultsOption = Annotated[str, typer.Option(help=f"Families, with commas: {', '.join(FAMILIES)}; or none.")]
ScheduleOption = Annotated[
    Path | None, typer.Option(help="A schedule file, in the place of random faults.", exists=True)
]
OptionOption = Annotated[
    list[str] | None, typer.Option("--option", help="name=value for the target; may be repeated.")
]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person asked for."""

    target: str
    workload: str
    faults: str
    schedule: Path | None
    seconds: float
    cut: str
    nodes: int
    processes: int
    rate: float
    seed: int
    options: Sequence[str]
    levels: Sequence[str]
    results: Path
    name: str

    def facts(self) -> dict[str, str]:
        """What stands in the report beside the verdict."""
        return {
            "target": self.target,
            "workload": self.workload,
            "nodes": str(self.nodes),
            "clients": str(self.processes),
            "faults": self.schedule.name if self.schedule else self.faults,
            "cut": self.cut,
            "levels": ", ".join(self.levels),
            "seed": str(self.seed),
        }


def run_command(
    target: TargetOption = "ringkv",
    workload: Annotated[str, typer.Option(help=f"One of {', '.join(WORKLOADS)}.")] = "register",
    faults: FaultsOption = "partition,kill",
    schedule: ScheduleOption = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of load.")] = 30.0,
    cut: Annotated[
        str, typer.Option(help="How the network is cut: proxy, or netns (Linux, root).")
    ] = "proxy",
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX)] = 3,
    processes: Annotated[int, typer.Option(min=1, help="Clients.")] = 6,
    rate: Annotated[float, typer.Option(min=0.1, help="Operations a second, of all clients.")] = 60.0,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn; by default a new one.")
    ] = None,
    option: OptionOption = None,
    levels: Annotated[
        str, typer.Option(help="Read levels, with commas, each read takes one.")
    ] = "linearizable",
    linearizable: Annotated[
        list[str] | None, typer.Option(help="A read level that is held to be linearizable; may be repeated.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where result folders are made.")] = Path("results"),
    name: Annotated[str | None, typer.Option(help="Of the run; by default target and workload.")] = None,
    time_limit: Annotated[float, typer.Option(min=0.001, help="Seconds for linearizability.")] = 120.0,
) -> None:
    """Run a cluster under load and faults, record what the clients see, judge it, and write the report.

    Exit status: 0 valid, 1 a violation, 3 unknown, 2 bad usage, 130 interrupted (the history so far is kept).
    """
    choice = Choice(
        target, workload, faults, schedule, seconds, cut, nodes, processes, rate,
        SystemRandom().randrange(SEED_MAX) if seed is None else seed,
        option or (), levels.split(","), results, name or f"{target.rpartition(':')[2]}-{workload}",
    )  # fmt: skip
    folder, run = _recorded(choice)
    held = {*LINEARIZABLE_LEVELS, *(linearizable or ())}
    began = time.monotonic()
    chosen = WORKLOADS[workload].judged_as
    judged = judge(run, chosen, levels=held, limits=Limits(seconds=time_limit), now=time.monotonic)
    folder.save(judged)
    _index(results)
    for check in judged.checks:
        for finding in check.findings[:3]:
            typer.echo(f"{check.checker}: {finding.kind}: {finding.sentence}")
    if judged.linearizable is not None:
        for bad in judged.linearizable.failures:
            typer.echo(f"not linearizable: key {bad.key}")
    calls = run.history.calls
    typer.echo(
        f"{len(calls)} calls, {sum(call.ok for call in calls)} ok; judged in {time.monotonic() - began:.1f} s"
    )
    typer.echo(f"{workload}: {WORD[judged.valid]}: {folder.path / 'report.html'}")
    raise typer.Exit(EXIT[judged.valid])


def clean_command() -> None:
    """End the processes and remove the namespaces that runs of yours have left behind, and nothing else."""
    done = list(clean())
    for line in done or ["nothing was left behind"]:
        typer.echo(line)


def lab_command(
    experiment: Annotated[str, typer.Argument(help="`reads`: all read levels side by side.")] = "reads",
    target: TargetOption = "ringkv",
    faults: FaultsOption = "leader,kill_leader,pause_leader",
    schedule: ScheduleOption = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of load.")] = 60.0,
    cut: Annotated[str, typer.Option(help="proxy or netns.")] = "proxy",
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX)] = 3,
    processes: Annotated[int, typer.Option(min=1, help="Clients.")] = 6,
    rate: Annotated[float, typer.Option(min=0.1, help="Operations a second, of all clients.")] = 100.0,
    seed: Annotated[int | None, typer.Option(help="By default a new one.")] = None,
    option: OptionOption = None,
    levels: Annotated[str | None, typer.Option(help="With commas; by default all of the target.")] = None,
    results: Annotated[Path, typer.Option(help="Where result folders are made.")] = Path("results"),
) -> None:
    """Run all read levels under one schedule of faults, and show what each gives: one table, one page."""
    if experiment != "reads":
        raise typer.BadParameter("there is one experiment: reads")
    choice = Choice(
        target, "register", faults, schedule, seconds, cut, nodes, processes, rate,
        SystemRandom().randrange(SEED_MAX) if seed is None else seed,
        option or (), levels.split(",") if levels else ("*",), results, f"lab-reads-{target.rpartition(':')[2]}",
    )  # fmt: skip
    folder, run = _recorded(choice)
    judged = judge(run, "register", now=time.monotonic)
    folder.save(judged)
    rows = lab_rows(judged, now=time.monotonic)
    (folder.path / "lab.html").write_text(lab_page(judged, rows), encoding="utf-8")
    (folder.path / "lab.md").write_text(lab_text(rows), encoding="utf-8")
    _index(results)
    typer.echo(lab_text(rows))
    typer.echo(f"{WORD[judged.valid]} as declared: {folder.path / 'lab.html'}")
    raise typer.Exit(EXIT[judged.valid])


# ------------------------------------------------------------------ one campaign


def _recorded(choice: Choice) -> tuple[ResultFolder, Run]:
    """Run it; the history, the schedule and the logs are in the folder, nothing is judged but the logs."""
    try:
        return _record(choice)
    except (Unsupported, ValueError, OSError, TimeoutError) as error:
        typer.echo(f"kv-jepsen: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error


def _record(choice: Choice) -> tuple[ResultFolder, Run]:
    if choice.workload not in WORKLOADS:
        raise Unsupported(f"no workload {choice.workload!r}: choose one of {', '.join(WORKLOADS)}")
    for line in clean():
        typer.echo(f"clean: {line}", err=True)
    nodes = [f"n{number}" for number in range(1, choice.nodes + 1)]
    schedule = _schedule(choice, nodes)
    started = datetime.now(UTC)
    records = Records.fresh(choice.name.replace("/", "-"))
    try:
        cuts = _cuts(choice, nodes, records)
        folder = create(choice.results, choice.name, started)
        folder.schedule_file.write_text(format_schedule(schedule), encoding="utf-8")
        target = _target(choice, nodes, folder, cuts, records)
        if problems := unsupported(schedule, cuts):
            raise Unsupported("; ".join(problems))
        workload = _workload(choice, target)
        plan = Plan(choice.processes, choice.seconds, choice.rate, choice.seed, schedule)
        typer.echo(f"{choice.name}: {choice.seconds:g} s, seed {choice.seed}, {folder.path}", err=True)
        recorded = _run(plan, target, cuts, workload, folder)
    finally:
        records.close()  # ends also what a campaign could not, as when it was interrupted twice
    checks = _checks(folder, target, recorded)
    facts = {**choice.facts(), "levels": ", ".join(workload.levels)}
    when = started.isoformat(timespec="seconds")
    return folder, Run(choice.name, when, recorded.history, facts, checks=checks)


def _checks(folder: ResultFolder, target: Target, recorded: Recorded) -> tuple[CheckResult, ...]:
    """What is judged without the history: the nodes' logs, and what the harness saw itself."""
    logs = {
        node: (folder.path / log).read_text("utf-8", "replace").splitlines()
        for node, log in folder.logs().items()
    }
    broken = tuple(Finding("broken", problem) for problem in recorded.problems)
    cluster = CheckResult("cluster", not broken, broken, {"problems": len(broken)})
    return (log_patterns(logs, allowed=target.log_allowed), cluster) if any(logs.values()) else (cluster,)


def _schedule(choice: Choice, nodes: Sequence[str]) -> list[Fault]:
    if choice.schedule is not None:
        return parse_schedule(choice.schedule.read_text(encoding="utf-8"))
    families = [] if choice.faults in {"", "none"} else choice.faults.split(",")
    return draw_schedule(Random(choice.seed), nodes, families, choice.seconds)


def _cuts(choice: Choice, nodes: Sequence[str], records: Records) -> Cuts:
    if choice.cut == "proxy":
        return ProxyCuts(nodes, Random(choice.seed))
    if choice.cut == "netns":
        return NetnsCuts(nodes, records)
    raise Unsupported(f"no way {choice.cut!r} to cut the network: choose proxy or netns")


def _target(
    choice: Choice, nodes: Sequence[str], folder: ResultFolder, cuts: Cuts, records: Records
) -> Target:
    logs = folder.path / "logs"
    logs.mkdir()
    return by_name(
        choice.target, nodes, Places(records.folder(), logs), cuts, records, _options(choice.options)
    )


def _options(given: Sequence[str]) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise Unsupported(f"--option {one!r} is not name=value")
        options[name] = value
    return options


def _workload(choice: Choice, target: Target) -> Workload:
    levels = target.levels if tuple(choice.levels) == ("*",) else tuple(choice.levels)
    unknown = [
        one for one in levels if one.partition(":")[0] not in {x.partition(":")[0] for x in target.levels}
    ]
    if unknown:
        raise Unsupported(
            f"{choice.target} has no read level {unknown[0]!r}, it has {', '.join(target.levels)}"
        )
    return WORKLOADS[choice.workload](choice.processes, levels)


def _run(plan: Plan, target: Target, cuts: Cuts, workload: Workload, folder: ResultFolder) -> Recorded:
    """Run the campaign until its end, or until Ctrl-C or SIGTERM, which end its nodes as well."""

    async def until_told() -> Recorded:
        task = asyncio.current_task()
        assert task is not None, "asyncio.run runs it in one"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await campaign(plan, target, cuts, workload, folder.history_file)

    try:
        return asyncio.run(until_told())
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo(f"interrupted; `kv-jepsen report {folder.path}` judges what was recorded", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _index(results: Path) -> None:
    for problem in write_index(results):
        typer.echo(f"left out of the index: {problem}", err=True)
