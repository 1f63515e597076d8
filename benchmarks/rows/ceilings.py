"""Row 0: the ceilings of this machine, in the same run; what they are is in `benchmarks.ceilings`."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from typing import Final

from benchmarks.options import CEILINGS
from benchmarks.processes import output_of
from benchmarks.record import Sample
from benchmarks.rows.base import Family
from benchmarks.systems.base import running
from benchmarks.systems.echo import Echo

MACHINE: Final = "this machine"
LIMIT_S: Final = 120.0
SHARE: Final = 0.25
"""Of the seconds of a slice: a ceiling is steady, and there are several."""


class Ceilings(Family):
    """All of them, one after the other."""

    rows = (CEILINGS,)
    systems = (MACHINE,)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        echo = Echo(folder)
        async with running(echo):
            seconds = SHARE * self.options.seconds
            command = [
                sys.executable,
                "-m",
                "benchmarks.ceilings",
                str(folder),
                f"{seconds}",
                echo.addresses[0],
            ]
            found = json.loads(await output_of(command, LIMIT_S))
            for work, metrics in found.items():
                yield Sample(CEILINGS, system, work, number, metrics)
        self.bench.discard(folder)
