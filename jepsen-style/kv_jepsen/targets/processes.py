"""Node processes of a target: start, kill, pause, each noted in the record file of the run.

Only processes that were started here are signalled, each by its own handle.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from kv_jepsen.records import Records

PORT_FIRST: Final = 20_000
PORT_LAST: Final = 31_999
"""Below 32768, where Linux takes the ports of outgoing connections: a node that comes back must find its port free."""
PORT_ATTEMPTS_MAX: Final = 500
STOP_TIMEOUT_S: Final = 10.0
STOP_POLL_S: Final = 0.05


@dataclass(slots=True)
class Processes:
    """The processes of one run's nodes."""

    records: Records
    ended: list[str] = field(default_factory=list)
    """Which nodes ended by themselves, one sentence each."""
    pardoned: Callable[[str, int], bool] = lambda _, __: False
    """Whether a node may have ended by itself with this status: it was asked for."""
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(
        self, node: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a node, unless it runs. Its standard input is a pipe that ends with the harness."""
        if self.pid(node) is not None:
            return
        self._note_end(node)
        self._forget(node)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - the target's own command
                list(command),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=None if environment is None else dict(environment),
                start_new_session=True,  # Ctrl-C is for the harness, which stops the nodes in order
            )
        self.records.process(process.pid)
        self._running[node] = process

    def pid(self, node: str) -> int | None:
        """The process id of a node that runs (also paused), else None."""
        process = self._running.get(node)
        return process.pid if process is not None and process.poll() is None else None

    def kill(self, nodes: Iterable[str]) -> None:
        """End nodes by SIGKILL and wait until they are gone."""
        chosen = [self._running[node] for node in nodes if self.pid(node) is not None]
        for process in chosen:
            process.kill()
        for process in chosen:
            process.wait(STOP_TIMEOUT_S)

    def signal(self, nodes: Iterable[str], number: signal.Signals) -> None:
        """Send a signal to nodes that run."""
        for node in nodes:
            if self.pid(node) is not None:
                self._running[node].send_signal(number)

    async def stop(self) -> None:
        """End all by SIGTERM; who stays on is killed."""
        for node in self._running:
            self._note_end(node)
        self.signal(self._running, signal.SIGCONT)
        self.signal(self._running, signal.SIGTERM)
        end = asyncio.get_running_loop().time() + STOP_TIMEOUT_S
        while any(self.pid(node) is not None for node in self._running):
            if asyncio.get_running_loop().time() > end:
                self.kill(list(self._running))
            await asyncio.sleep(STOP_POLL_S)  # a child's end is no event of the loop
        for node in list(self._running):
            self._forget(node)

    def exited(self) -> dict[str, int]:
        """Nodes that are down and ended by themselves, with their exit status."""
        ended = {node: process.poll() for node, process in self._running.items()}
        return {
            node: s
            for node, s in ended.items()
            if s is not None and s != -signal.SIGKILL and not self.pardoned(node, s)
        }

    def _note_end(self, node: str) -> None:
        if (status := self.exited().get(node)) is not None:
            self.ended.append(f"{node} ended by itself with status {status}; its log tells why")

    def _forget(self, node: str) -> None:
        process = self._running.pop(node, None)
        if process is not None and process.stdin is not None:
            process.stdin.close()


def free_ports(count: int, rng: Random, host: str = "127.0.0.1") -> list[int]:
    """Return ports that nobody listens on.

    Raises:
        OSError: there are none.
    """
    for _ in range(PORT_ATTEMPTS_MAX):
        first = rng.randrange(PORT_FIRST, PORT_LAST - count)
        if all(_is_free(host, port) for port in range(first, first + count)):
            return list(range(first, first + count))
    raise OSError(f"found no row of {count} free ports between {PORT_FIRST} and {PORT_LAST}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def environment(without: str) -> dict[str, str]:
    """The environment for a node, without the variables that begin with `without`: they would reach all nodes alike."""
    kept = {name: value for name, value in os.environ.items() if not (without and name.startswith(without))}
    return {**kept, "PYTHONUNBUFFERED": "1"}
