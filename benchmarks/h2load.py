"""Load by h2load, the C generator of Debian's nghttp2-client: gRPC unary calls with one fixed body for each process.

Several processes may run at the same time, each with a body of its own. What it prints is read in `h2load_text`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.h2load_text import H2Load, read_h2load, together
from benchmarks.processes import Failed, Unavailable, output_of
from benchmarks.wire import grpc_frame

MARGIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is in flight: `processes` times `connections` times `streams` calls."""

    processes: int
    connections: int
    streams: int

    @property
    def in_flight(self) -> int:
        """Calls at the same time."""
        return self.processes * self.connections * self.streams


def program() -> str:
    """Return the path of h2load. Raises `Unavailable`."""
    found = shutil.which("h2load")
    if found is None:
        raise Unavailable("h2load is not installed: `apt-get install nghttp2-client`")
    return found


@dataclass(frozen=True, slots=True)
class Time:
    """A load of so many seconds, after a warm-up. At its end what is under way is cancelled."""

    seconds: float
    warmup_s: float

    @property
    def flags(self) -> list[str]:
        """How h2load is told."""
        return [f"--duration={milliseconds(self.seconds)}", f"--warm-up-time={milliseconds(self.warmup_s)}"]

    @property
    def limit_s(self) -> float:
        """After so long it must have ended."""
        return self.warmup_s + self.seconds + MARGIN_S


@dataclass(frozen=True, slots=True)
class Number:
    """A load of so many requests, each of which is awaited."""

    requests: int

    @property
    def flags(self) -> list[str]:
        """How h2load is told."""
        return [f"--requests={self.requests}"]

    @property
    def limit_s(self) -> float:
        """After so long it must have ended."""
        return MARGIN_S


def command(address: str, method: str, body: Path, shape: Shape, extent: Time | Number) -> list[str]:
    """Return the command line of one h2load."""
    return [
        program(),
        *extent.flags,
        f"--clients={shape.connections}",
        f"--max-concurrent-streams={shape.streams}",
        "--header=content-type: application/grpc",
        "--header=te: trailers",
        f"--data={body}",
        f"http://{address}{method}",
    ]


def milliseconds(seconds: float) -> str:
    """Return a time as h2load takes it: no fractions, but a unit."""
    return f"{round(1000 * seconds)}ms"


async def run(
    folder: Path, address: str, method: str, messages: Sequence[bytes], shape: Shape, extent: Time | Number
) -> H2Load:
    """Put load on one method; each process posts one of `messages`. Raises `Failed` if any request failed."""
    assert len(messages) == shape.processes, "one message for each process"
    commands = []
    for number, message in enumerate(messages):
        body = folder / f"body-{number}"
        await asyncio.to_thread(body.write_bytes, grpc_frame(message))
        commands.append(command(address, method, body, shape, extent))
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(output_of(line, extent.limit_s)) for line in commands]
    found = together([read_h2load(task.result()) for task in running])
    if found.failed or not found.succeeded:
        raise Failed(f"h2load: {found.succeeded} requests succeeded and {found.failed} failed")
    return found


def metrics(found: H2Load, operations: int = 1) -> dict[str, float]:
    """Return the metrics of a sample; each request did so many operations."""
    return {"per_s": found.per_s * operations, "mean_ms": found.mean_ms, "max_ms": found.max_ms}
