"""The rounds: every family and every system in turn, and what came of it as JSON lines, at once.

The order of the systems is turned by one place with every round, so that none is always measured first, or always after the
same one. What fails or cannot be measured here is noted and does not end the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import grpc

from benchmarks.options import Options
from benchmarks.processes import HOST, Failed, Unavailable
from benchmarks.record import Missing, Sample, command_line, missing_line, sample_line
from benchmarks.rows.base import Bench, Family
from benchmarks.rows.ceilings import Ceilings
from benchmarks.rows.idle import Idle, Memory
from benchmarks.rows.large import Large
from benchmarks.rows.nats import NatsRow
from benchmarks.rows.outage import Outage
from benchmarks.rows.overload import Overload
from benchmarks.rows.restart import Restart
from benchmarks.rows.scale import Keys, Partitions, Soak
from benchmarks.rows.tasks import Tasks
from benchmarks.rows.unary import Unary
from kv.errors import KVError

FAMILIES: Final[tuple[type[Family], ...]] = (
    Ceilings,
    Tasks,
    NatsRow,
    Unary,
    Outage,
    Idle,
    Partitions,
    Keys,
    Memory,
    Restart,
    Large,
    Overload,
    Soak,
)


NOTED: Final = (
    Failed,
    Unavailable,
    KVError,
    grpc.RpcError,
    TimeoutError,
    OSError,
    ValueError,
    ExceptionGroup,
)
"""What may go wrong in a slice without an end of the run; anything else is a fault of these programs."""


PORT: Final = re.compile(rf"({re.escape(HOST)}:)\d+")


class Log:
    """The file of a run, and what a person sees meanwhile."""

    def __init__(self, file: IO[str], say: Callable[[str], None]) -> None:
        self._file = file
        self._say = say
        self._commands: set[str] = set()
        self.missing = 0
        self.samples = 0

    def sample(self, sample: Sample) -> None:
        """Write a sample."""
        self.samples += 1
        self._write(sample_line(sample))
        shown = ", ".join(f"{name} {value:.4g}" for name, value in sample.metrics.items())
        self._say(f"row {sample.row}, {sample.system}, {sample.work}: {shown} {sample.note}".rstrip())

    def missed(self, missing: Missing) -> None:
        """Write what was not measured."""
        self.missing += 1
        self._write(missing_line(missing))
        self._say(f"row {missing.row}, {missing.system}: NOT MEASURED: {missing.why}")

    def command(self, command: str) -> None:
        """Write a command, once; ports differ from round to round and say nothing."""
        command = PORT.sub(r"\1PORT", command)
        if command not in self._commands:
            self._commands.add(command)
            self._write(command_line(command))

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()


def rotated(items: Sequence[str], number: int) -> list[str]:
    """Return `items` in the order of round `number`."""
    first = number % len(items)
    return [*items[first:], *items[:first]]


async def run(options: Options, folder: Path, log: Log) -> None:
    """Measure everything that `options` ask for, in scratch folders below `folder`."""
    with contextlib.ExitStack() as stack:
        families = []
        for kind in FAMILIES:
            if set(kind.rows) & set(options.rows):
                scratch = stack.enter_context(_scratch(folder))
                family = kind(Bench(options, scratch, log.command))
                stack.callback(family.close)
                families.append(family)
        for number in range(options.rounds):
            for family in families:
                if family.rounds_max is None or number < family.rounds_max:
                    for system in rotated(family.systems, number):
                        await _slice(family, system, number, log)


async def _slice(family: Family, system: str, number: int, log: Log) -> None:
    rows = sorted(set(family.rows) & set(family.options.rows))
    # What the one before left in the page cache is written now, not on the time of the next.
    await asyncio.to_thread(os.sync)
    began = time.monotonic()
    try:
        async with contextlib.aclosing(family.measure(system, number)) as samples:
            async for sample in samples:
                log.sample(sample)
    except NOTED as error:
        why = f"{reason(error)} (after {time.monotonic() - began:.0f} s)"
        for row in rows:
            log.missed(Missing(row, system, number, why))


def reason(error: BaseException) -> str:
    """Return what a person should read of an error: of a group the first one inside."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    # Cleaning up is best effort: a node that was killed this moment may still have let a file appear.
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)
