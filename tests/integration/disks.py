"""Small disks for nodes: a tmpfs for each data directory, which a test can fill and free. Needs root.

Here live mounting, filling and freeing; what a node must do then is in the tests.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

FILLER: Final = "filler"
PAGE_BYTES: Final = 4096


@contextmanager
def small_disks(directories: Sequence[Path], size_bytes: int) -> Iterator[None]:
    """Mount a tmpfs of that size on each directory, and unmount them all at the end, whatever happens."""
    with ExitStack() as stack:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(directory))
            # Lazy: a node that a failed test left behind must not keep the mount.
            stack.callback(_run, "umount", "--lazy", str(directory))
        yield


def fill(directory: Path) -> None:
    """Take all the room that is left."""
    fd = os.open(directory / FILLER, os.O_WRONLY | os.O_CREAT)
    try:
        size = os.fstat(fd).st_size
        free = room(directory)
        while free >= PAGE_BYTES:
            with contextlib.suppress(OSError):  # the node takes room at the same moment: try again with less
                os.posix_fallocate(fd, size, free)
            size = os.fstat(fd).st_size
            free = min(free // 2, room(directory)) if room(directory) else 0
    finally:
        os.close(fd)


def free(directory: Path) -> None:
    """Give the room back."""
    (directory / FILLER).unlink()


def room(directory: Path) -> int:
    """Return the bytes that are free."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=10)
