"""The state of the links."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from kv_jepsen.cuts.links import CLIENTS, RETRANSMIT_S, Links


async def test_a_cut_is_one_way_and_ends_by_heal() -> None:
    """A cut link is passable the other way, and who waits at it goes on at the heal."""
    links = Links()
    links.cut("a", "b")
    await links.passable("b", "a", 10)
    waiting = asyncio.create_task(links.passable("a", "b", 10))
    await asyncio.sleep(0)
    assert not waiting.done()
    links.heal()
    await waiting


async def test_a_cut_that_lasts_is_a_timeout() -> None:
    """Who waits longer than may be held is told so."""
    links = Links()
    links.cut("a", "b")
    with pytest.raises(TimeoutError):
        await links.passable("a", "b", 0.01)


def test_delays() -> None:
    """Slowness is of one way; weather is between nodes only; heal and zero end them."""
    links, rng = Links(), Random(1)
    links.slow("a", "b", 0.5)
    assert (links.delay("a", "b", rng), links.delay("b", "a", rng)) == (0.5, 0.0)
    links.slow("a", "b", 0)
    links.weather(1.0, 1.0, 0.3)
    assert links.delay("a", "b", rng) == RETRANSMIT_S + 0.3
    assert links.delay(CLIENTS, "b", rng) == 0.0
    links.heal()
    assert links.delay("a", "b", rng) == 0.0
