"""A gateway over the real state machine in memory, reached through ASGI without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from kv.gateway import make_app
from tests.gateway.memory import Gateway, MemoryExecutor


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """Give a gateway with small limits: bodies of 4096 bytes, 6000 in flight, 2 requests in flight."""
    executor, unready = MemoryExecutor(), list[str]()
    registry = CollectorRegistry()
    Counter("kv_test", "Says that the registry is this one.", registry=registry).inc()
    app = make_app(
        executor,
        ready=lambda: unready[0] if unready else None,
        registry=registry,
        timeout_s=2.0,
        cluster="test",
        body_bytes_max=4096,
        requests_in_flight_max=2,
        body_bytes_in_flight_max=6000,
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://kv") as http:
        yield Gateway(http, executor, unready)
