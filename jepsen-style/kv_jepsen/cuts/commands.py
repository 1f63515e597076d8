"""The programs by which namespaces are made and filtered: `ip`, `nft`, `ss`."""

from __future__ import annotations

import subprocess
from typing import Final

COMMAND_TIMEOUT_S: Final = 10.0


def call(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program, with `text` as its standard input; how it ended is for the caller to look at."""
    return subprocess.run(  # noqa: S603 - fixed programs with names of our own
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )


def must(*command: str, text: str | None = None) -> str:
    """Run a program and return what it printed. Raises `OSError` with its words if it failed."""
    done = call(*command, text=text)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def ip(*arguments: str) -> str:
    """Run `ip`; raises `OSError`."""
    return must("ip", *arguments)
