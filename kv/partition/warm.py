"""What a start reads of the stores, so that the first requests find their keys in the page cache.

The event loop stands while LMDB waits for a page from the disk, and whole files in order come many times as fast
as pages one by one. Here lives that reading, with its bounds; a start decides whether and for how long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20
"""Read at once; the bounds are looked at in between."""
MEMORY_SHARE: Final = 0.5
"""Of the memory that is available: what does not fit would push out what was read before."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """What was read, and why no more."""

    bytes: int
    left: str = ""
    """Which bound ended it: "time", "memory" or "stopped"; empty: everything was read."""


def warm_up(
    files: Iterable[Path],
    *,
    seconds: float,
    bytes_max: int,
    stopped: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> Warmed:
    """Read the files one after the other, for so many seconds and bytes at most (blocking).

    Args:
        files: what to read.
        seconds: when to end.
        bytes_max: after how much to end.
        stopped: asked in between; true ends it.
        clock: in seconds.

    Raises `OSError` of the first that cannot be read.
    """
    ends, done = clock() + seconds, 0
    chunk = bytearray(CHUNK_BYTES)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while True:
                if stopped():
                    return Warmed(done, "stopped")
                if clock() >= ends:
                    return Warmed(done, "time")
                if done + CHUNK_BYTES > bytes_max:
                    return Warmed(done, "memory")
                got = file.readinto(chunk)
                if not got:
                    break
                done += got
    return Warmed(done)


def memory_for_pages(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return how many bytes a start may read at most. Raises `OSError` where the system does not say."""
    for line in meminfo.read_text().splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(int(amount.split()[0]) * 1024 * MEMORY_SHARE)
    raise OSError(f"{meminfo} does not tell what memory is available")
