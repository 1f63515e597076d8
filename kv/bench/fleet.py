"""The client processes of a run: starts them, lets them begin at one moment, and adds up what they counted.

Processes are started here and ended here, each by its own handle; each gets its end of a pipe as standard input and
ends when that closes, so none outlives a run that was killed hard.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, Self

from kv.bench import wire
from kv.bench.arrivals import NS_PER_S
from kv.bench.plan import Plan, Share
from kv.bench.tally import Tally
from kv.bench.wire import Progress
from kv.errors import Internal

HEAD_START_S: Final = 0.2
"""From the order to begin until the beginning, so that every process has read it."""

ENDING_TIMEOUT_S: Final = 10.0
"""For a process to end after its result; then it is killed."""


class Watcher(Protocol):
    """Whom a run tells how far it is."""

    def prefilled(self, keys: int) -> None:
        """So many keys are written."""

    def begun(self) -> None:
        """The warm-up begins, and after it the measured time."""

    def progress(self, progress: Progress) -> None:
        """So much has happened in the measured time."""


class Process:
    """One client process."""

    def __init__(self, process: asyncio.subprocess.Process, share: Share) -> None:
        self._process = process
        self.share = share
        self.prefilled = 0
        self.progress = wire.NOTHING

    @classmethod
    async def start(cls, share: Share) -> Self:
        """Start it and tell it its share."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kv.bench.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(os.environ),
            limit=wire.LINE_BYTES_MAX,
            start_new_session=True,  # Ctrl-C in a terminal goes to the run alone, which then ends the processes
        )
        made = cls(process, share)
        made.send(share.fields())
        return made

    def send(self, message: Mapping[str, Any]) -> None:
        """Tell the process something."""
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.write(wire.encode(message))

    async def next(self, changed: Callable[[], None]) -> dict[str, Any]:
        """Return what the process says next beside how far it is. Raises the `KVError` that it tells."""
        assert self._process.stdout is not None, "it was started with a pipe"
        while line := await self._process.stdout.readline():
            match wire.decode(line):
                case {"error": str(text)}:
                    raise wire.parse_error(text)
                case {"prefilled": int(keys)}:
                    self.prefilled = keys
                case {"progress": dict(fields)}:
                    self.progress = Progress(**fields)
                case message:
                    return message
            changed()
        status = await self._process.wait()
        raise Internal(
            f"client process {self.share.index} ended with status {status} and without a result;"
            " what it said is above"
        )

    async def close(self) -> None:
        """End it: it ends by itself once its input does, and is killed if it does not."""
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), ENDING_TIMEOUT_S)
        except TimeoutError:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                self._process.kill()
            await self._process.wait()


async def run(plan: Plan, watcher: Watcher) -> Tally:
    """Run a plan in its processes and return what happened.

    Raises:
        KVError: the cluster cannot be reached, or the keys cannot be written before; nothing was measured.
    """
    processes: list[Process] = []
    try:
        for index in range(plan.processes):
            processes.append(await Process.start(Share(plan, index)))  # noqa: PERF401 - each must be closed
        return await _run(plan, processes, watcher)
    finally:
        await asyncio.gather(*(process.close() for process in processes))


async def _run(plan: Plan, processes: list[Process], watcher: Watcher) -> Tally:
    await _all(processes, lambda: watcher.prefilled(sum(process.prefilled for process in processes)))
    start_ns = time.monotonic_ns() + round((plan.warmup_s + HEAD_START_S) * NS_PER_S)
    for process in processes:
        process.send({"start_ns": start_ns})
    watcher.begun()
    said = await _all(
        processes, lambda: watcher.progress(sum((process.progress for process in processes), wire.NOTHING))
    )
    first, *others = (Tally.parse(message["result"]) for message in said)
    for other in others:
        first.add(other)
    return first


async def _all(processes: list[Process], changed: Callable[[], None]) -> list[dict[str, Any]]:
    """Return what each process says next; the first error of one ends all."""
    tasks = [asyncio.ensure_future(process.next(changed)) for process in processes]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with the package that runs here on its path, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))}
