"""The command `replay`: a run made once more, and whether its verdict is the same. Registered in `kv_jepsen.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from kv_jepsen.choice import UnreadablePlan
from kv_jepsen.cli_report import WORD, judged_as
from kv_jepsen.cli_run import performed, tell, write_the_index
from kv_jepsen.minimize import complaints
from kv_jepsen.perform import judged
from kv_jepsen.report import Run
from kv_jepsen.report.document import UnreadableResults
from kv_jepsen.results import ResultFolder
from kv_jepsen.verdict import EXIT_BAD_INPUT

EXIT_ANOTHER_VERDICT: Final = 1

SAME: Final = (
    "The same: target, options, schedule, when each client asks, and which kind of operation. "
    "Up to the machine: when answers come, which node leads, and so the keys and values of later operations."
)


def replay_command(
    folder: Annotated[Path, typer.Argument(help="Of the run.", exists=True, file_okay=False)],
    results: Annotated[
        Path | None, typer.Option(help="Where the new folder is made; by default beside the old one.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0.001, help="Seconds for linearizability.")] = 120.0,
) -> None:
    """Make a run again: schedule, workload, seed, target and options as they were; tell whether the verdict is the same.

    What is fixed by the seed is what the harness does: the faults and their times, and for each client the times of its
    operations and their kinds. When answers come is up to the machine, and with it who leads, and what later operations say.

    Exit status: 0 the same verdict, 1 another one, 2 the folder cannot be read or the run cannot be made.
    """
    old = ResultFolder(folder.resolve())
    try:
        choice = old.plan()
        before = old.summary()
        judged_as(choice)  # whether there is such a workload here
        if not old.schedule_file.exists():
            raise UnreadablePlan(f"{folder.name} has no schedule")
    except (UnreadablePlan, UnreadableResults, ValueError) as error:
        typer.echo(f"{folder}: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    fresh, run = performed(choice, old.schedule_file, results or old.path.parent)
    done = judged(choice, run, time_limit)
    fresh.save(done)
    write_the_index(fresh.path.parent)
    tell(done)
    typer.echo(SAME)
    same = done.valid == before.valid
    typer.echo(
        f"before: {WORD[before.valid]}, now: {WORD[done.valid]}{_complaints(done)}: {fresh.path / 'report.html'}"
    )
    typer.echo("the same verdict" if same else "ANOTHER VERDICT")
    raise typer.Exit(0 if same else EXIT_ANOTHER_VERDICT)


def _complaints(run: Run) -> str:
    found = ", ".join(map(str, complaints(run)))
    return f" ({found})" if found else ""
