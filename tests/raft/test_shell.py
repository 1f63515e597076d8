"""The engine's shell on a real loop: where blocking work runs, and what is told of it."""

from __future__ import annotations

import asyncio
import threading

from kv.raft.shell import HANG_S, INLINE_LANE, INLINE_S_MAX, AsyncioShell


class Clock:
    """Time that passes only where a test says so: how long a real sync takes is not ours to know."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


def made() -> AsyncioShell:
    """Return a shell of this loop by the test's clock."""
    return AsyncioShell(asyncio.get_running_loop(), CLOCK)


async def done(shell: AsyncioShell, lane: str, seconds: float = 0.0) -> tuple[int, BaseException | None]:
    """Run work that takes so long; the thread that ran it, and the error that was told."""
    told: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    threads: list[int] = []

    def work() -> None:
        threads.append(threading.get_ident())
        CLOCK.now += seconds

    shell.run_blocking(lane, work, told.set_result)
    assert not threads or lane != INLINE_LANE, "never within the call: what this pass sends leaves first"
    error = await told
    return threads[0], error


async def test_the_log_is_synced_on_the_loop_while_that_is_quick() -> None:
    """One slow sync sends the next ones to a thread, and quick ones bring them back."""
    shell, loop_thread = made(), threading.get_ident()
    assert await done(shell, INLINE_LANE) == (loop_thread, None)
    assert (await done(shell, INLINE_LANE, 100 * INLINE_S_MAX))[0] == loop_thread, "it cannot be known before"
    assert (await done(shell, INLINE_LANE))[0] != loop_thread
    for _ in range(1000):
        if (await done(shell, INLINE_LANE))[0] == loop_thread:
            break
    else:
        raise AssertionError("quick work never came back to the loop")
    shell.close()


async def test_a_hiccup_sends_nothing_to_the_thread_and_a_hang_does() -> None:
    """Single syncs of a few milliseconds stay on the loop; slow ones in a row, or one that hangs, do not."""
    shell, loop_thread = made(), threading.get_ident()
    for seconds in (0.9 * HANG_S, 0.0, 0.0, 0.9 * HANG_S, 0.0, 0.0):
        assert (await done(shell, INLINE_LANE, seconds))[0] == loop_thread
    for _ in range(4):
        await done(shell, INLINE_LANE, 0.9 * HANG_S)
    assert (await done(shell, INLINE_LANE))[0] != loop_thread, "the disk is slow"
    shell.close()
    shell = made()
    await done(shell, INLINE_LANE, 1.1 * HANG_S)
    assert (await done(shell, INLINE_LANE))[0] != loop_thread, "the disk hangs"
    shell.close()


async def test_other_lanes_never_block_the_loop() -> None:
    """What is long by nature runs in a thread of its own from the first time on."""
    shell = made()
    assert (await done(shell, "bulk"))[0] != threading.get_ident()
    shell.close()


async def test_an_error_is_told_wherever_it_was_raised() -> None:
    """A failed sync reaches who gave the work, from the loop and from a thread."""
    shell = made()
    failure = OSError("no more disk")

    def fails() -> None:
        raise failure

    for lane in (INLINE_LANE, "bulk"):
        told: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        shell.run_blocking(lane, fails, told.set_result)
        assert await told is failure
    shell.close()


async def test_a_closed_shell_tells_nothing_more() -> None:
    """Work that was given before the end is done or not; nobody is told."""
    shell = made()
    told: list[BaseException | None] = []
    for lane in (INLINE_LANE, "bulk"):
        shell.run_blocking(lane, lambda: None, told.append)
    shell.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == []
