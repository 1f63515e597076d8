"""Clocks of a node that run too fast or too slow, at the seam where the simulator's do.

Here lives the engine's shell with a rate: the panel's file `clock_rate` is looked at now and then, and from then on steady clock,
timers and wall clock of the assembly go so fast. The steady clock never jumps and never goes back. gRPC keeps real time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kv.raft.shell import AsyncioShell

LOOK_S: Final = 0.05
"""How often the panel is looked at, in real time."""


class SkewedClock:
    """A steady clock whose rate changes, and never its direction; `real` is the steady clock of the machine."""

    def __init__(self, file: Path, real: Callable[[], float] = time.monotonic) -> None:
        self._file, self._real = file, real
        self.rate = 1.0
        self._from = self._shown = self._look_at = real()

    def now(self) -> float:
        """Seconds."""
        real = self._real()
        if real >= self._look_at:
            self._look(real)
        return self._shown + (real - self._from) * self.rate

    def ahead(self) -> float:
        """Seconds by which it is ahead of real time."""
        return self.now() - self._real()

    def _look(self, real: float) -> None:
        self._look_at = real + LOOK_S
        try:
            rate = float(self._file.read_text())
        except FileNotFoundError:
            rate = 1.0
        if rate != self.rate:
            self._shown += (real - self._from) * self.rate
            self._from, self.rate = real, rate


class SkewedShell(AsyncioShell):
    """The engine's shell that goes by such a clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, panel: Path) -> None:
        super().__init__(loop)
        self._loop_later = loop.call_later
        self.skew = SkewedClock(panel / "clock_rate")

    def now(self) -> float:
        """See `AsyncioShell`."""
        return self.skew.now()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """See `AsyncioShell`."""
        self.timer(delay_s, callback)

    def timer(self, delay_s: float, callback: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        """In the place of the loop's `call_later`."""
        return self._loop_later(delay_s / self.skew.rate, callback, *args)
