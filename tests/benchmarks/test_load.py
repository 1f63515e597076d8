"""The loops that put load on: what they count, and their bounds."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks import load
from benchmarks.load import Counted, Tally, closed_loop, open_loop


def done(result: object) -> None:
    """Count every call that returned as done."""
    del result


def refused(error: Exception) -> Counted:
    """Count a RuntimeError as a definite refusal."""
    if isinstance(error, RuntimeError):
        return Counted(definite=1, reason="refused")
    raise error


def test_only_what_ends_in_the_measured_time_counts() -> None:
    """The warm-up and what ends too late are not counted."""
    tally = Tally(10.0, 12.0, operations=3)
    for ended in (9.9, 10.0, 11.9, 12.0):
        tally.add_done(ended - 0.5, ended)
        tally.add(Counted(done=1, definite=2), ended - 0.5, ended - 0.5, ended)
    assert (tally.done, tally.definite) == (8, 4)
    assert tally.series() == [4.0, 4.0]
    assert list(tally.latencies_s) == pytest.approx([0.5, 0.5])


def test_refusals_are_apart_from_successes() -> None:
    """Rates and latencies of both are told, and which share of the failures is definite."""
    tally = Tally(0.0, 2.0, operations=10)
    tally.add_done(0.0, 0.5)
    tally.add(Counted(definite=3, reason="A"), 0.0, 0.0, 0.001)
    tally.add(Counted(indefinite=1, reason="B"), 0.0, 0.75, 1.0)
    found = tally.metrics()
    assert (found["per_s"], found["refused_per_s"], found["unknown_per_s"]) == (5.0, 1.5, 0.5)
    assert found["definite_share"] == 0.75
    assert (found["p50_ms"], found["refused_p50_ms"], found["refused_max_ms"]) == (500.0, 1.0, 1000.0)
    assert found["told_max_ms"] == 250.0, "the generator was late by the rest"
    assert tally.reasons == {"A": 3, "B": 1}


def test_latencies_have_a_bound_and_counting_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound calls are counted without their latency."""
    monkeypatch.setattr(load, "LATENCIES_MAX", 2)
    tally = Tally(0.0, 1.0)
    for _ in range(5):
        tally.add_done(0.0, 0.5)
        tally.add(Counted(definite=1), 0.0, 0.0, 0.5)
    assert (tally.done, tally.definite) == (5, 5)
    assert (len(tally.latencies_s), len(tally.refused_s), len(tally.told_s)) == (2, 2, 2)


async def test_a_closed_loop_has_as_many_calls_at_once_as_tasks() -> None:
    """Each task awaits its own call before the next; all of them work."""
    alive = most = 0

    async def operation() -> None:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        await asyncio.sleep(0)
        alive -= 1

    tally = await closed_loop(operation, done, refused, operations=2, tasks=5, warmup_s=0.0, seconds=0.05)
    assert most == 5
    assert tally.done > 0
    assert tally.done % 2 == 0


async def test_a_closed_loop_goes_on_after_a_refusal_and_ends_at_an_unknown_error() -> None:
    """What the system refuses is counted; what no system says is a fault and ends the loop."""

    async def refuse() -> None:
        await asyncio.sleep(0)
        raise RuntimeError

    tally = await closed_loop(refuse, done, refused, tasks=1, warmup_s=0.0, seconds=0.02)
    assert tally.definite > 1

    async def breaks() -> None:
        await asyncio.sleep(0)
        raise KeyError("a bug")

    with pytest.raises(ExceptionGroup) as found:
        await closed_loop(breaks, done, refused, tasks=1, warmup_s=0.0, seconds=5)
    assert found.group_contains(KeyError)


async def test_an_open_loop_begins_calls_whatever_becomes_of_those_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At its bound of outstanding calls it drops arrivals and says so; it never waits for an answer."""
    monkeypatch.setattr(load, "OUTSTANDING_MAX", 3)
    release, begun = asyncio.Event(), 0

    async def hangs() -> None:
        nonlocal begun
        begun += 1
        await release.wait()

    asyncio.get_running_loop().call_later(0.2, release.set)
    tally = await open_loop(hangs, done, refused, calls_per_s=500, warmup_s=0.0, seconds=0.1)
    assert begun == 3
    assert tally.dropped > 0


async def test_an_open_loop_drops_what_it_cannot_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where beginning calls takes longer than there is time, those that are too late are counted in operations and left out."""
    monkeypatch.setattr(load, "LATE_MAX_S", 0.05)
    begun = 0

    async def busy() -> None:
        nonlocal begun
        begun += 1
        end = time.perf_counter() + 0.01
        while time.perf_counter() < end:
            pass

    tally = await open_loop(busy, done, refused, operations=128, calls_per_s=400, warmup_s=0.0, seconds=0.3)
    assert tally.dropped % 128 == 0
    assert tally.dropped // 128 + begun <= 120
    assert tally.dropped > 0
    assert max(tally.latencies_s) < 0.3, "the lateness of the loop does not grow without end"


async def test_an_open_loop_that_breaks_is_an_error() -> None:
    """A fault in a call is not swallowed with its task."""

    async def breaks() -> None:
        await asyncio.sleep(0.05)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await open_loop(breaks, done, refused, calls_per_s=100, warmup_s=0.0, seconds=0.02)
