"""A portal from threads into one private event loop, for the synchronous client."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

from kv.errors import Unavailable

_T = TypeVar("_T")
_END: Final = object()


class Portal:
    """An event loop on a daemon thread. Any thread may call into it.

    It does not survive `os.fork`: the child has the object but neither the thread nor the
    connections, so a call there raises `RuntimeError`. Make a client in each process, after the fork.
    """

    def __init__(self, name: str) -> None:
        """Start the thread; return when its loop runs."""
        self._pid = os.getpid()
        self._closed = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run the coroutine on the loop and return its result, or raise its error.

        A KeyboardInterrupt of the waiting thread cancels the coroutine.
        """
        # Under the lock, so that nothing is handed over after the loop was told to stop and would wait for ever.
        with self._lock:
            try:
                self._check()
            except BaseException:
                coroutine.close()
                raise
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def run(self, function: Callable[[], _T]) -> _T:
        """Run the function on the loop, between everything else there, and return its result or raise its error."""
        return self.call(_run(function))

    def iterate(self, items: AsyncGenerator[_T, None]) -> Iterator[_T]:
        """Iterate over an asynchronous generator; leaving the loop early closes it."""
        try:
            while (item := self.call(_next(items))) is not _END:
                yield item  # type: ignore[misc]  # a sentinel has no type of its own
        finally:
            if not self._closed:
                self.call(_close(items))

    def close(self) -> None:
        """Stop the loop and wait for its thread. Closing again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._check()
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("a Client does not survive a fork: make one in each process, after the fork")
        if self._closed:
            raise Unavailable("the client is closed: make a new one")
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a Client called from its own event loop would wait for itself: use AsyncClient"
            )

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._cancel_rest()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    def _cancel_rest(self) -> None:
        """End what still runs, so that no thread waits for an answer that never comes."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))


async def _run(function: Callable[[], _T]) -> _T:
    return function()


async def _next(items: AsyncGenerator[_T, None]) -> _T | object:
    return await anext(items, _END)


async def _close(items: AsyncGenerator[_T, None]) -> None:
    await items.aclose()
