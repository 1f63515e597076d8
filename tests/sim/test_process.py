"""A simulated process: paused it waits, dead it is silent, its clocks can be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from kv.sim.loop import VirtualLoop
from kv.sim.process import Clock, Life, ProcessDied


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """A loop in virtual time."""
    made = VirtualLoop()
    yield made
    made.close()


def life_on(loop: VirtualLoop, sync_delay_s: float = 0.5) -> Life:
    """A process whose blocking work takes so long."""
    return Life(loop, Clock(loop, 1000), Random(1), lambda: sync_delay_s)


def pass_time(loop: VirtualLoop, seconds: float) -> None:
    """Let virtual time pass."""
    loop.run_until_complete(asyncio.sleep(seconds))


def test_a_paused_process_does_everything_later_in_order(loop: VirtualLoop) -> None:
    """Events that come during a pause are taken in at its end."""
    life = life_on(loop)
    seen: list[object] = []
    life.call_later(1.0, lambda: seen.append("timer"))
    life.pause()
    life.enter(lambda: seen.append("message"))
    pass_time(loop, 5.0)
    assert seen == []
    life.resume()
    assert seen == ["message", "timer"]


def test_a_dead_process_does_nothing(loop: VirtualLoop) -> None:
    """Neither its timers nor its workers nor messages to it have any effect."""
    life = life_on(loop)
    seen: list[object] = []
    life.call_later(1.0, lambda: seen.append("timer"))
    life.run_blocking("log", lambda: seen.append("work"), lambda _: seen.append("then"))
    life.end()
    life.enter(lambda: seen.append("message"))
    pass_time(loop, 5.0)
    assert seen == []


def test_blocking_work_takes_time_and_keeps_its_lane(loop: VirtualLoop) -> None:
    """Work of one lane is done one after the other, and its error goes to whoever waits."""
    life = life_on(loop)
    seen: list[object] = []

    def fail() -> None:
        raise OSError("disk")

    life.run_blocking("log", lambda: seen.append("first"), lambda error: seen.append((loop.time(), error)))
    life.run_blocking("log", fail, lambda error: seen.append((loop.time(), str(error))))
    pass_time(loop, 5.0)
    assert seen == ["first", (0.5, None), (1.0, "disk")]


def test_a_process_killed_inside_an_event_ends_at_that_point(loop: VirtualLoop) -> None:
    """Nothing after the point runs, and the death is told once."""
    life = life_on(loop)
    seen: list[object] = []

    def event() -> None:
        seen.append("before")
        life.end()
        raise ProcessDied

    life.died = lambda: seen.append("died")
    life.enter(event)
    life.enter(lambda: seen.append("after"))
    assert seen == ["before", "died"]


def test_clocks_run_and_jump(loop: VirtualLoop) -> None:
    """A fast clock shortens delays, a jump moves the wall clock only, and steady time never goes back."""
    clock = Clock(loop, 1000)
    pass_time(loop, 1.0)
    clock.run_at(2.0)
    assert clock.rate == 2.0
    pass_time(loop, 1.0)
    assert clock.now() == 3.0
    clock.jump_wall(-2.0)
    assert (clock.now(), clock.wall_ms()) == (3.0, 2000)
