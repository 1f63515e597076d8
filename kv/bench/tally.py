"""What happened in a run: operations by how they ended, over time, and their latencies. Pure; times are arguments.

Each operation is counted twice, in the window in which it ended. How much came through: `ended`, whenever it began.
How long it took: `latency`, if it began (or was due) in the measured time, whenever it ended. So
neither a slow operation at the end nor one that began in the warm-up bends the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from kv.bench.histogram import Histogram
from kv.errors import KVError

WINDOWS_MAX: Final = 240
"""More windows than this become half as many, each twice as wide."""

OK: Final = ""
"""The reason of an operation that succeeded."""


class Ending(NamedTuple):
    """How an operation ended."""

    operation: str
    """What it was: "put", "get", "scan", "batch"."""
    reason: str = OK
    """The stable name of the error (`KVError.reason`)."""
    outcome: str = "done"
    """"done"; of an error "not done" if it is definite, "done, with an error" if it was applied, else "unknown"."""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.reason == OK


def ending_of(operation: str, error: KVError) -> Ending:
    """Return how an operation ended that failed with `error`."""
    if error.applied:
        return Ending(operation, error.reason, "done, with an error")
    return Ending(operation, error.reason, "not done" if error.definite else "unknown")


@dataclass(slots=True)
class Count:
    """The operations that ended in one way."""

    ended: int = 0
    """All that ended in the window."""
    items: int = 0
    """Keys that these wrote, found or read."""
    latency: Histogram = field(default_factory=Histogram)
    """Of those among them that began, or were due, in the measured time."""

    def add(self, other: Count) -> None:
        """Count what is in `other` too."""
        self.ended += other.ended
        self.items += other.items
        self.latency.add(other.latency)


Counts: TypeAlias = dict[Ending, Count]


def add_all(into: Counts, more: Counts) -> None:
    """Add each count of `more` to that of the same ending."""
    for ending, count in more.items():
        into.setdefault(ending, Count()).add(count)


@dataclass(slots=True)
class Window:
    """A stretch of time."""

    counts: Counts = field(default_factory=dict)
    dropped: int = 0
    """Operations that were due here and were not begun, because too many had no answer."""

    def add(self, other: Window) -> None:
        """Count what is in `other` too."""
        add_all(self.counts, other.counts)
        self.dropped += other.dropped

    @property
    def ok(self) -> int:
        """Operations that ended well."""
        return sum(count.ended for ending, count in self.counts.items() if ending.ok)

    @property
    def failed(self) -> int:
        """Operations that ended with an error."""
        return sum(count.ended for ending, count in self.counts.items() if not ending.ok)


class Tally:
    """The counts of one process, or of several that were added. Times are ns since the measured time began."""

    __slots__ = ("_current", "_number", "cpu_s", "elapsed_ns", "lag", "width_ns", "windows")

    def __init__(self, width_ns: int) -> None:
        self.width_ns = width_ns
        self.windows: dict[int, Window] = {}
        """By number from 0; a window in which nothing happened is not there."""
        self.lag = Histogram()
        """Open loop: how much after its time each operation was begun."""
        self.elapsed_ns = 0
        """When the last operation ended."""
        self.cpu_s: list[float] = []
        """Processor time of each process in the measured time, as a part of one core."""
        self._number = -1
        self._current = Window()

    def ended(self, at_ns: int, ending: Ending, items: int, latency_ns: int | None) -> None:
        """Count an operation that ended at `at_ns`; its latency is None if it began before the measured time."""
        counts = self._window(at_ns).counts
        count = counts.get(ending)
        if count is None:
            count = counts[ending] = Count()
        count.ended += 1
        count.items += items
        if latency_ns is not None:
            count.latency.record(latency_ns)
        if at_ns > self.elapsed_ns:  # noqa: PLR1730 - as in the histogram
            self.elapsed_ns = at_ns

    def dropped(self, due_ns: int) -> None:
        """Count an operation that was due at `due_ns` and not begun."""
        self._window(due_ns).dropped += 1

    def _window(self, at_ns: int) -> Window:
        """Return the window of a time; what ends before time 0 is not counted by anybody."""
        number = at_ns // self.width_ns
        if number == self._number:
            return self._current
        assert number >= 0, "only the measured time has windows"
        while number >= WINDOWS_MAX:
            self.widen()
            number = at_ns // self.width_ns
        self._number, self._current = number, self.windows.setdefault(number, Window())
        return self._current

    def widen(self) -> None:
        """Make the windows twice as wide, two into one."""
        before, self.windows, self._number = self.windows, {}, -1
        self.width_ns *= 2
        for number in sorted(before):
            self.windows.setdefault(number // 2, Window()).add(before[number])

    def add(self, other: Tally) -> None:
        """Count what is in `other` too, which began with windows of the same width."""
        while self.width_ns < other.width_ns:
            self.widen()
        while other.width_ns < self.width_ns:
            other.widen()
        assert self.width_ns == other.width_ns, "widths of one plan are the first one times a power of two"
        for number in sorted(other.windows):
            self.windows.setdefault(number, Window()).add(other.windows[number])
        self.lag.add(other.lag)
        self.elapsed_ns = max(self.elapsed_ns, other.elapsed_ns)
        self.cpu_s.extend(other.cpu_s)

    def counts(self, windows: int | None = None) -> Counts:
        """Return the counts of the whole run, or of its first `windows`: successes first, then by operation and reason."""
        merged: Counts = {}
        for number in sorted(self.windows):
            if windows is None or number < windows:
                add_all(merged, self.windows[number].counts)
        return {ending: merged[ending] for ending in sorted(merged, key=lambda one: (not one.ok, one))}

    @property
    def dropped_total(self) -> int:
        """Operations that were due and not begun."""
        return sum(window.dropped for window in self.windows.values())

    def fields(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return {
            "width_ns": self.width_ns,
            "elapsed_ns": self.elapsed_ns,
            "cpu_s": self.cpu_s,
            "lag": self.lag.fields(),
            "windows": [[number, _window_fields(self.windows[number])] for number in sorted(self.windows)],
        }

    @staticmethod
    def parse(fields: Mapping[str, Any]) -> Tally:
        """Return the tally of `fields`."""
        tally = Tally(int(fields["width_ns"]))
        tally.elapsed_ns = int(fields["elapsed_ns"])
        tally.cpu_s = [float(value) for value in fields["cpu_s"]]
        tally.lag = Histogram.parse(fields["lag"])
        tally.windows = {int(number): _parse_window(window) for number, window in fields["windows"]}
        return tally


def _window_fields(window: Window) -> dict[str, Any]:
    counts = (
        [*ending, count.ended, count.items, count.latency.fields()] for ending, count in window.counts.items()
    )
    return {"counts": list(counts), "dropped": window.dropped}


def _parse_window(fields: Mapping[str, Any]) -> Window:
    counts = {
        Ending(*names): Count(int(ended), int(items), Histogram.parse(latency))
        for *names, ended, items, latency in fields["counts"]
    }
    return Window(counts, int(fields["dropped"]))
