"""Client processes: none outlives its run, and one that fails ends the run with what it said."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import pytest

from kv.bench import fleet, wire
from kv.bench.fleet import Process
from kv.bench.kinds import Kind
from kv.bench.plan import Plan, Share
from kv.bench.wire import Progress
from kv.errors import Internal
from tests.client.server import grpc_cluster

TIMEOUT_S = 30


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.keys = 0
        self.begins = 0
        self.has_begun = asyncio.Event()
        self.last = wire.NOTHING

    def prefilled(self, keys: int) -> None:
        """Keep it."""
        assert keys >= self.keys
        self.keys = keys

    def begun(self) -> None:
        """Keep it."""
        self.begins += 1
        self.has_begun.set()

    def progress(self, progress: Progress) -> None:
        """Keep it."""
        self.last = progress


def plan(addresses: list[str], kind: Kind = Kind.PUT, **settings: object) -> Plan:
    """Return a plan for that cluster."""
    return Plan(kind, f"kv://{','.join(addresses)}", **settings)  # type: ignore[arg-type]  # whatever it takes


async def test_a_run_tells_how_far_it_is() -> None:
    """The watcher hears of every key that is written before, once of the beginning, and of progress."""
    notes = Notes()
    async with grpc_cluster() as cluster:
        asked = plan(
            cluster.addresses, Kind.GET, prefill=True, keys=1200, processes=2, duration_s=0.8, warmup_s=0.0
        )
        tally = await asyncio.wait_for(fleet.run(asked, notes), TIMEOUT_S)
    assert (notes.keys, notes.begins) == (1200, 1)
    assert 0 < notes.last.ok <= sum(count.ended for count in tally.counts().values())
    assert len(tally.cpu_s) == 2


async def test_a_process_that_dies_ends_the_run() -> None:
    """If a client process is killed there is an error instead of figures, and no process is left."""
    async with grpc_cluster() as cluster:
        process = await Process.start(Share(plan(cluster.addresses), 0))
        assert await asyncio.wait_for(process.next(lambda: None), TIMEOUT_S) == {"ready": True}
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(Internal, match="ended with status -9"):
            await asyncio.wait_for(process.next(lambda: None), TIMEOUT_S)
        await process.close()


@pytest.mark.parametrize("started", [False, True])
async def test_a_process_ends_with_its_run(started: bool) -> None:
    """A client process whose run is gone, before the beginning or in the middle, ends by itself."""
    async with grpc_cluster() as cluster:
        process = await Process.start(Share(plan(cluster.addresses, duration_s=600.0, warmup_s=0.0), 0))
        assert await asyncio.wait_for(process.next(lambda: None), TIMEOUT_S) == {"ready": True}
        if started:
            process.send({"start_ns": time.monotonic_ns()})
            progressed = asyncio.Event()
            reading = asyncio.ensure_future(process.next(progressed.set))
            await asyncio.wait_for(progressed.wait(), TIMEOUT_S)
            reading.cancel()
        stdin = process._process.stdin
        assert stdin is not None
        stdin.close()
        assert await asyncio.wait_for(process._process.wait(), TIMEOUT_S) in {0, 1}


async def test_a_run_that_is_given_up_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling a run, as Ctrl-C does, ends its client processes before it returns."""
    started: list[Process] = []
    start = Process.start

    async def keep(share: Share) -> Process:
        started.append(await start(share))
        return started[-1]

    monkeypatch.setattr(Process, "start", keep)
    notes = Notes()
    async with grpc_cluster() as cluster:
        asked = plan(cluster.addresses, processes=2, duration_s=600.0)
        run = asyncio.ensure_future(fleet.run(asked, notes))
        await asyncio.wait_for(notes.has_begun.wait(), TIMEOUT_S)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert len(started) == 2
    assert all(process._process.returncode is not None for process in started)


def test_the_processes_run_this_package() -> None:
    """A client process imports the package that started it, installed or not."""
    found = fleet._environment({"PYTHONPATH": "/p", "HOME": "/h"})
    assert found["PYTHONPATH"].endswith(f"{os.pathsep}/p")
    assert (found["HOME"], sys.modules["kv"].__path__[0]) == (
        "/h",
        os.path.join(found["PYTHONPATH"].split(os.pathsep)[0], "kv"),
    )
