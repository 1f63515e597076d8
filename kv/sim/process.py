"""A simulated process: it can be paused, killed, started again, and its clocks can be wrong.

A `Life` is one incarnation. Everything that a process does goes through its life, so that a
dead one does nothing any more and a paused one does it later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final

from kv.sim.loop import Timer, VirtualLoop

Then = Callable[[BaseException | None], None]

STORE_LANE: Final = "store"
"""The worker thread of a process in which the stores' transactions begin and end."""


class ProcessDied(BaseException):
    """The process was killed at this very point. No code of the process may catch it."""


class Clock:
    """A host's clocks against virtual time: how fast they run, how far off the wall clock is."""

    def __init__(self, loop: VirtualLoop, wall_start_ms: int) -> None:
        self._loop = loop
        self.rate = 1.0
        """Seconds of this clock in a second of virtual time."""
        self._rate_since, self._base = 0.0, 0.0
        self._wall_ms = wall_start_ms

    def now(self) -> float:
        """Seconds of the host's steady clock."""
        return self._base + (self._loop.now_s - self._rate_since) * self.rate

    def wall_ms(self) -> int:
        """Milliseconds of the host's wall clock."""
        return self._wall_ms + int(self.now() * 1000)

    def run_at(self, rate: float) -> None:
        """From now on the clock runs at `rate` times real time."""
        self._base, self._rate_since, self.rate = self.now(), self._loop.time(), rate

    def jump_wall(self, seconds: float) -> None:
        """The wall clock jumps; the steady clock does not."""
        self._wall_ms += int(seconds * 1000)


class Life:
    """One incarnation of a process; implements `kv.raft.engine.Shell` for its engine."""

    def __init__(self, loop: VirtualLoop, clock: Clock, rng: Random, sync_delay: Callable[[], float]) -> None:
        self._loop, self._clock, self._rng, self._sync_delay = loop, clock, rng, sync_delay
        self.now = clock.now
        """See `Shell`."""
        self.alive = True
        self._paused = False
        self._waiting: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._lanes: dict[str, float] = {}
        self.in_worker: dict[str, deque[Callable[[], None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.depth = 0
        """Above 0 while code of this process runs as an event, so that it can be killed there."""
        self.died: Callable[[], None] = _nothing
        """Called when a point killed the process."""

    # ------------------------------------------------------------ events

    def enter(self, callback: Callable[..., object], *args: object) -> None:
        """Run an event of this process now, or when it goes on, or never."""
        if not self.alive:
            return
        if self._paused:
            self._waiting.append((callback, args))
            return
        self.depth += 1
        try:
            callback(*args)
        except ProcessDied:
            if self.depth > 1:  # what runs around this belongs to the dead process too
                raise
            self.died()
        finally:
            self.depth -= 1

    def pause(self) -> None:
        """Stop, as by SIGSTOP."""
        self._paused = True

    def resume(self) -> None:
        """Go on, as by SIGCONT: what came meanwhile is taken in at once, in order."""
        self._paused = False
        while self._waiting and self.alive and not self._paused:
            callback, args = self._waiting.popleft()
            self.enter(callback, *args)

    @property
    def paused(self) -> bool:
        """Whether the process is stopped."""
        return self._paused

    def end(self) -> None:
        """The process is gone."""
        self.alive = False
        self._waiting.clear()
        self.in_worker.clear()
        for task in self._tasks:
            task.cancel()

    def task(self, task: asyncio.Task[None]) -> None:
        """A task that ends with the process."""
        self._tasks.append(task)

    # ------------------------------------------------------------ Shell

    def wall_ms(self) -> int:
        """The host's wall clock."""
        return self._clock.wall_ms()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See `Shell`."""
        self._loop.call_soon(self.enter, callback)

    def call_later(self, delay_s: float, callback: Callable[..., None], *args: object) -> Timer:
        """See `Shell`, and the router's `CallLater`."""
        return self._loop.call_later(delay_s / self._clock.rate, self.enter, callback, *args)

    def run_blocking(self, lane: str, work: Callable[[], None], then: Then) -> None:
        """See `Shell`: the work takes its time, and is done at the end of it unless a crash comes first."""
        begin = max(self._lanes.get(lane, 0.0), self._loop.time())
        self._lanes[lane] = begin + self._sync_delay()
        self.in_worker.setdefault(lane, deque()).append(work)
        self._loop.call_at(self._lanes[lane], self._finish, lane, then)

    def do_now(self, lane: str) -> None:
        """Do what waits in a lane at once, as if its thread were as quick; each `then` comes at its time."""
        works = self.in_worker.get(lane)
        for place in range(len(works or ())):
            assert works is not None
            work, works[place] = works[place], _nothing
            work()

    def _finish(self, lane: str, then: Then) -> None:
        if not self.alive:
            return
        work = self.in_worker[lane].popleft()
        error: BaseException | None = None
        self.depth += 1
        try:
            work()
        except ProcessDied:
            self.died()
            return
        except Exception as raised:  # noqa: BLE001 - a worker's error goes to `then`, as a future's does
            error = raised
        finally:
            self.depth -= 1
        self.enter(then, error)


class LifeWriter:
    """A `kv.partition.writer.Writer` in virtual time: the stores of a node, in a lane of its process."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def start(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """See `Writer`."""
        self._life.run_blocking(STORE_LANE, work, lambda _: then())

    def wait(self) -> None:
        """See `Writer`."""
        self._life.do_now(STORE_LANE)


def _nothing() -> None:
    """Nobody looks."""
