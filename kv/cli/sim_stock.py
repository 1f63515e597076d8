"""`kv sim --stock`: the stock library and the guarded group under the same faults, as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from kv.cli.output import line, note, record, table
from kv.errors import InvalidArgument
from kv.sim.runner import parse_seeds
from kv.sim.stock.fault_sets import FAULT_SETS, fault_set
from kv.sim.stock.table import HEADERS, Row, compare
from kv.sim.stock.trial import Kind, Outcome
from kv.telemetry import configure_logging

KINDS_DEFAULT: Final[tuple[Kind, ...]] = ("stock", "guarded")
SEEDS_DEFAULT: Final = range(30)
MINUTES_DEFAULT: Final = 1.0
HISTORY_LINES: Final = 40
"""What is shown of one seed that is asked for by its number."""


def stock(
    *,
    seeds: str | None,
    seed: int | None,
    fault_sets: str | None,
    minutes: float | None,
    as_json: bool,
) -> int:
    """`kv sim --stock` with the options of `kv sim` as they were given; returns the exit status.

    Raises `InvalidArgument`.
    """
    chosen: Sequence[int] = SEEDS_DEFAULT
    if seed is not None:
        chosen = [seed]
    elif seeds is not None:
        chosen = list(parse_seeds(seeds))
    return run_stock(
        seeds=chosen,
        fault_sets=fault_sets.split(",") if fault_sets else (),
        minutes=MINUTES_DEFAULT if minutes is None else minutes,
        as_json=as_json,
        history=0 if seed is None else HISTORY_LINES,
    )


def run_stock(
    *,
    seeds: Sequence[int],
    fault_sets: Sequence[str] = (),
    kinds: Sequence[Kind] = KINDS_DEFAULT,
    minutes: float = MINUTES_DEFAULT,
    as_json: bool = False,
    history: int = 0,
) -> int:
    """Run the comparison and print it: a table, or one JSON object a row.

    `fault_sets`: names, all if empty. `minutes`: virtual time with faults of each trial. `history`: how many
    of the last things that happened to print for each trial that did not end well.

    Returns the exit status: 1 if the guarded group violated safety or did not progress, else 0.
    Raises `InvalidArgument` for an unknown fault set.
    """
    configure_logging("error", "auto", sys.stderr)
    try:
        chosen = [fault_set(name) for name in fault_sets] or list(FAULT_SETS)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    rows = []
    for row in compare(chosen, kinds, seeds, minutes, lambda outcome: _tell(outcome, history)):
        rows.append(row)
        if as_json:
            record(row.record())
        else:
            note(f"{row.fault_set}, {row.kind}: {row.violated} of {row.seeds} seeds violated safety")
    if not as_json:
        table(HEADERS, [row.cells() for row in rows])
        line(_total(rows))
    return int(any(row.kind == "guarded" and (row.violated or row.no_progress) for row in rows))


def _tell(outcome: Outcome, history: int) -> None:
    if history and outcome.text:
        what = outcome.violation or "no progress"
        note(f"{outcome.fault_set}, {outcome.kind}, seed {outcome.seed}: {what}: {outcome.text}")
        for happened in outcome.history[-history:]:
            note(f"  {happened}")


def _total(rows: Sequence[Row]) -> str:
    hours = sum(row.simulated_s for row in rows) / 3600
    acknowledged, faults = (sum(getattr(row, name) for row in rows) for name in ("acknowledged", "faults"))
    return f"{hours:.1f} simulated hours, {faults} faults, {acknowledged} acknowledged writes"
