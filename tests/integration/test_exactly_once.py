"""Counters and lists over real processes whose leaders die: each operation happens once, and outcomes are true."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Final

import pytest

from kv.client import AsyncClient
from tests.counting import Books, CountingWorker, settle
from tests.integration import support

KILLS: Final = 20
OPERATIONS_MIN: Final = 10_000
WORKERS: Final = 16
THINK_MEAN_S: Final = 0.02


@pytest.mark.timeout(400)
async def test_counters_and_lists_are_exactly_once_over_twenty_killed_leaders(tmp_path: Path) -> None:
    """Over 10,000 increments and appends while 20 leaders are killed: no one is lost or doubled, and each outcome told is what a later read shows."""
    books = Books()
    async with (
        support.running(tmp_path, partitions=1) as cluster,
        AsyncClient.from_url(cluster.url) as one,
        AsyncClient.from_url(cluster.url) as other,
    ):
        workers = [
            CountingWorker(f"w{number}", (one, other)[number % 2], books, Random(number), THINK_MEAN_S)
            for number in range(WORKERS)
        ]
        leaders: list[str | None] = []
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.run())
            for _ in range(KILLS):
                await _go_on(books, 100)
                view = await cluster.wait_ready()
                leader = view.leader(1)
                assert leader is not None, "a ready cluster has a leader"
                leaders.append(leader)
                cluster.kill(leader)
                await _go_on(books, 100)
                cluster.start(leader)
            await _go_on(books, max(0, OPERATIONS_MIN - books.acknowledged))
            books.stopping = True
        await cluster.wait_ready()
        await settle(other, books)
        assert len(leaders) == KILLS
        assert books.operations >= OPERATIONS_MIN
        await support.equal_content(cluster, [1])


async def _go_on(books: Books, count: int) -> None:
    """Wait until so many more operations were acknowledged."""
    goal = books.acknowledged + count

    async def reached() -> bool | None:
        return True if books.acknowledged >= goal else None

    await support.until(f"{count} more acknowledgements", reached)
