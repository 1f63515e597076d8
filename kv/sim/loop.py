"""An asyncio event loop in virtual time: when nothing is ready, time jumps to the next timer.

It has no sockets, threads or signals, so a run depends on what its callbacks do and on
nothing else. Two timers for the same moment fire in the order in which they were set.

Scheduling is its own, leaner than asyncio's: it is most of what a simulation does besides the
production code. Contexts are honoured where a caller gives one, which tasks and futures do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from typing import Any, Final, TypeVar

T = TypeVar("T")
_CALLBACK: Final = 2
_ARGS: Final = 3


class Stuck(Exception):
    """Nothing is ready and no timer is set, but the run has not ended."""


class Timer(list[Any]):
    """What `call_soon` and `call_at` return: as much of `asyncio.TimerHandle` as is used.

    It is the entry of the loop's heap itself, (when, order, callback, args, context): so it is made and compared
    without a call of Python code. No two have the same order, so that a comparison ends there.
    """

    __slots__ = ()

    def cancel(self) -> None:
        """Do not call any more."""
        self[_CALLBACK], self[_ARGS] = None, ()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self[_CALLBACK] is None

    def when(self) -> float:
        """The time for which it is set."""
        when: float = self[0]
        return when


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines and callbacks in virtual time; seconds, from 0."""

    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        """What `time` tells, for those who ask often."""
        self._order = 0
        self._timers: list[list[Any]] = []
        self._soon: deque[Timer] = deque()
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Timer:
        """Run the callback after what is ready now."""
        timer = Timer((self.now_s, 0, callback, args, context))
        self._soon.append(timer)
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Timer:
        """Run the callback after a delay in virtual seconds."""
        self._order = order = self._order + 1
        timer = Timer((self.now_s + delay, order, callback, args, context))
        heappush(self._timers, timer)
        return timer

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Timer:
        """Run the callback at a time; ties in the order of the calls."""
        self._order = order = self._order + 1
        timer = Timer((when, order, callback, args, context))
        heappush(self._timers, timer)
        return timer

    def post_at(self, when: float, callback: Callable[..., object], *args: object) -> None:
        """As `call_at`, for what nobody cancels: it costs a third less."""
        self._order = order = self._order + 1
        heappush(self._timers, [when, order, callback, args, None])

    def run_in_executor(self, _executor: object, func: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Runs the function at once: a thread would run at a time that no seed knows."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits
            future.set_exception(error)
        return future

    def _run_once(self) -> None:  # noqa: C901 - flat, and a call more would be one for each event
        """Callbacks and steps of the clock until the loop is stopped, which the base class then finds."""
        soon, timers, next_call = self._soon, self._timers, self._soon.popleft
        timer: list[Any]
        left = 0  # of what was ready when the last look was taken: whether to stop is asked after all of it
        while True:
            if left:
                left -= 1
                timer = next_call()
            elif soon:
                left = len(soon) - 1
                timer = next_call()
            elif timers:
                timer = heappop(timers)
                if timer[0] > self.now_s and timer[_CALLBACK] is not None:
                    self.now_s = timer[0]  # the clock goes to the next timer
            else:
                raise Stuck("nothing will ever happen again")
            _, _, callback, args, context = timer
            try:
                if callback is None:  # cancelled
                    pass
                elif context is None:
                    callback(*args)
                else:
                    context.run(callback, *args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as the base class does
                self.call_exception_handler({"message": "a callback failed", "exception": error})
            if not left and self._stopping:
                return

    def _process_events(self, event_list: list[object]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """No other thread ever wakes this loop."""
