"""The HTTP server in the node's loop, over real sockets."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest
from prometheus_client import CollectorRegistry

from kv.errors import Unavailable
from kv.gateway import HttpServer
from tests.gateway.memory import MemoryExecutor


def server(executor: MemoryExecutor, listen: str = "127.0.0.1:0") -> HttpServer:
    """Return a server that is always ready."""
    return HttpServer(listen, executor, ready=lambda: None, registry=CollectorRegistry(), timeout_s=2.0)


async def test_serves_after_start_and_not_after_stop() -> None:
    """Once `start` returns the port answers; once `stop` returns it refuses connections."""
    http_server = server(MemoryExecutor())
    await http_server.start()
    async with httpx.AsyncClient(base_url=f"http://{http_server.address}") as http:
        put = await http.post("/put", json={"key": "a", "value": "1"})
        assert put.json()["revision"] == 1
        assert (await http.get("/get", params={"key": "a"})).json()["value"] == "1"
    await http_server.stop()
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient() as http:
            await http.get(f"http://{http_server.address}/healthz")


async def test_stop_lets_requests_in_flight_finish() -> None:
    """A request that was taken before `stop` gets its answer."""
    executor = MemoryExecutor()
    executor.gate.clear()
    http_server = server(executor)
    await http_server.start()
    async with httpx.AsyncClient(base_url=f"http://{http_server.address}") as http:
        request = asyncio.create_task(http.get("/get", params={"key": "a"}))
        await executor.arrived.acquire()
        stopping = asyncio.create_task(http_server.stop())
        executor.gate.set()
        assert (await request).status_code == 404
        await stopping


async def test_a_taken_port_is_a_definite_error() -> None:
    """Two servers on one port: the second says so and does not end the process."""
    first = server(MemoryExecutor())
    await first.start()
    with pytest.raises(Unavailable, match="cannot listen"):
        await server(MemoryExecutor(), first.address).start()
    await first.stop()


async def test_signals_stay_with_the_node() -> None:
    """The server leaves the handlers of SIGTERM and SIGINT as it found them."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    http_server = server(MemoryExecutor())
    await http_server.start()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    await http_server.stop()


async def test_an_oversized_body_is_refused_on_the_wire() -> None:
    """A body that announces more than the limit is answered 413 while the client still sends."""
    http_server = server(MemoryExecutor())
    await http_server.start()
    reader, writer = await asyncio.open_connection(*http_server.address.split(":"))
    writer.write(b"POST /put HTTP/1.1\r\nHost: kv\r\nContent-Length: 1000000000\r\n\r\n")
    writer.write(b" " * (9 * 1024 * 1024))
    status = await asyncio.wait_for(reader.readline(), 5)
    assert status.startswith(b"HTTP/1.1 413")
    writer.close()
    await http_server.stop()
