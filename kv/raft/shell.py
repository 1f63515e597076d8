"""The engine's shell in production: one asyncio loop, and a worker thread for each lane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Then = Callable[[BaseException | None], None]


class AsyncioShell:
    """Implements `kv.raft.engine.Shell`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self._closed = False

    def now(self) -> float:
        """Seconds on the steady clock, which is the loop's; uvloop's own rounds it down to milliseconds."""
        # Never one that is kept for a pass of the loop: a lease (rule 22), and the age of what is read, are compared
        # with a time that was taken after the read came.
        return time.monotonic()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Runs the callback in the loop's next pass."""
        self._loop.call_soon(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Runs the callback after a delay."""
        self._loop.call_later(delay_s, callback)

    def run_blocking(self, lane: str, work: Callable[[], None], then: Then) -> None:
        """Runs `work` in the lane's thread, then `then` on the loop."""
        pool = self._lanes.get(lane)
        if pool is None:
            pool = self._lanes[lane] = ThreadPoolExecutor(1, thread_name_prefix=f"kv-{lane}")
        pool.submit(work).add_done_callback(lambda future: self._done(future, then))

    def _done(self, future: Future[None], then: Then) -> None:
        if not self._closed:
            self._loop.call_soon_threadsafe(then, future.exception())

    def close(self) -> None:
        """Waits for what runs in the threads; nothing that it would tell is told any more."""
        self._closed = True
        for pool in self._lanes.values():
            pool.shutdown(wait=True)
