"""The thread that begins and ends the write transactions of a node's stores.

LMDB's lock on an environment belongs to the thread that took it, and whoever took it has to give it back. So that a
checkpoint, which waits for the disk, need not hold up the event loop, both happen here; in between the loop
alone uses the transaction. One thread for all stores of a node: their checkpoints come one after the other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Writer(Protocol):
    """Does what it is given in order, always in the same thread."""

    def start(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Do `work`, which does not raise, then call `then` on the loop. May do both before it returns."""

    def wait(self) -> None:
        """Return when all work that was started is done (blocking); a `then` may still come."""


class WriterThread:
    """A `Writer` with a thread of its own, which begins with its first work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kv-store")

    def start(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """See `Writer`."""
        self._pool.submit(work).add_done_callback(lambda _: self._loop.call_soon_threadsafe(then))

    def wait(self) -> None:
        """See `Writer`."""
        self._pool.submit(nothing).result()

    def close(self) -> None:
        """Ends the thread. The stores were closed before."""
        self._pool.shutdown()


class Inline:
    """A `Writer` that does everything at once, in the thread that made it: for those who have nothing else to do."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def start(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """See `Writer`."""
        assert threading.get_ident() == self._thread, (
            "the write transaction belongs to the thread that opened it"
        )
        work()
        then()

    def wait(self) -> None:
        """See `Writer`."""


def nothing() -> None:
    """What is done when nothing is to be done."""


def call(writer: Writer, work: Callable[[], T]) -> T:
    """Return what `work` returns in the writer's thread, or raise what it raises (blocking)."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of whoever asked
            errors.append(error)

    writer.start(run, nothing)
    writer.wait()
    if errors:
        raise errors[0]
    return results[0]
