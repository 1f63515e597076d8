"""The command `lab`: experiments that show what read levels are. They print; `perform` runs, `lab` and `lab_partitions` tell."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Annotated, Final

import typer

from kv_jepsen.choice import Choice
from kv_jepsen.cli_report import EXIT, WORD
from kv_jepsen.cli_run import (
    NODES_MAX,
    SEED_MAX,
    OptionOption,
    ScheduleOption,
    TargetOption,
    performed,
    write_the_index,
)
from kv_jepsen.draw import FAMILIES
from kv_jepsen.lab import lab_page, lab_rows, lab_text
from kv_jepsen.lab_partitions import lanes, timeline_page, timeline_text
from kv_jepsen.perform import judged, nodes_of
from kv_jepsen.report import Run
from kv_jepsen.results import ResultFolder
from kv_jepsen.schedule import fault
from kv_jepsen.targets import class_of
from kv_jepsen.unsupported import Unsupported
from kv_jepsen.verdict import EXIT_BAD_INPUT
from kv_jepsen.watchers import Watchers, processes_for

EXPERIMENTS: Final = ("reads", "partitions")

CUT_S, HEAL_S, END_S = 3.0, 10.0, 14.0
"""Of the experiment `partitions`: when the leader is cut off, when that ends, when all ends."""
WATCH_RATE: Final = 3.0
"""Operations a second of each client in that."""

WATCHED: Final[Mapping[str, tuple[str, ...]]] = {"ringkv": ("partitions=1", "reads=own")}
"""Options of a target in that: one partition, and clients that ask the node that they belong to."""


def lab_command(
    experiment: Annotated[
        str,
        typer.Argument(
            help="`reads`: all read levels under random faults; `partitions`: one leader cut off, as a timeline."
        ),
    ] = "reads",
    target: TargetOption = "ringkv",
    faults: Annotated[
        str, typer.Option(help=f"Of `reads`: families, with commas: {', '.join(FAMILIES)}; or none.")
    ] = "leader,kill_leader,pause_leader",
    schedule: ScheduleOption = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of load, for `reads`.")] = 60.0,
    cut: Annotated[str, typer.Option(help="proxy or netns.")] = "proxy",
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX)] = 3,
    processes: Annotated[int, typer.Option(min=1, help="Clients, for `reads`.")] = 6,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Operations a second, of all clients, for `reads`.")
    ] = 100.0,
    seed: Annotated[int | None, typer.Option(help="By default a new one.")] = None,
    option: OptionOption = None,
    levels: Annotated[str | None, typer.Option(help="With commas; by default all of the target.")] = None,
    results: Annotated[Path, typer.Option(help="Where result folders are made.")] = Path("results"),
) -> None:
    """Show what read levels give: `reads` in one table, under random faults; `partitions` in one timeline, one leader cut off.

    Exit status: 0 every level kept what it promises, 1 a violation, 3 unknown, 2 bad usage.
    """
    if experiment not in EXPERIMENTS:
        raise typer.BadParameter(f"there are {' and '.join(EXPERIMENTS)}", param_hint="EXPERIMENT")
    choice = Choice(
        f"lab-{experiment}-{target.rpartition(':')[2]}", target, "register",
        faults if schedule is None else schedule.name, seconds, cut, nodes, processes, rate,
        SystemRandom().randrange(SEED_MAX) if seed is None else seed,
        tuple(option or ()), tuple(levels.split(",")) if levels else ("*",),
    )  # fmt: skip
    folder, run = _reads(choice, schedule, results) if experiment == "reads" else _partitions(choice, results)
    write_the_index(results)
    typer.echo(f"{WORD[run.valid]} as declared: {folder.path / 'lab.html'}")
    raise typer.Exit(EXIT[run.valid])


def _reads(choice: Choice, schedule: Path | None, results: Path) -> tuple[ResultFolder, Run]:
    folder, run = performed(choice, schedule, results)
    done = judged(choice, run)
    folder.save(done)
    rows = lab_rows(done, now=time.monotonic)
    _write(folder, lab_page(done, rows), lab_text(rows))
    return folder, done


def _partitions(choice: Choice, results: Path) -> tuple[ResultFolder, Run]:
    try:
        levels: Sequence[str] = class_of(choice.target).levels if choice.levels == ("*",) else choice.levels
    except Unsupported as error:
        typer.echo(f"kv-jepsen: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    processes = processes_for(len(levels), choice.nodes)
    chosen = replace(
        choice, levels=tuple(levels), processes=processes, seconds=END_S, rate=processes * WATCH_RATE,
        faults="leader:1", options=(*WATCHED.get(choice.target, ()), *choice.options),
    )  # fmt: skip
    schedule = [
        fault(CUT_S, "partition", "leader:1/*"), fault(HEAL_S, "heal", "*"), fault(END_S, "calm", "*")
    ]  # fmt: skip
    folder, run = performed(chosen, schedule, results, partial(Watchers, nodes=choice.nodes))
    done = judged(chosen, run)
    folder.save(done)
    text = timeline_text(done, lanes(done, nodes_of(chosen)))
    _write(folder, timeline_page(done, text), text)
    return folder, done


def _write(folder: ResultFolder, page: str, text: str) -> None:
    (folder.path / "lab.html").write_text(page, encoding="utf-8")
    (folder.path / "lab.md").write_text(text, encoding="utf-8")
    typer.echo(text)
