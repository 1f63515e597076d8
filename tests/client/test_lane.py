"""What a lane knows of how fast it is served."""

from __future__ import annotations

import asyncio

import pytest

from kv.client.calls import GetCall
from kv.client.lane import Lane
from kv.client.route import Kind, Route


@pytest.mark.parametrize("bunch", [1, 2, 8])
async def test_answers_in_bunches_are_no_faster_than_those_that_come_one_by_one(bunch: int) -> None:
    """Requests that leave together are answered together: what a call has to wait for is told right all the same."""
    lane = Lane(1, Route(Kind.READ))
    loop = asyncio.get_running_loop()
    for _ in range(1000):
        lane.add(GetCall(b"k", 10, 1e9, loop.create_future()))
    now = 0.0
    estimates = []
    for answer in range(400):  # 100 operations in 10 ms on the whole
        if answer % bunch == 0:
            now += 0.010 * bunch
        lane.served(100, now + 1e-5 * (answer % bunch))
        estimates.append(lane.wait_s())
    assert sum(estimates[200:]) / 200 == pytest.approx(0.1, rel=0.05)
    assert 0.06 < min(estimates[200:]) <= max(estimates[200:]) < 0.15
