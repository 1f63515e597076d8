"""Delta debugging of anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen.minimize import shrink


@given(st.integers(0, 60), st.sets(st.integers(0, 59)))
def test_exactly_what_is_needed_is_left(count: int, needed: set[int]) -> None:
    """Where some things are needed together, they are all that is left, in their order."""
    needed = {one for one in needed if one < count}
    things = range(count)
    shrunk = shrink(things, lambda some: some if needed <= set(some) else None)
    assert shrunk.kept == tuple(sorted(needed))
    assert shrunk.minimal


@given(st.lists(st.sets(st.integers(0, 20), min_size=1), min_size=1, max_size=4))
def test_what_is_left_is_minimal(ways: list[set[int]]) -> None:
    """Where there are several ways to have it, no single thing of what is left can be left out; each step leaves fewer."""
    seen: list[int] = [21]

    def has(some: tuple[int, ...]) -> bool:
        return any(way <= set(some) for way in ways)

    def attempt(some: tuple[int, ...]) -> tuple[int, ...] | None:
        if has(some):
            assert len(some) < seen[-1]
            seen.append(len(some))
            return some
        return None

    kept = shrink(range(21), attempt).kept
    assert has(kept)
    assert not any(has(kept[:i] + kept[i + 1 :]) for i in range(len(kept)))


@given(st.integers(1, 40), st.data())
def test_things_that_go_together(count: int, data: st.DataObject) -> None:
    """An attempt may return fewer than it was asked about: others that cannot stay without what was left out."""
    needed = data.draw(st.integers(0, count - 1))
    # Each thing needs the one before it, down from the needed one only that itself is wanted.
    shrunk = shrink(range(count), lambda some: _chain(some, needed))
    assert shrunk.kept == tuple(range(needed + 1))
    assert shrunk.minimal


def _chain(some: tuple[int, ...], needed: int) -> tuple[int, ...] | None:
    whole = [one for place, one in enumerate(some) if one == place]
    return tuple(whole) if needed in whole else None


def test_the_limit_is_told() -> None:
    """When the time is over what was reached is returned, and it is not called minimal."""
    asked = iter(range(100))
    shrunk = shrink(range(64), lambda some: some if 63 in some else None, expired=lambda: next(asked) >= 3)
    assert shrunk.tests == 3
    assert not shrunk.minimal
    assert 63 in shrunk.kept
    assert len(shrunk.kept) < 64


def test_nothing_can_be_enough() -> None:
    """What is there with nothing at all leaves nothing."""
    assert shrink("abc", lambda some: some).kept == ()
