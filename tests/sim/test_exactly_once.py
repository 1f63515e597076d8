"""Counters and lists through hundreds of leader changes: each operation happens once, and outcomes are true."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest

from kv.sim.faults import Fault, fault
from kv.sim.setup import Setup
from kv.sim.workload import Pace
from kv.sim.world import ClientHost, World
from tests.counting import Books, CountingWorker, settle

ROUND_S = 3.2
ROUNDS = 210


def _leader_changes() -> list[Fault]:
    """In turn the leader of the partition dies, is cut off, is paused, and loses the replies that it sends."""
    faults: list[Fault] = []
    for number in range(ROUNDS):
        at = 4 + number * ROUND_S
        match number % 4:
            case 0:
                faults += [fault(at, "crash", "leader:1"), fault(at + 1.4, "start", "*")]
            case 1:
                faults += [fault(at, "partition", "leader:1,c1/*"), fault(at + 1.8, "heal", "*")]
            case 2:
                faults += [fault(at, "pause", "leader:1"), fault(at + 1.6, "resume", "*")]
            case _:
                faults += [
                    fault(at, "cut", "leader:1>c2"),
                    fault(at + 0.2, "slow", "c3-leader:1", seconds="0.4"),
                ]
                faults += [
                    fault(at + 0.6, "crash", "leader:1"),
                    fault(at + 1.6, "start", "*"),
                    fault(at + 2, "heal", "*"),
                ]
    return faults


def counting(books: Books, tasks: int, think_mean_s: float) -> Callable[[World], list[CountingWorker]]:
    """Make the workload of a `World`: `tasks` tasks of each client."""

    def work(world: World) -> list[CountingWorker]:
        rng = Random(world.seed)
        return [
            CountingWorker(f"{host.name}.{number}", client, books, Random(rng.random()), think_mean_s)
            for host in world.clients
            for client in [world.make_client(host)]
            for number in range(tasks)
        ]

    return work


def closing(books: Books) -> Callable[[World], Awaitable[None]]:
    """Make the end of a `World`: the workers end, every outcome is asked for, the sums are compared."""

    async def finish(world: World) -> None:
        books.stopping = True
        await books.idle.wait()
        await settle(world.make_client(ClientHost("p2")), books)

    return finish


@pytest.mark.timeout(400)
def test_counters_and_lists_are_exactly_once_over_two_hundred_leader_changes() -> None:
    """Over 10,000 increments and appends with lost replies, doubled messages and 200 leader changes: no one is lost or doubled, each outcome told is what a later read shows."""
    books = Books()
    setup = Setup(
        nodes=3,
        partitions=1,
        scale=1,
        lossy=True,
        mixes=(),
        duration_s=ROUNDS * ROUND_S + 20,
        clients=4,
        pace=Pace(),
        limits={"session_ttl_s": 3600, "sessions_max": 10_000, "pending_requests_max": 4096},
    )
    world = World(
        11,
        setup=setup,
        schedule=_leader_changes(),
        work=counting(books, tasks=5, think_mean_s=0.6),
        finish=closing(books),
    )
    report = world.run()
    assert report.violation is None, report.violation
    assert not books.working, "the books were closed"
    assert books.operations >= 10_000, books.operations
    assert report.elections >= 200, report.elections
    assert books.asked["APPLIED"] > 0, books.asked
    assert books.asked["NOT_APPLIED"] > 0, books.asked
