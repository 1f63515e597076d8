"""Many deadlines on few timers."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from kv.router.timers import EARLY_RETRY_S, Cancellable, DeadlineWheel
from tests.router.world import VirtualTime

TICK_S = 0.01


@given(st.lists(st.floats(min_value=0.0, max_value=2.0), min_size=1, max_size=30), st.data())
def test_each_item_is_due_once_within_a_tick_unless_disarmed(
    delays: list[float], data: st.DataObject
) -> None:
    """An item fires once, not before its time and about a tick after at most; a disarmed one never."""
    time = VirtualTime()
    fired: list[tuple[int, float]] = []
    wheel: DeadlineWheel[int] = DeadlineWheel(
        time.clock, time.call_later, TICK_S, lambda item: fired.append((item, time.now))
    )
    start = time.now
    keys = {item: wheel.arm(item, start + delay) for item, delay in enumerate(delays)}
    disarmed = data.draw(st.sets(st.sampled_from(sorted(keys))))
    for item in disarmed:
        wheel.disarm(item, keys[item])
    time.advance(3.0)
    assert sorted(item for item, _ in fired) == sorted(set(keys) - disarmed)
    for item, at in fired:
        late = at - (start + delays[item])
        assert 0 <= late <= TICK_S + EARLY_RETRY_S + 1e-6


def test_an_item_armed_again_while_it_fires_fires_again() -> None:
    """The callback may arm the same item for later."""
    time = VirtualTime()
    fired: list[float] = []

    def due(item: str) -> None:
        fired.append(time.now)
        if len(fired) < 3:
            wheel.arm(item, time.now + 0.1)

    wheel: DeadlineWheel[str] = DeadlineWheel(time.clock, time.call_later, TICK_S, due)
    wheel.arm("x", time.now + 0.1)
    time.advance(1.0)
    assert len(fired) == 3


def test_a_closed_wheel_fires_nothing() -> None:
    """After close no timer of the wheel is left to fire."""
    time = VirtualTime()
    fired: list[str] = []
    wheel: DeadlineWheel[str] = DeadlineWheel(time.clock, time.call_later, TICK_S, fired.append)
    wheel.arm("x", time.now + 0.1)
    wheel.close()
    time.advance(1.0)
    assert fired == []


def test_an_item_disarmed_by_another_of_its_tick_does_not_fire() -> None:
    """What fires first in a tick may end what would fire next."""
    time = VirtualTime()
    fired: list[str] = []
    keys: dict[str, int] = {}

    def due(item: str) -> None:
        fired.append(item)
        for other, key in keys.items():
            wheel.disarm(other, key)

    wheel: DeadlineWheel[str] = DeadlineWheel(time.clock, time.call_later, TICK_S, due)
    keys.update({item: wheel.arm(item, time.now + 0.1) for item in "abc"})
    time.advance(1.0)
    assert fired == ["a"]


def test_a_timer_that_fires_early_is_set_again() -> None:
    """A loop that rounds its timers down makes no item due before its time."""
    time = VirtualTime()
    fired: list[float] = []

    def hasty(delay: float, callback: Callable[[], None], /) -> Cancellable:
        return time.call_later(delay * 0.9, callback)

    wheel: DeadlineWheel[str] = DeadlineWheel(time.clock, hasty, TICK_S, lambda _item: fired.append(time.now))
    when = time.now + 0.1
    wheel.arm("x", when)
    time.advance(1.0)
    assert len(fired) == 1
    assert fired[0] >= when


def test_an_item_armed_for_the_tick_that_fires_can_be_disarmed() -> None:
    """Armed again for the tick that is firing now, and disarmed before it fires: it does not."""
    time = VirtualTime()
    fired: list[str] = []

    def due(item: str) -> None:
        fired.append(item)
        key = wheel.arm("other", time.now)
        wheel.disarm("other", key)

    wheel: DeadlineWheel[str] = DeadlineWheel(time.clock, time.call_later, TICK_S, due)
    wheel.arm("x", 1000.1)
    time.advance(1.0)
    assert fired == ["x"]
