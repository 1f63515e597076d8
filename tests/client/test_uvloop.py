"""The client on uvloop, whose timers differ from those of asyncio: one that is due is a plain handle."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

from kv.client.aio import AsyncClient
from kv.errors import DeadlineExceeded, UnknownOutcome
from tests.client.fakes import FakeCluster, FakeTransport, Fault

CALLS = 300


def test_every_call_ends_whatever_its_deadline() -> None:
    """Calls whose deadlines come thick and fast, while nobody answers, all end, and no callback fails."""
    lost: list[dict[str, Any]] = []

    async def main() -> list[BaseException | object]:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: lost.append(context))
        cluster = FakeCluster(1)
        async with AsyncClient(list(cluster.addresses.values()), transport=FakeTransport(cluster)) as client:
            await client.put(b"first", b"")
            cluster.rule = lambda _node, _request: Fault.SILENT_BEFORE
            puts = [client.put(b"k", b"", timeout=0.02 + place / 10_000) for place in range(CALLS)]
            return await asyncio.wait_for(asyncio.gather(*puts, return_exceptions=True), 30)

    ended = uvloop.run(main())
    assert lost == []
    assert len(ended) == CALLS
    assert all(isinstance(end, DeadlineExceeded | UnknownOutcome) for end in ended)
