"""How far a run of `kv bench` is: a bar on a terminal, else nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from kv.bench.plan import Plan
    from kv.bench.wire import Progress


class Silent:
    """Shows nothing."""

    def prefilled(self, keys: int) -> None:
        """See `kv.bench.fleet.Watcher`."""

    def begun(self) -> None:
        """See `kv.bench.fleet.Watcher`."""

    def progress(self, progress: Progress) -> None:
        """See `kv.bench.fleet.Watcher`."""


class Bar(Silent):
    """A bar for the prefill, then one for the run: by operations if their number is given, else by time."""

    def __init__(self, plan: Plan, bars: Bars, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._bars = bars
        self._clock = clock
        self._begun_s = 0.0
        self._task: TaskID = bars.add_task("starting", total=plan.keys if plan.prefill else None, counts="")

    def prefilled(self, keys: int) -> None:
        """See `kv.bench.fleet.Watcher`."""
        self._bars.update(self._task, description="writing keys", completed=keys)

    def begun(self) -> None:
        """See `kv.bench.fleet.Watcher`."""
        self._begun_s = self._clock()
        self._bars.remove_task(self._task)
        plan = self._plan
        total = plan.warmup_s + plan.duration_s if plan.count is None else plan.count
        self._task = self._bars.add_task(
            "warming up" if plan.warmup_s else "measuring", total=total, counts=""
        )

    def progress(self, progress: Progress) -> None:
        """See `kv.bench.fleet.Watcher`."""
        passed_s, plan = self._clock() - self._begun_s, self._plan
        ended = progress.ok + progress.failed
        name = "warming up" if passed_s < plan.warmup_s else "measuring"
        late = plan.count is None and passed_s > plan.warmup_s + plan.duration_s
        self._bars.update(
            self._task,
            description="awaiting answers" if late else name,
            completed=passed_s if plan.count is None else ended,
            counts=_counts(progress),
        )


def _counts(progress: Progress) -> str:
    dropped = f", {progress.dropped} dropped" if progress.dropped else ""
    waiting = f", {progress.outstanding} waiting" if progress.outstanding else ""
    return f"{progress.ok} ok, {progress.failed} failed{dropped}{waiting}"


@contextmanager
def make_watcher(plan: Plan) -> Iterator[Silent]:
    """Give what shows the progress on standard error, if that is a terminal."""
    from rich.console import Console  # noqa: PLC0415 - rich costs more than the rest of the start
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Silent()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"))
    with Progress(*columns, console=console, transient=True) as bars:
        yield Bar(plan, bars, time.monotonic)
