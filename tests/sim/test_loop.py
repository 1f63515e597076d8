"""The virtual loop: time jumps, order is that of the calls, asyncio's own parts work on it."""

from __future__ import annotations

import asyncio

import pytest

from kv.sim.loop import Stuck, VirtualLoop


def test_time_jumps_to_the_next_timer_and_ties_keep_their_order() -> None:
    """Sleeping costs no time but moves the clock; timers of one moment fire as they were set."""
    loop = VirtualLoop()
    seen: list[int] = []
    loop.call_at(100.0, seen.append, 1)
    loop.post_at(100.0, seen.append, 2)
    loop.call_at(100.0, seen.append, 3)
    loop.call_at(50.0, seen.append, 0)

    async def main() -> float:
        await asyncio.sleep(1000.0)
        return loop.time()

    assert loop.run_until_complete(main()) == 1000.0
    assert seen == [0, 1, 2, 3]
    loop.close()


def test_a_cancelled_timer_does_not_fire() -> None:
    """Cancelling works before and after the timer became due."""
    loop = VirtualLoop()
    seen: list[int] = []
    timer = loop.call_later(1.0, seen.append, 1)
    loop.call_later(0.5, timer.cancel)
    loop.run_until_complete(asyncio.sleep(2.0))
    assert seen == []
    assert timer.cancelled()
    loop.close()


def test_a_cancelled_timer_does_not_move_the_clock() -> None:
    """What was cancelled leaves no trace: the clock goes to the next timer that fires, not by way of it."""
    loop = VirtualLoop()
    loop.call_at(1.0, loop.stop)
    loop.call_at(0.5, lambda: None).cancel()
    loop.call_at(2.0, lambda: None).cancel()
    loop.run_forever()
    assert loop.time() == 1.0
    loop.call_at(3.0, loop.stop)
    loop.run_forever()
    assert loop.time() == 3.0
    loop.close()


def test_what_was_ready_runs_before_the_loop_stops() -> None:
    """`stop` ends the run after what was ready with it; what that made ready waits for the next run, as in asyncio."""
    loop = VirtualLoop()
    seen: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(loop.call_soon, seen.append, "later")
    loop.call_soon(seen.append, "ready")
    loop.run_forever()
    assert seen == ["ready"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["ready", "later"]
    loop.close()


def test_timeouts_events_and_gathering_work() -> None:
    """The parts of asyncio that production uses run unchanged."""
    loop = VirtualLoop()

    async def main() -> list[int]:
        event = asyncio.Event()
        loop.call_later(3.0, event.set)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await event.wait()
        await event.wait()
        return list(await asyncio.gather(*(asyncio.sleep(n, n) for n in (2, 1))))

    assert loop.run_until_complete(main()) == [2, 1]
    assert loop.time() == 5.0
    loop.close()


def test_a_run_that_can_never_end_says_so() -> None:
    """Waiting for nothing is an error, not an endless loop."""
    loop = VirtualLoop()
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_the_error_of_a_callback_is_kept() -> None:
    """A callback that fails does not end the loop, and is not forgotten."""
    loop = VirtualLoop()
    loop.call_soon(lambda: 1 // 0)
    loop.run_until_complete(asyncio.sleep(1.0))
    assert isinstance(loop.failures[0]["exception"], ZeroDivisionError)
    loop.close()
