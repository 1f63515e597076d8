"""Many deadlines on few timers.

Here lives `DeadlineWheel`: items that are due in the same tick share one timer of the event loop,
so that arming and disarming a deadline for each request costs two dictionary operations.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Generic, Protocol, TypeVar


class Cancellable(Protocol):
    """A timer that can be stopped."""

    def cancel(self) -> None:
        """Stop the timer; harmless if it has fired."""


class CallLater(Protocol):
    """`asyncio.AbstractEventLoop.call_later`, or a simulator's."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> Cancellable:
        """Call `callback` once, `delay` seconds from now, on the loop thread."""


T = TypeVar("T")


class DeadlineWheel(Generic[T]):
    """Calls `due(item)` once for each armed item, at most `tick_s` after its time and never before."""

    __slots__ = ("_buckets", "_call_later", "_clock", "_due", "_tick_s", "_timers")

    def __init__(
        self, clock: Callable[[], float], call_later: CallLater, tick_s: float, due: Callable[[T], None]
    ) -> None:
        self._clock = clock
        self._call_later = call_later
        self._tick_s = tick_s
        self._due = due
        self._buckets: dict[int, dict[T, None]] = {}
        self._timers: dict[int, Cancellable] = {}

    def arm(self, item: T, when: float) -> int:
        """Arm `item` for the time `when` (seconds of the clock); return the key to disarm it with."""
        key = ceil(when / self._tick_s)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = {}
            delay = max(0.0, key * self._tick_s - self._clock())
            self._timers[key] = self._call_later(delay, lambda: self._fire(key))
        bucket[item] = None
        return key

    def disarm(self, item: T, key: int) -> None:
        """Forget the item; harmless if it has fired. The timer stays: others of its tick will use it."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.pop(item, None)

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._buckets.clear()

    def _fire(self, key: int) -> None:
        del self._timers[key]
        for item in self._buckets.pop(key):
            self._due(item)
