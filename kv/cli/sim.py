"""`kv sim`: the simulator on the command line. What it simulates is in `kv.sim`."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kv.cli import output
from kv.errors import InvalidArgument

if TYPE_CHECKING:
    from kv.sim.runner import Totals, Wishes

SECONDS_DEFAULT = 30.0
SEED_BITS = 40
SEEDS_MAX = 1 << SEED_BITS
"""More than anybody has time for."""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(sim)


def sim(
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Fresh seeds for so many seconds of wall time; default: 30.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="The seeds A:B, B not included.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="One seed: replays it exactly.")] = None,
    minutes_each: Annotated[
        float | None, typer.Option(min=0.1, max=1440, help="Simulated minutes of each seed.")
    ] = None,
    faults: Annotated[
        str | None, typer.Option(help="Only these families: network,disk,process,clock.")
    ] = None,
    schedule: Annotated[Path | None, typer.Option(help="A file of faults instead of drawn ones.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, max=9, help="Default: 3 or 5, by the seed.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Processes that run seeds at once; default: one for each processor. Not for --stock, --mutant,"
            " --mutant-table and --levels.",
        ),
    ] = None,
    stock: Annotated[
        bool,
        typer.Option(
            "--stock",
            help="Compare PySyncObj as shipped with the guarded group; --faults then names fault sets:"
            " slow,cut,crash,compaction,power,lossy3,lossy5.",
        ),
    ] = False,
    mutant: Annotated[
        str | None,
        typer.Option(help="Leave this safety rule out and hunt for what it prevents; exit 1 if not noticed."),
    ] = None,
    list_mutants: Annotated[bool, typer.Option("--list-mutants", help="The mutants, one a line.")] = False,
    mutant_table: Annotated[
        Path | None, typer.Option(help="Hunt every mutant and write the page about them to this file.")
    ] = None,
    mutant_runs: Annotated[
        int | None, typer.Option(min=1, max=20, help="Hunts of each mutant for the table; default: 5.")
    ] = None,
    levels: Annotated[
        Path | None,
        typer.Option(help="Compare the read levels and write the page about them to this file."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=1, help="Seconds of wall time for one hunt; default: 300.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run a simulated cluster of this very code under faults; exit 1 if it breaks a promise."""
    if list_mutants or mutant is not None or mutant_table is not None:
        from kv.cli import sim_mutants  # noqa: PLC0415 - brings the whole store

        if list_mutants:
            sys.exit(sim_mutants.list_mutants(as_json=as_json))
        if mutant_table is not None:
            sys.exit(sim_mutants.write_table(mutant_table, runs=mutant_runs, budget_s=budget))
        assert mutant is not None
        sys.exit(sim_mutants.run_mutant(mutant, seed=seed, budget_s=budget, as_json=as_json))
    if levels is not None:
        from kv.cli import sim_levels  # noqa: PLC0415 - brings the whole store

        sys.exit(sim_levels.write_levels(levels, seed=seed, seconds=seconds))
    if stock:
        from kv.cli import sim_stock  # noqa: PLC0415 - brings the whole raft floor

        status = sim_stock.stock(
            seeds=seeds, seed=seed, fault_sets=faults, minutes=minutes_each, as_json=as_json
        )
        sys.exit(status)
    from kv.sim.jobs import JOBS_MAX, run_jobs  # noqa: PLC0415 - brings the whole store
    from kv.sim.runner import describe  # noqa: PLC0415

    chosen, limit_s = _seeds(seconds, seeds, seed)
    wishes = _wishes(minutes_each, faults, schedule, nodes, limit_s)
    totals, broken = run_jobs(
        chosen,
        wishes,
        min(jobs or len(os.sched_getaffinity(0)), len(chosen), JOBS_MAX),
        wall=time.monotonic,
        tell=lambda now: output.note(now.line()),
    )
    _summarize(totals, as_json)
    if broken is not None:
        for line in describe(broken, wishes.replay(broken.seed)):
            output.note(line)
        sys.exit(1)


def _wishes(
    minutes_each: float | None,
    faults: str | None,
    schedule: Path | None,
    nodes: int | None,
    seconds: float | None,
) -> Wishes:
    from kv.sim.faults import parse_schedule  # noqa: PLC0415 - brings the whole store
    from kv.sim.runner import Wishes, parse_mixes  # noqa: PLC0415

    try:
        text = None if schedule is None else schedule.read_text()
    except OSError as error:
        raise InvalidArgument(f"cannot read the schedule {schedule}: {error.strerror}") from error
    return Wishes(
        nodes=nodes,
        minutes_each=minutes_each,
        mixes=None if faults is None else parse_mixes(faults),
        schedule=None if text is None else tuple(parse_schedule(text)),
        schedule_file=None if schedule is None else str(schedule),
        seconds=seconds,
    )


def _seeds(seconds: float | None, seeds: str | None, seed: int | None) -> tuple[Sequence[int], float | None]:
    from kv.sim.runner import parse_seeds  # noqa: PLC0415 - brings the whole store

    if seed is not None:
        if seeds is not None or seconds is not None:
            raise InvalidArgument("--seed runs one seed: leave out --seeds and --seconds")
        return [seed], None
    if seeds is not None:
        return parse_seeds(seeds), seconds
    first = secrets.randbits(SEED_BITS)
    return range(first, first + SEEDS_MAX), SECONDS_DEFAULT if seconds is None else seconds


def _summarize(totals: Totals, as_json: bool) -> None:
    if as_json:
        output.record(totals.fields())
        return
    output.line(totals.line())
    faults = ", ".join(f"{name} {count}" for name, count in sorted(totals.faults.items()))
    output.line(f"faults: {faults or 'none'}")
    output.line(
        f"{totals.writes} writes acknowledged, {totals.unknown} of unknown outcome, {totals.elections} elections, "
        f"{totals.snapshots} snapshots installed, {totals.checkpoints} checkpoints compared"
    )
