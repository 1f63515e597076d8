"""Several gRPC servers on one port."""

from __future__ import annotations

import socket

import grpc
import pytest

from kv.errors import Unavailable
from kv.router import listeners
from kv.router.limits import RouterConfig
from kv.router.listeners import LISTENERS, Listeners
from kv.router.streams import server_options


def free_port() -> int:
    """Return a port on which nobody listened a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def make(address: str, added: list[grpc.aio.Server]) -> Listeners:
    """Return listeners with one method, which returns what it got."""

    async def echo(raw: bytes, _context: object) -> bytes:
        return raw

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo)
    }

    def add_to(server: grpc.aio.Server) -> None:
        added.append(server)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))

    return Listeners(address, server_options(RouterConfig()), add_to)


async def echoed(address: str) -> bytes:
    """Return the answer over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Echo")
        answer: bytes = await call(b"x", timeout=10, wait_for_ready=True)
        return answer


async def test_every_connection_is_served_whichever_server_it_meets() -> None:
    """All servers have the services, and what stops them frees the port."""
    address, added = f"127.0.0.1:{free_port()}", list[grpc.aio.Server]()
    serving = make(address, added)
    await serving.start()
    try:
        assert len(added) == LISTENERS
        for _ in range(2 * LISTENERS):
            assert await echoed(address) == b"x"
    finally:
        await serving.stop(0)
    listeners.check_free(address)


async def test_a_port_on_which_another_node_serves_is_refused() -> None:
    """Though the first node shares its port among its own servers, a second one may not join them."""
    address = f"127.0.0.1:{free_port()}"
    first = make(address, [])
    await first.start()
    try:
        with pytest.raises(Unavailable, match=f"cannot listen on {address}: is it in use"):
            await make(address, []).start()
        assert await echoed(address) == b"x"
    finally:
        await first.stop(0)


async def test_a_port_of_a_server_of_another_kind_is_refused() -> None:
    """Whoever listens there already, the error says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match="cannot listen"):
            await make(address, []).start()


async def test_an_address_that_does_not_resolve_is_refused() -> None:
    """What gRPC cannot bind is an error that names the address."""
    with pytest.raises(Unavailable, match=r"cannot listen on no-such-host\.invalid:1"):
        await make("no-such-host.invalid:1", []).start()
