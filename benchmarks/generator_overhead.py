"""What the load generator of `kv bench` costs beside the operations: its loop against a target that does nothing.

    python benchmarks/generator_overhead.py [--seconds 2] [--tasks 256]

Prints processor time for each operation: of a bare loop over the same target, and of the generator in its closed and
in its open loop. The difference to the bare loop is what the generator adds to an operation of the real client.
"""

# ruff: noqa: ARG002, D102  # a target has the methods of the client, whatever it does with their arguments

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import uvloop

from kv.bench.generator import Generator
from kv.bench.kinds import Arrivals, Kind
from kv.bench.plan import Plan, Share, window_ns
from kv.bench.tally import Tally
from kv.bench.workload import arrivals_of, work_of
from kv.client.types import Op, Result, ScanPage

OPEN_RATE_PER_S: Final = 10_000.0


class Idle:
    """A target whose answer takes one turn of the event loop."""

    async def put(self, key: bytes, value: bytes) -> object:
        await asyncio.sleep(0)
        return None

    async def get(self, key: bytes) -> object | None:
        await asyncio.sleep(0)
        return None

    async def batch(self, ops: Sequence[Op]) -> list[Result]:
        return await asyncio.sleep(0, [])

    async def scan_pages(self, *, start: bytes, end: bytes, limit: int) -> AsyncGenerator[ScanPage, None]:
        yield ScanPage()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--tasks", type=int, default=256)
    options = parser.parse_args()
    print("| loop | operations | processor time of each, us |")
    print("|---|---:|---:|")
    for name, kind in (("closed, put", Kind.PUT), ("closed, mixed", Kind.MIXED)):
        plan = Plan(kind, "kv://none:1", concurrency=options.tasks, duration_s=options.seconds, warmup_s=0.0)
        show(name, *uvloop.run(generate(plan)))
    show("bare", *uvloop.run(bare(options.tasks, options.seconds)))
    plan = Plan(
        Kind.PUT,
        "kv://none:1",
        rate_per_s=OPEN_RATE_PER_S,
        arrivals=Arrivals.POISSON,
        duration_s=options.seconds,
        warmup_s=0.0,
    )
    show(f"open at {OPEN_RATE_PER_S:g}/s, put", *uvloop.run(generate(plan)))


def show(name: str, operations: int, cpu_s: float) -> None:
    """Print a row."""
    print(f"| {name} | {operations} | {cpu_s / operations * 1e6:.2f} |")


async def generate(plan: Plan) -> tuple[int, float]:
    """Return how many operations the generator ran, and its processor time in seconds."""
    share = Share(plan, 0)
    tally = Tally(window_ns(plan))
    generator = Generator(
        share, [Idle()], work_of(share), tally, clock=time.monotonic_ns, start_ns=time.monotonic_ns()
    )
    cpu_s = time.process_time()
    await generator.run(arrivals_of(share) if plan.open_loop else iter(()))
    cpu_s = time.process_time() - cpu_s
    return sum(window.ok for window in tally.windows.values()), cpu_s


async def bare(tasks: int, seconds: float) -> tuple[int, float]:
    """Return the same of tasks that only call the target until the time is over."""
    target, until_ns, counts = Idle(), time.monotonic_ns() + round(seconds * 1e9), [0] * tasks

    async def loop(place: int) -> None:
        while time.monotonic_ns() < until_ns:
            await target.put(b"bench-0000000001", b"")
            counts[place] += 1

    cpu_s = time.process_time()
    await asyncio.gather(*(loop(place) for place in range(tasks)))
    return sum(counts), time.process_time() - cpu_s


if __name__ == "__main__":
    main()
