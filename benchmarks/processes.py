"""Child processes: started, watched, and ended by their own handle, also when the run is broken off.

Where `setpriv` is installed (util-linux), the kernel ends the children of a run that was killed hard. Children have a
session of their own: Ctrl-C reaches the runner alone, which then ends them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
PORT_FIRST: Final = 12_000
PORT_LAST: Final = 19_999
"""Below those of `kv.cli.cluster_process` and of outgoing connections."""

ROOT: Final = Path(__file__).resolve().parents[1]
SETTINGS: Final = ("KV_", "ETCD", "NATS")
"""Beginnings of the variables that would change a measured system."""

STOP_TIMEOUT_S: Final = 10.0
LOG_TAIL_BYTES: Final = 2000
POLL_S: Final = 0.05


class Failed(Exception):
    """A process or a measurement failed; the message says what, with the end of its log."""


class Unavailable(Exception):
    """A row cannot be measured here; the message says what to install."""


class Children:
    """Processes by name, with their logs in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start `command`; its output goes to `name`.log."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                guarded(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=clean_environment(os.environ),
                start_new_session=True,
            )

    def pids(self) -> dict[str, int]:
        """Return the ids of those that run."""
        return {name: process.pid for name, process in self._processes.items() if process.poll() is None}

    def check(self) -> None:
        """Raise `Failed` if one has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with status {process.returncode}:\n{self.log_tail(name)}")

    def log_tail(self, name: str) -> str:
        """Return the end of a log."""
        return (self._folder / f"{name}.log").read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")

    def kill(self, name: str) -> None:
        """End one by SIGKILL, and wait until it is gone."""
        process = self._processes.pop(name)
        process.kill()
        process.wait(STOP_TIMEOUT_S)

    def close(self) -> None:
        """End all: SIGTERM, and SIGKILL for those that stay."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)
        self._processes.clear()


async def output_of(command: Sequence[str], timeout_s: float) -> str:
    """Run `command` to its end and return what it printed. Raises `Failed` if it fails or takes longer."""
    process = await asyncio.create_subprocess_exec(
        *guarded(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment(os.environ),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise Failed(f"{command[0]} took longer than {timeout_s:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended, as it should have
            process.kill()
        await process.wait()
    if process.returncode != 0:
        text = err.decode("utf-8", "replace")[-LOG_TAIL_BYTES:]
        raise Failed(f"{' '.join(command)[:200]} ended with status {process.returncode}:\n{text}")
    return out.decode()


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without settings of the measured systems, and such that Python finds this package."""
    kept = {name: value for name, value in environment.items() if not name.startswith(SETTINGS)}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    return kept


def guarded(command: Sequence[str]) -> list[str]:
    """Return `command` such that the kernel ends it with the runner, where that can be had."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else list(command)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on. Raises `Failed` if there are too few."""
    found: list[int] = []
    # From anywhere: two runs on one machine must not both take the first ones.
    first = random.randrange(PORT_LAST - PORT_FIRST)
    for place in range(PORT_LAST - PORT_FIRST):
        port = PORT_FIRST + (first + place) % (PORT_LAST - PORT_FIRST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Failed(f"fewer than {count} ports are free between {PORT_FIRST} and {PORT_LAST}")
