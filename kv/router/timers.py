"""Many deadlines on few timers.

Here lives `DeadlineWheel`: items that are due in the same tick share one timer of the event loop,
so that arming and disarming a deadline for each request costs two dictionary operations.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final, Generic, Protocol, TypeVar


class Cancellable(Protocol):
    """A timer that can be stopped."""

    def cancel(self) -> None:
        """Stop the timer; harmless if it has fired."""


class CallLater(Protocol):
    """`asyncio.AbstractEventLoop.call_later`, or a simulator's."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> Cancellable:
        """Call `callback` once, `delay` seconds from now, on the loop thread."""


EARLY_RETRY_S: Final = 0.001
"""A timer that fired early is set again for no less: a remainder below the clock's precision would spin."""

T = TypeVar("T")


class DeadlineWheel(Generic[T]):
    """Calls `due(item)` once for each armed item, about `tick_s` after its time at most and never before."""

    __slots__ = ("_buckets", "_call_later", "_clock", "_due", "_firing", "_firing_key", "_tick_s", "_timers")

    def __init__(
        self, clock: Callable[[], float], call_later: CallLater, tick_s: float, due: Callable[[T], None]
    ) -> None:
        self._clock = clock
        self._call_later = call_later
        self._tick_s = tick_s
        self._due = due
        self._buckets: dict[int, dict[T, None]] = {}
        self._timers: dict[int, Cancellable] = {}
        self._firing: dict[T, None] = {}
        self._firing_key = -1

    def arm(self, item: T, when: float) -> int:
        """Arm `item` for the time `when` (seconds of the clock); return the key to disarm it with."""
        key = ceil(when / self._tick_s)
        if key * self._tick_s < when:  # the division was rounded down
            key += 1
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = {}
            self._set_timer(key, 0.0)
        bucket[item] = None
        return key

    def disarm(self, item: T, key: int) -> None:
        """Forget the item; harmless if it has fired. The timer stays: others of its tick will use it."""
        if key == self._firing_key:
            self._firing.pop(item, None)
        bucket = self._buckets.get(key)  # also while that tick fires: it may have been armed for it again
        if bucket is not None:
            bucket.pop(item, None)

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._buckets.clear()
        self._firing.clear()

    def _set_timer(self, key: int, delay_min_s: float) -> None:
        delay = max(delay_min_s, key * self._tick_s - self._clock())
        self._timers[key] = self._call_later(delay, lambda: self._fire(key))

    def _fire(self, key: int) -> None:
        """Fire the tick's items one by one: what fires first may disarm what would fire next."""
        del self._timers[key]
        if self._clock() < key * self._tick_s:  # loops round their timers, some down
            self._set_timer(key, EARLY_RETRY_S)
            return
        self._firing, self._firing_key = self._buckets.pop(key), key
        while self._firing:
            item = next(iter(self._firing))
            del self._firing[item]
            self._due(item)
        self._firing_key = -1
