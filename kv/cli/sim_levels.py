"""`kv sim --levels`: the read levels side by side, from actual runs of the simulator."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Final

from kv.cli import output
from kv.errors import InvalidArgument

SECONDS_DEFAULT: Final = 120.0
"""Of wall time, for each of the two parts."""


def write_levels(page: Path, *, seed: int | None, seconds: float | None) -> int:
    """Run both parts, write the page, and return the exit status: 1 if a level broke its promise."""
    from kv.sim import levels  # noqa: PLC0415 - brings the whole store
    from kv.sim.runner import describe  # noqa: PLC0415

    first, limit_s = seed or 1, SECONDS_DEFAULT if seconds is None else seconds
    found = levels.compare(itertools.count(first), wall=time.monotonic, seconds=limit_s, tell=output.note)
    if found.broken is not None:
        for line in describe(found.broken, f"kv sim --levels {page} --seed {found.broken.seed}"):
            output.note(line)
        return 1
    runaway = levels.run_away(itertools.count(first), wall=time.monotonic, seconds=limit_s)
    try:
        page.write_text(levels.page(found, runaway, first))
    except OSError as error:
        raise InvalidArgument(f"cannot write {page}: {error.strerror}") from error
    output.line(
        f"wrote {page}: {found.seeds} seeds, {sum(found.weaker.values())} reads that were not linearizable"
    )
    return 0 if found.complete and runaway is not None else 1
