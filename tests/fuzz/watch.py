"""A limit of time for one input: what never ends is a finding too.

What lives here: the alarm. It works in a process's main thread only.
"""

from __future__ import annotations

import signal
from types import FrameType

from tests.fuzz.engine import Check, Hang

HANG_S = 3.0
"""An input that takes longer is a finding. Far above what any takes on a slow machine."""


def watched(check: Check) -> Check:
    """The same check, that raises `Hang` where it was when the time was up."""

    def ring(_: int, __: FrameType | None) -> None:
        raise Hang(f"still running after {HANG_S} s")

    signal.signal(signal.SIGALRM, ring)

    def run(data: bytes) -> str:
        signal.setitimer(signal.ITIMER_REAL, HANG_S, HANG_S)  # again, for the cleaning up may hang too
        try:
            return check(data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return run
