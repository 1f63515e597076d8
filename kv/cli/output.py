"""Printing: the three forms of output (table, json, raw), and errors.

Commands hand over rows or records; nothing here knows what a cluster is. Standard output carries
results only; notes and errors go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from kv.errors import KVError

TABLE_COLUMNS_MAX: Final = 4096
"""The width of a table that goes to a file or a pipe, where nothing may be wrapped or cut."""


class Output(StrEnum):
    """The form in which results are printed."""

    TABLE = "table"
    JSON = "json"
    RAW = "raw"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, show_header: bool = True) -> None:
    """Print aligned columns; text from the store is never read as markup."""
    from rich.console import Console  # noqa: PLC0415 - rich costs more than the rest of the start
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table(*headers, box=None, pad_edge=False, show_header=show_header, header_style="bold")
    for column in grid.columns:
        column.overflow = "fold"
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=TABLE_COLUMNS_MAX)
    console.print(grid)


def record(fields: Mapping[str, object]) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(fields, ensure_ascii=False), flush=True)


def raw(*parts: bytes) -> None:
    """Write bytes as they are."""
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def line(text: str = "") -> None:
    """Print one line of a conversation with a person (demo, shell)."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print one line beside the results."""
    print(text, file=sys.stderr, flush=True)


def explain(error: KVError) -> str:
    """Return what a person needs to know of an error: reason, message, outcome, and what to do."""
    if error.applied:
        outcome = "it was applied"
    elif error.definite:
        outcome = "definite: it did not and will not happen"
    else:
        outcome = "not definite: it may have happened, or may yet"
    missing = error.metadata.get("missing")
    lacks = f"\n  missing: {missing}" if missing else ""
    ask = "" if error.token is None else f"\n  ask: kv outcome {error.token}"
    return f"error: {error.reason}: {error.message}\n  outcome: {outcome}{lacks}\n  do: {error.advice}{ask}"
