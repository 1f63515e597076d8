"""The budget: where each microsecond and each byte of a put and of a linearizable get goes.

    python -m benchmarks.budget [--seconds 5] [--partitions 1] [--out FILE.md]

A cluster of three nodes and one client process, all on this machine. Each slice has two parts: one without profilers, which
gives the rate, the CPU of each process and its bytes; one with py-spy and perf, which gives the shares. What is read
and how it is folded is in `budget_fold`, the tables are in `budget_table`; docs/budget.md says how to read them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import budget_probe as probe
from benchmarks.budget_fold import Socket, carried, cpu_between, reached_by
from benchmarks.budget_table import Process, Slice, ceilings_text, slice_text
from benchmarks.proc import check_disk, machine
from benchmarks.processes import Failed, Unavailable, clean_environment, guarded, output_of
from benchmarks.systems.base import READY_TIMEOUT_S, running
from benchmarks.systems.echo import Echo
from benchmarks.systems.ringkv import RingKV
from benchmarks.worker import Order
from kv.cli.cluster_process import NodeSpec
from kv.errors import KVError

KINDS: Final = ("put", "get")
TASKS: Final = (1, 256)
WARMUP_S: Final = 2.0
KEYS: Final = 10_000
FILL_TASKS: Final = 8
FILL_LIMIT_S: Final = 120.0
CEILING_S: Final = 1.0
CEILINGS_LIMIT_S: Final = 120.0
MARK_TIMEOUT_S: Final = 30.0
ATTEMPTS_MAX: Final = 3
"""Of a slice: one in which a leader changed is no budget."""
USAGE_STATUS: Final = 2
CLIENT: Final = "client"

EVENTS: Final = {
    "bytes into the log": "kv_wal_bytes_total",
    "syncs of the log": "kv_wal_syncs_total",
    "Raft messages out": 'kv_raft_messages_total{direction="out"}',
    "Raft messages in": 'kv_raft_messages_total{direction="in"}',
}
"""What a node counts itself, and the names of its metrics."""


@dataclass(slots=True)
class Load:
    """The client process."""

    process: asyncio.subprocess.Process

    async def mark(self) -> dict[str, float]:
        """Return what ended since the mark before. Raises `Failed` if the process has ended."""
        assert self.process.stdin is not None, "it was started with a pipe"
        assert self.process.stdout is not None, "it was started with a pipe"
        self.process.stdin.write(b"\n")
        async with asyncio.timeout(MARK_TIMEOUT_S):
            line = await self.process.stdout.readline()
        if not line:
            raise Failed("the client process ended; what it said is above")
        found: dict[str, float] = json.loads(line)
        return found


@dataclass(frozen=True, slots=True)
class Counters:
    """What has a total so far: sockets and metrics by node."""

    sockets: Sequence[Socket] | None
    metrics: Mapping[str, Mapping[str, float]]


@contextlib.asynccontextmanager
async def loading(order: Order) -> AsyncIterator[Load]:
    """Run the client process while the context lasts."""
    process = await asyncio.create_subprocess_exec(
        *guarded([sys.executable, "-m", "benchmarks.budget_load", order.text()]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment(os.environ),
        start_new_session=True,
    )
    try:
        yield Load(process)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself, which `mark` has said
            process.kill()
        await process.wait()


class Budget:
    """Measures slices on one cluster."""

    def __init__(self, system: RingKV, folder: Path, seconds: float) -> None:
        self._system = system
        self._folder = folder
        self._seconds = seconds

    async def slice(self, kind: str, tasks: int) -> Slice:
        """Measure one slice, again if a leader changed meanwhile. Raises `Failed` if that goes on."""
        for _ in range(ATTEMPTS_MAX):
            led = await self._led()
            order = Order("ringkv", kind, tuple(self._system.addresses), tasks=tasks, keys=KEYS)
            async with loading(order) as load:
                await load.mark()
                await asyncio.sleep(WARMUP_S)
                found = await self._measure(load, order, led)
            if await self._led() == led:
                return found
            print(f"a leader changed during {kind} with {tasks}: again", file=sys.stderr)
        raise Failed(f"leaders change too often here: {ATTEMPTS_MAX} times during {kind} with {tasks} tasks")

    async def _measure(self, load: Load, order: Order, led: Mapping[str, int]) -> Slice:
        """Measure without profilers, then with them."""
        nodes = sorted(led, key=lambda node: (-led[node], node))
        pids = {CLIENT: load.process.pid, **{node: self._system.pids()[node] for node in nodes}}
        await (
            load.mark()
        )  # the bytes are counted from here: the look at them takes as long as that at the end
        counters = await self._counters()
        opened, began = await load.mark(), time.perf_counter()
        cpu = {name: probe.threads(pid) for name, pid in pids.items()}
        await asyncio.sleep(self._seconds)
        after = {name: probe.threads(pid) for name, pid in pids.items()}
        plain, took = await load.mark(), time.perf_counter() - began
        counts = self._counts(pids, counters, await self._counters())
        profiled = await self._profile(load, pids)
        processes = [
            Process(
                title=_title(name, led),
                cpu=cpu_between(cpu[name], after[name], pid=pid, ticks_per_s=probe.TICKS_PER_S),
                roles=profiled.roles[name],
                libraries=profiled.libraries.get(name, {}),
                counts=counts[name],
            )
            for name, pid in pids.items()
        ]
        return Slice(
            kind="linearizable get" if order.kind == "get" else order.kind,
            tasks=order.tasks,
            operations=int(plain["operations"]),
            counted=int(opened["operations"] + plain["operations"]),
            failed=int(plain["failed"]),
            seconds=took,
            p50_ms=plain["p50_ms"],
            profiled_per_s=profiled.per_s,
            processes=processes,
        )

    async def _profile(self, load: Load, pids: Mapping[str, int]) -> Profiled:
        await load.mark()
        began = time.perf_counter()
        roles, libraries = await asyncio.gather(
            probe.profile_python(pids, self._folder, self._seconds),
            probe.profile_native(pids, self._folder, self._seconds),
        )
        done = await load.mark()
        return Profiled(roles, libraries, done["operations"] / (time.perf_counter() - began))

    async def _led(self) -> dict[str, int]:
        """Return how many partitions each node leads now."""
        view = await self._system.cluster.wait_ready(READY_TIMEOUT_S)
        return {node: len(view.led_by(node)) for node in self._system.cluster.specs}

    async def _counters(self) -> Counters:
        specs = self._system.cluster.specs
        found = {node: await probe.metrics(spec.http_address) for node, spec in specs.items()}
        return Counters(await probe.sockets(), found)

    def _counts(
        self, pids: Mapping[str, int], first: Counters, last: Counters
    ) -> dict[str, dict[str, float]]:
        """Return bytes and events of each process between two looks."""
        specs = self._system.cluster.specs
        found: dict[str, dict[str, float]] = {}
        for name, pid in pids.items():
            found[name] = _bytes(pid, pids[CLIENT], specs, first.sockets, last.sockets)
            if name in specs:
                begin, end = first.metrics[name], last.metrics[name]
                found[name] |= {
                    text: end.get(metric, 0) - begin.get(metric, 0) for text, metric in EVENTS.items()
                }
        return found


@dataclass(frozen=True, slots=True)
class Profiled:
    """What the profilers saw, and the rate while they looked."""

    roles: Mapping[str, Mapping[str, int]]
    libraries: Mapping[str, Mapping[str, int]]
    per_s: float


def _bytes(
    pid: int,
    client: int,
    specs: Mapping[str, NodeSpec],
    first: Sequence[Socket] | None,
    last: Sequence[Socket] | None,
) -> dict[str, float]:
    """Return the bytes a process sent and received between two looks: with the client, by gRPC or beside it, and by Raft."""
    if first is None or last is None:
        return {}
    found: dict[str, float] = {}
    for text, ports in (
        ("client", reached_by(last, client)),  # a node's direct connections have a port of their own
        ("Raft", frozenset(_port(spec.raft_address) for spec in specs.values())),
    ):
        (sent, received), (sent_before, received_before) = (
            carried(last, pid, ports),
            carried(first, pid, ports),
        )
        if sent or received:
            found[f"{text} bytes out"] = sent - sent_before
            found[f"{text} bytes in"] = received - received_before
    return found


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _title(name: str, led: Mapping[str, int]) -> str:
    if name not in led:
        return name
    if sum(led.values()) == 1:
        return f"leader {name}" if led[name] else f"follower {name}"
    return f"{name}, leads {led[name]}"


async def ceilings(folder: Path) -> str:
    """Measure the ceilings of this machine, and return their table."""
    echo = Echo(folder)
    async with running(echo):
        command = [
            sys.executable,
            "-m",
            "benchmarks.ceilings",
            str(folder),
            f"{CEILING_S}",
            echo.addresses[0],
        ]
        return ceilings_text(json.loads(await output_of(command, CEILINGS_LIMIT_S)))


async def run(folder: Path, seconds: float, partitions: int) -> str:
    """Measure everything, and return the document."""
    probe.pyspy_program()
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"
    facts = {"date": now, "partitions": f"{partitions}", "seconds": f"{seconds:g}", **machine(folder)}
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts.items()) + "\n"]
    scratch = folder / "ceilings"
    scratch.mkdir()
    parts.append(await ceilings(scratch))
    system = RingKV(folder / "cluster", partitions)
    async with running(system):
        fill = Order("ringkv", "fill", tuple(system.addresses), tasks=FILL_TASKS, keys=KEYS)
        await output_of([sys.executable, "-m", "benchmarks.worker", fill.text()], FILL_LIMIT_S)
        budget = Budget(system, folder, seconds)
        for kind in KINDS:
            for tasks in TASKS:
                parts.append(slice_text(await budget.slice(kind, tasks)))
                print(f"measured {kind}, {tasks} at a time", file=sys.stderr)
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the tables; 2 if something that is needed is not there or failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of each of the two parts of a slice; default 5"
    )
    parser.add_argument(
        "--partitions", type=int, default=1, help="default 1, where leader and followers are different nodes"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to use")
    parser.add_argument("--out", type=Path, help="write here, else to standard output")
    given = parser.parse_args(arguments)
    if not given.seconds >= 1 or given.partitions < 1:
        parser.error("--seconds and --partitions must be at least 1")
    try:
        check_disk(given.folder)
        with tempfile.TemporaryDirectory(
            dir=given.folder, prefix="budget-", ignore_cleanup_errors=True
        ) as name:
            text = asyncio.run(run(Path(name), given.seconds, given.partitions))
    except (Failed, Unavailable, KVError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_STATUS
    if given.out is None:
        print(text)
    else:
        given.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
