"""The engine's shell in production: one asyncio loop, and a worker thread for each lane.

A hand-over to a thread and back costs two wake-ups, and the thread may wait for the interpreter's lock behind a busy loop
(up to `sys.getswitchinterval()`, 5 ms, each way). That is more than a sync takes on a fast disk. So the log's lane runs
on the loop itself as long as its work has been quick, and in its thread as soon as it has not: a disk that hangs may
cost the loop one wait.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

Work = Callable[[], None]
Then = Callable[[BaseException | None], None]

INLINE_LANE: Final = "log"
"""The lane whose work may run on the loop. Others carry what is long by nature: snapshots, hashes, removed files."""
INLINE_S_MAX: Final = 0.001
"""Work runs on the loop while it has been taking less than this, smoothed."""
SMOOTHING: Final = 1 / 4
"""Weight of the newest duration: one sync of a second sends the next twenty to the thread."""
HANG_S: Final = 0.010
"""Only work of this length counts in full. A sync in which the process waited for a processor takes a few milliseconds too,
and the thread would wait as well; so what is shorter counts for at most `HICCUP_S_MAX`, and three in a row are needed."""
HICCUP_S_MAX: Final = 2 * INLINE_S_MAX
"""What work counts for that was slow and did not hang."""


class AsyncioShell:
    """Implements `kv.raft.engine.Shell`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        # Never one that is kept for a pass of the loop: a lease (rule 22), and the age of what is read, are compared
        # with a time that was taken after the read came.
        self.now: Callable[[], float] = clock
        """Seconds on the steady clock, which is the loop's; uvloop's own rounds it down to milliseconds."""
        self._lanes: dict[str, _Lane] = {}
        self._closed = False

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Runs the callback in the loop's next pass."""
        self._loop.call_soon(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Runs the callback after a delay."""
        self._loop.call_later(delay_s, callback)

    def run_blocking(self, lane: str, work: Work, then: Then) -> None:
        """Runs `work` in the lane's thread, then `then` on the loop; see the module for the log's lane."""
        worker = self._lanes.get(lane)
        if worker is None:
            worker = self._lanes[lane] = _Lane(lane, self._done, self.now)
        if lane == INLINE_LANE and worker.idle and worker.smoothed_s < INLINE_S_MAX:
            # In the next pass: what this one sends leaves at its end, and the peers sync while we do.
            self._loop.call_soon(self._run_inline, worker, work, then)
        else:
            worker.hand_over(work, then)

    def _run_inline(self, worker: _Lane, work: Work, then: Then) -> None:
        if not self._closed:
            then(worker.run(work))

    def _done(self, then: Then, error: BaseException | None) -> None:
        """Called in a worker's thread."""
        if not self._closed:
            self._loop.call_soon_threadsafe(self._tell, then, error)

    def _tell(self, then: Then, error: BaseException | None) -> None:
        if not self._closed:
            then(error)

    def close(self) -> None:
        """Waits for what runs in the threads; nothing that it would tell is told any more."""
        self._closed = True
        for worker in self._lanes.values():
            worker.close()


class _Lane:
    """Work done in order, in a thread that begins with its first hand-over."""

    def __init__(
        self, name: str, done: Callable[[Then, BaseException | None], None], now: Callable[[], float]
    ) -> None:
        self.smoothed_s = 0.0
        """How long work has been taking, in seconds."""
        self._name, self._done, self._now = name, done, now
        self._queue: SimpleQueue[tuple[Work, Then] | None] = SimpleQueue()
        self._handed_over = self._ended = 0
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether the thread has ended all that it was given."""
        return self._handed_over == self._ended

    def run(self, work: Work) -> BaseException | None:
        """Do it here and now; the error, if it raised."""
        began = self._now()
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:  # noqa: BLE001 - told to whoever gave the work, who ends the process if need be
            error = raised
        took_s = self._now() - began
        if took_s < HANG_S:
            took_s = min(took_s, HICCUP_S_MAX)
        self.smoothed_s += (took_s - self.smoothed_s) * SMOOTHING
        return error

    def hand_over(self, work: Work, then: Then) -> None:
        """Have it done in the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"kv-{self._name}", daemon=True)
            self._thread.start()
        self._handed_over += 1
        self._queue.put((work, then))

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            work, then = item
            error = self.run(work)
            self._ended += 1
            self._done(then, error)

    def close(self) -> None:
        """Wait until the thread has done what it was given."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
