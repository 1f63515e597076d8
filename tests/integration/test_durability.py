"""Durability: whatever was acknowledged survives SIGKILL of every node, whatever was refused never appears.

A killed process loses what it had in memory, not what it gave to the kernel: that unsynced bytes are lost too is
the simulator's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest

from kv.cli.cluster_process import LocalCluster
from kv.client import AsyncClient, Item
from tests.integration import support
from tests.integration.workload import Fate, Load, Record, without_large_values

ROUNDS: Final = 20
LARGE_ROUNDS: Final = 4
LOAD_S: Final = (0.1, 1.0)
WORKERS: Final = 6
"""Of each kind."""
OPERATIONS_BEFORE_KILL: Final = 50
"""Acknowledged in each round, so that each kill has something to lose."""
AGAIN_CHANCE: Final = 0.25
"""Of a second kill while the nodes recover from the first."""

OPTIONS: Final = {
    # Elections, checkpoints, compaction and new segments happen in every round.
    "election_min_ms": 400,
    "election_max_ms": 800,
    "checkpoint_ops_max": 300,
    "checkpoint_interval_ms": 500,
    "log_retain_entries": 100,
    "segment_bytes": support.SMALL_SEGMENT_BYTES,
}


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_acknowledged_writes_survive_kills_of_all_nodes(tmp_path: Path, seed: int) -> None:
    """After 20 rounds of SIGKILL to all nodes under load each operation has exactly the effect it was told to have."""
    rng = Random(seed)
    record = Record()
    async with _after_kills(tmp_path, record, rng, ROUNDS, Load.run) as cluster:
        await _check(cluster, record, await _content(cluster), seed)
        _had_something_to_prove(record, rng)


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_acknowledged_large_values_survive_kills_of_all_nodes(tmp_path: Path, seed: int) -> None:
    """The same for values that the log writes past the page cache: after each kill another process reads them back."""
    record = Record()
    async with _after_kills(tmp_path, record, Random(seed), LARGE_ROUNDS, Load.run_large) as cluster:
        await _check(cluster, record, without_large_values(await _content(cluster)), seed)
        assert record.count(Fate.ACKNOWLEDGED) > LARGE_ROUNDS * OPERATIONS_BEFORE_KILL


@asynccontextmanager
async def _after_kills(
    directory: Path,
    record: Record,
    rng: Random,
    rounds: int,
    run: Callable[[Load, int], Coroutine[None, None, None]],
) -> AsyncIterator[LocalCluster]:
    """A cluster that was loaded by `run`, and killed as a whole in each of the rounds."""
    async with (
        support.running(directory, partitions=4, options=OPTIONS) as cluster,
        AsyncExitStack() as stack,
    ):
        load = await _load(cluster, record, rng, stack)
        async with asyncio.TaskGroup() as group:
            group.create_task(run(load, WORKERS))
            for number in range(rounds):
                await _round(cluster, load, rng)
                print(f"round {number}: {load.acknowledged} acknowledged")  # noqa: T201 - shown on failure
            load.stop()
        yield cluster


async def _check(cluster: LocalCluster, record: Record, content: dict[bytes, Item], seed: int) -> None:
    violations = record.violations(content)
    assert not violations, f"seed {seed}: {len(violations)} violations: {str(violations[:10])[:4000]}"
    await support.equal_content(cluster, range(1, 5))


async def _load(cluster: LocalCluster, record: Record, rng: Random, stack: AsyncExitStack) -> Load:
    clients, stubs = [], []
    for node in cluster.specs:
        clients.append(await stack.enter_async_context(AsyncClient.from_url(cluster.url_of(node))))
        stubs.append(await stack.enter_async_context(support.stub_of(cluster.specs[node].address)))
    return Load(record, rng, clients, stubs)


async def _round(cluster: LocalCluster, load: Load, rng: Random) -> None:
    """Load the cluster for a moment, kill all nodes in any order at once, and bring them back."""
    async with asyncio.timeout(support.WAIT_S):
        await load.progress(OPERATIONS_BEFORE_KILL)
    await asyncio.sleep(rng.uniform(*LOAD_S))  # the random moment
    cluster.restart(*rng.sample(sorted(cluster.specs), 3))
    if rng.random() < AGAIN_CHANCE:
        await asyncio.sleep(rng.uniform(*LOAD_S))
        cluster.restart()


async def _content(cluster: LocalCluster) -> dict[bytes, Item]:
    await cluster.wait_ready()
    async with AsyncClient.from_url(cluster.url) as client:
        return {item.key: item async for item in client.scan(timeout=30)}


def _had_something_to_prove(record: Record, rng: Random) -> None:
    """Assert that the load met each fate: a test of unknown outcomes without any shows nothing."""
    fates = {fate: record.count(fate) for fate in Fate}
    print(fates, f"{len(record.never)} conditions refused")  # noqa: T201 - shown on failure
    assert fates[Fate.ACKNOWLEDGED] > ROUNDS * OPERATIONS_BEFORE_KILL
    assert fates[Fate.UNKNOWN] > 0
    assert len(record.never) > 0
    refused = [fate for tokens in record.lists.values() for fate in tokens.values() if fate is Fate.REFUSED]
    assert refused, "no compare-and-set met a conflict"
