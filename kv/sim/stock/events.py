"""The event queue of a trial: virtual time, and what happens next in it."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Work = Callable[[], None]


class EventQueue:
    """Callbacks in the order of their time; those of one moment in the order in which they were put."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Work]] = []
        self._order = 0

    def after(self, delay_s: float, work: Work) -> None:
        """Do `work` in `delay_s` virtual seconds."""
        assert delay_s >= 0, delay_s
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._order, work))

    def run(self, until_s: float) -> None:
        """Let time pass up to `until_s`."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now, _, work = heapq.heappop(self._heap)
            self.events += 1
            work()
        self.now = until_s
