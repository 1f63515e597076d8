"""The bar of `kv bench`: what it says at each stage, and that it is for terminals only."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress as Bars

from kv.bench.kinds import Kind
from kv.bench.plan import Plan
from kv.bench.wire import Progress
from kv.cli.bench_progress import Bar, Silent, make_watcher

URL = "kv://127.0.0.1:7001"


def bar(plan: Plan, now: list[float]) -> tuple[Bar, Bars]:
    """Return a bar that writes into memory and whose time is `now`."""
    bars = Bars(console=Console(file=io.StringIO(), force_terminal=True), auto_refresh=False)
    return Bar(plan, bars, lambda: now[0]), bars


def test_a_run_by_time_goes_through_its_stages() -> None:
    """The keys, the warm-up, the measured time and the wait for the last answers each have their name and extent."""
    now = [0.0]
    shown, bars = bar(Plan(Kind.GET, URL, prefill=True, keys=10, duration_s=4.0, warmup_s=2.0), now)
    shown.prefilled(5)
    (task,) = bars.tasks
    assert (task.description, task.completed, task.total) == ("writing keys", 5, 10)
    shown.begun()
    for at_s, name in ((1.0, "warming up"), (3.0, "measuring"), (7.0, "awaiting answers")):
        now[0] = at_s
        shown.progress(Progress(7, 1, 2, 3))
        (task,) = bars.tasks
        assert (task.description, task.completed, task.total) == (name, at_s, 6.0)
    assert task.fields["counts"] == "7 ok, 1 failed, 2 dropped, 3 waiting"


def test_a_run_by_number_shows_the_number() -> None:
    """Where operations are counted the bar is as long as there are operations."""
    shown, bars = bar(Plan(Kind.PUT, URL, count=20, warmup_s=0.0), [0.0])
    shown.begun()
    shown.progress(Progress(7, 1, 0, 0))
    (task,) = bars.tasks
    assert (task.description, task.completed, task.total) == ("measuring", 8, 20)
    assert task.fields["counts"] == "7 ok, 1 failed"


def test_without_a_terminal_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """In a script standard error has no bar."""
    with make_watcher(Plan(Kind.PUT, URL)) as watcher:
        assert type(watcher) is Silent
        watcher.prefilled(1)
        watcher.begun()
        watcher.progress(Progress(1, 0, 0, 0))
    assert capfd.readouterr() == ("", "")
