"""Latency of each read level and write level on a local cluster of three nodes, in one run.

    python benchmarks/read_levels.py [--rounds 5] [--seconds 2] [--tasks 1]

All processes are on this machine. The levels take turns in rounds of `--seconds` each, so that a noisy moment meets all of
them; each figure is over all rounds. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from kv.cli.cluster_process import LocalCluster
from kv.client import AsyncClient

KEYS: Final = 1000
VALUE: Final = b"v" * 100
NODES: Final = 3

READS: Final = (
    ("linearizable", "leader"),
    ("linearizable", "local"),
    ("lease", "leader"),
    ("session", "nearest"),
    ("bounded:200ms", "nearest"),
    ("stale", "nearest"),
    ("quorum", "nearest"),
    ("all", "nearest"),
)
WRITES: Final = ("quorum", "all")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each level in each round")
    parser.add_argument("--tasks", type=int, default=1, help="concurrent tasks")
    asyncio.run(measure(parser.parse_args()))


async def measure(options: argparse.Namespace) -> None:
    """Start a cluster, let the levels take turns, print the table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(Path(folder), nodes=NODES, partitions=4) as cluster,
    ):
        cluster.start()
        await cluster.wait_ready()
        async with AsyncClient([spec.address for spec in cluster.specs.values()]) as client:
            await run(client, options)


async def run(client: AsyncClient, options: argparse.Namespace) -> None:
    """Fill the keys, warm up, measure."""
    for key in range(KEYS):
        await client.put(b"key-%d" % key, VALUE)
    samples: dict[tuple[str, str, str], list[float]] = {}
    for number in range(options.rounds + 1):  # the first round only warms up
        for level, prefer in READS:
            taken = await sample(reader(client, level, prefer), options)
            if number:
                samples.setdefault(("get", level, prefer), []).extend(taken)
        for level in WRITES:
            taken = await sample(writer(client, level), options)
            if number:
                samples.setdefault(("put", level, "leader"), []).extend(taken)
    report(samples, options)


def reader(client: AsyncClient, level: str, prefer: str) -> Callable[[], Awaitable[object]]:
    """Return one read."""
    return lambda: client.read(random_key(), level=level, prefer=prefer)


def writer(client: AsyncClient, level: str) -> Callable[[], Awaitable[object]]:
    """Return one write."""
    return lambda: client.put(random_key(), VALUE, write_level=level)


def random_key() -> bytes:
    """Return one of the keys."""
    return b"key-%d" % random.randrange(KEYS)


async def sample(operation: Callable[[], Awaitable[object]], options: argparse.Namespace) -> list[float]:
    """Return the latencies in seconds of one round."""
    taken: list[float] = []
    until = time.perf_counter() + options.seconds

    async def loop() -> None:
        while (began := time.perf_counter()) < until:
            await operation()
            taken.append(time.perf_counter() - began)

    await asyncio.gather(*(loop() for _ in range(options.tasks)))
    return taken


def report(samples: dict[tuple[str, str, str], list[float]], options: argparse.Namespace) -> None:
    """Print the table."""
    print(f"{options.tasks} task(s), {options.rounds} rounds of {options.seconds:g} s for each level\n")
    print("| operation | level | prefer | p50 ms | p99 ms | per second |")
    print("|---|---|---|---:|---:|---:|")
    for (operation, level, prefer), taken in samples.items():
        taken.sort()
        p50, p99 = (1000 * taken[int(len(taken) * share)] for share in (0.5, 0.99))
        rate = len(taken) / (options.rounds * options.seconds)
        print(f"| {operation} | {level} | {prefer} | {p50:.2f} | {p99:.2f} | {rate:.0f} |")


if __name__ == "__main__":
    main()
