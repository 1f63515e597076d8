"""The commands `run` and `clean`: campaigns against real processes.

They print; `perform` runs, others judge. Registered in `kv_jepsen.cli`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from typing import Annotated, Final

import typer

from kv_jepsen.choice import Choice
from kv_jepsen.cli_report import EXIT, WORD
from kv_jepsen.draw import FAMILIES
from kv_jepsen.perform import Interrupted, Load, drawn, judged, perform
from kv_jepsen.records import clean
from kv_jepsen.report import Run
from kv_jepsen.results import ResultFolder, write_index
from kv_jepsen.schedule import Fault, parse_schedule
from kv_jepsen.targets import TARGETS
from kv_jepsen.unsupported import Unsupported
from kv_jepsen.verdict import EXIT_BAD_INPUT, Judgement
from kv_jepsen.workloads import WORKLOADS

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
    recovery_max: Annotated[
        float | None,
        typer.Option(min=0.001, help="Seconds after a heal in which every partition must serve."),
    ] = None,
    results: Annotated[Path, typer.Option(help="Where result folders are made.")] = Path("results"),
    name: Annotated[str | None, typer.Option(help="Of the run; by default target and workload.")] = None,
    time_limit: Annotated[float, typer.Option(min=0.001, help="Seconds for linearizability.")] = 120.0,
) -> None:
    """Run a cluster under load and faults, record what the clients see, judge it, and write the report.

    Exit status: 0 valid, 1 a violation, 3 unknown (also: no answer that could have been wrong), 2 bad usage, 130 interrupted
    (the history so far is kept).
    """
    choice = Choice(
        name or f"{target.rpartition(':')[2]}-{workload}", target, workload,
        faults if schedule is None else schedule.name, seconds, cut, nodes, processes, rate,
        SystemRandom().randrange(SEED_MAX) if seed is None else seed,
        tuple(option or ()), tuple(levels.split(",")), tuple(linearizable or ()),
        None if recovery_max is None else recovery_max * 1000,
    )  # fmt: skip
    folder, run = performed(choice, schedule, results)
    began = time.monotonic()
    done = judged(choice, run, time_limit)
    folder.save(done)
    write_the_index(results)
    tell(done)
    calls = run.history.calls
    typer.echo(
        f"{len(calls)} calls, {sum(call.ok for call in calls)} ok; judged in {time.monotonic() - began:.1f} s"
    )
    typer.echo(f"{workload}: {WORD[done.valid]}: {folder.path / 'report.html'}")
    raise typer.Exit(EXIT[done.valid])


def clean_command() -> None:
    """End the processes and remove the namespaces that runs of yours have left behind, and nothing else."""
    done = list(clean())
    for line in done or ["nothing was left behind"]:
        typer.echo(line)


# ------------------------------------------------------------------ what all of them do


def performed(
    choice: Choice, schedule: Path | Sequence[Fault] | None, results: Path, load: Load | None = None
) -> tuple[ResultFolder, Run]:
    """Run it, with the faults of a file, given ones, or those that the seed draws; what cannot be done ends the command."""
    try:
        if schedule is None:
            schedule = drawn(choice)
        elif isinstance(schedule, Path):
            schedule = parse_schedule(schedule.read_text(encoding="utf-8"))
        return perform(choice, schedule, results, lambda line: typer.echo(line, err=True), load)
    except (Unsupported, ValueError, OSError, TimeoutError) as error:
        typer.echo(f"kv-jepsen: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except Interrupted as interrupted:
        typer.echo(str(interrupted), err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def tell(run: Run) -> None:
    """Print what is wrong, the first of each kind, and why something is not known."""
    for check in run.checks:
        for finding in check.findings[:3]:
            typer.echo(f"{check.checker}: {finding.kind}: {finding.sentence}")
        if check.valid == "unknown":
            typer.echo(f"{check.checker}: unknown: {check.reason}")
    if run.linearizable is not None:
        for bad in run.linearizable.failures:
            typer.echo(f"not linearizable: key {bad.key}")
        for key in run.linearizable.keys:
            if key.judgement is Judgement.UNKNOWN:
                typer.echo(f"linearizable: unknown: key {key.key}: {key.reason}")
    if run.elle is not None and run.elle.valid == "unknown":
        typer.echo("cycles: unknown: no transaction read anything of another")


def write_the_index(results: Path) -> None:
    """Write the index page over all runs."""
    for problem in write_index(results):
        typer.echo(f"left out of the index: {problem}", err=True)
