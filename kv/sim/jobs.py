"""Seeds in several processes at once: a run uses one processor, and seeds have nothing to do with each other.

Here lives who runs which seeds, what the processes tell, and how it is summed. Worker `k` of `n` takes every n-th seed
from the k-th on, so what is run does not depend on who is faster. A seed's run is the same in any process.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, TypeAlias

from kv.errors import Internal
from kv.sim.runner import TOLD_EACH_S, Totals, Wishes, run_seeds
from kv.sim.world import Report

JOBS_MAX: Final = 256
END_S: Final = 5.0
"""How long a worker that was told to end may take."""

Told: TypeAlias = tuple[Totals, Report | None, bool]
"""What a worker has covered, the report that holds a violation, and whether it has ended."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    totals: Totals = field(default_factory=Totals)


def run_jobs(
    seeds: Sequence[int],
    wishes: Wishes,
    jobs: int,
    *,
    wall: Callable[[], float],
    tell: Callable[[Totals], None],
) -> tuple[Totals, Report | None]:
    """Do what `run_seeds` does in `jobs` processes; the first violation ends all.

    `seeds` must be sliceable without being written out, as a `range` is. Raises `Internal` if a process ends
    without a result.
    """
    assert 1 <= jobs <= JOBS_MAX, jobs
    if jobs == 1:
        return run_seeds(seeds, wishes, wall=wall, tell=tell)
    began = told = wall()
    # Fresh processes: one that was forked has this one's memory, and with it the threads' locks.
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, _Worker] = {}
    running: list[Connection] = []
    try:
        for number in range(jobs):
            ours, theirs = context.Pipe(duplex=False)
            share = seeds[number::jobs]
            process = context.Process(target=_work, args=(theirs, share, wishes), daemon=True)
            process.start()
            theirs.close()
            workers[ours] = _Worker(process)
            running.append(ours)
        while running:
            for connection in wait(running, TOLD_EACH_S):
                assert isinstance(connection, Connection), "nothing else is waited for"
                worker = workers[connection]
                worker.totals, broken, ended = _receive(connection, worker.process)
                if broken is not None:
                    return _sum(workers, wall() - began), broken
                if ended:
                    running.remove(connection)
            now = wall()
            if now - told >= TOLD_EACH_S:
                told = now
                tell(_sum(workers, now - began))
        return _sum(workers, wall() - began), None
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for connection, worker in workers.items():
            worker.process.join(END_S)
            connection.close()


def _receive(connection: Connection, process: BaseProcess) -> Told:
    try:
        told: Told = connection.recv()
    except (EOFError, OSError):  # the latter if it ended in the middle of a message
        process.join(END_S)
        raise Internal(
            f"a process that ran seeds ended with status {process.exitcode}; what it said is above"
        ) from None
    return told


def _work(connection: Connection, seeds: Sequence[int], wishes: Wishes) -> None:
    """What a worker does."""
    import time  # noqa: PLC0415 - the simulator has no other business with the wall's time

    def say(told: Told) -> None:
        try:
            connection.send(told)
        except BrokenPipeError:
            sys.exit(1)  # whoever started this one is gone

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception: the run removes its folder
    totals, broken = run_seeds(seeds, wishes, wall=time.monotonic, tell=lambda now: say((now, None, False)))
    say((totals, broken, True))


def _sum(workers: dict[Connection, _Worker], wall_s: float) -> Totals:
    found = Totals()
    for worker in workers.values():
        found.merge(worker.totals)
    found.wall_s = wall_s
    return found
