"""`kv sim --mutant`, `--list-mutants` and `--mutant-table`: does the simulator notice a missing safety rule?"""

from __future__ import annotations

import itertools
import secrets
import sys
import time
from pathlib import Path
from typing import Final

from kv.cli.output import line, note, record
from kv.errors import InvalidArgument
from kv.sim.hunt import BUDGET_S, document, hunt, rows
from kv.sim.mutants import MUTANTS, mutant
from kv.telemetry import configure_logging

RUNS_DEFAULT: Final = 5
SEED_BITS: Final = 40


def list_mutants(*, as_json: bool) -> int:
    """Print each mutant on a line, its name first."""
    width = max(len(one.name) for one in MUTANTS)
    for one in MUTANTS:
        if as_json:
            record({"name": one.name, "kind": one.kind, "breaks": one.breaks, "expected": list(one.expected)})
        else:
            line(f"{one.name:<{width}}  {one.kind:<8}  {one.breaks}")
    return 0


def run_mutant(name: str, *, seed: int | None, budget_s: float | None, as_json: bool) -> int:
    """Hunt one mutant from a fresh seed, or the seed given only; 0 if it was caught, 1 if not.

    Raises `InvalidArgument` for an unknown name.
    """
    configure_logging("error", "auto", sys.stderr)
    chosen = mutant(name)
    first = secrets.randbits(SEED_BITS) if seed is None else seed
    seeds = itertools.count(first) if seed is None else [seed]
    limit_s = BUDGET_S if budget_s is None else budget_s
    caught = hunt(chosen, seeds, wall=time.monotonic, budget_s=limit_s, tell=note)
    if as_json:
        record({slot: getattr(caught, slot) for slot in caught.__slots__})
    elif caught.property is None:
        line(f"{name}: not caught in {caught.seeds} seeds, {caught.seconds:.1f} s")
    else:
        line(
            f"{name}: caught by {caught.property}, seed {caught.seed}, {caught.seeds} seeds, {caught.seconds:.1f} s"
        )
        note(f"  {caught.detail}")
        note(f"replay: kv sim --mutant {name} --seed {caught.seed}")
    return int(caught.property is None)


def write_table(file: Path, *, runs: int | None, budget_s: float | None) -> int:
    """Hunt each mutant several times and write the page about them; 1 if one was not caught every time."""
    configure_logging("error", "auto", sys.stderr)
    limit_s = BUDGET_S if budget_s is None else budget_s
    times = RUNS_DEFAULT if runs is None else runs
    found = []
    for row in rows(MUTANTS, times, wall=time.monotonic, budget_s=limit_s):
        note("  ".join(row.cells()))
        found.append(row)
    try:
        file.write_text("\n".join(document(found, times)) + "\n")
    except OSError as error:
        raise InvalidArgument(f"cannot write {file}: {error.strerror}") from error
    return int(any(row.caught < times for row in found))
