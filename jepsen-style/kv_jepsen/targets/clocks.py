"""The wall clock of one process, moved by libfaketime (Debian: `apt-get install faketime`), where that is installed.

The process is started with the library preloaded, and reads a file for how far its clock is off. Only the wall clock is moved:
told to fake CLOCK_MONOTONIC, too, libfaketime 0.9.10 puts the wall clock in its place, which then jumps with it, and no
steady clock does that. For the same reason rates are not its work here: it reckons them from the start of the process, so that
a change of rate is a jump. A program that does not ask the C library for the time (etcd: Go) does not notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

LIBRARIES: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
MISSING: Final = (
    "clock_jump needs libfaketime, which is not installed here: on Debian `apt-get install faketime`"
)


def library() -> str | None:
    """Where libfaketime is (the one for programs with threads); None if it is not installed."""
    return next((path for path in LIBRARIES if Path(path).exists()), None)


@dataclass(slots=True)
class WallClock:
    """How far one node's wall clock is off; the clock of a host, so it outlives the process."""

    file: Path
    off_s: float = 0.0

    def variables(self) -> dict[str, str]:
        """The environment of a process that goes by this clock."""
        found = library()
        assert found is not None, "asked before the run"
        self.jump(0.0)
        return {
            "LD_PRELOAD": found,
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name in older versions
            # Without this its pthread_cond_timedwait waits far too long, and gRPC all but stands still.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def jump(self, seconds: float) -> None:
        """Move the clock."""
        self.off_s += seconds
        draft = self.file.with_suffix(".new")
        draft.write_text(f"{self.off_s:+.3f}s\n", encoding="utf-8")
        draft.replace(self.file)
