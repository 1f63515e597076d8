"""The node's gRPC servers: several on one port.

Here lives `Listeners` and nothing of what is served. grpc.aio takes in one call for each server and pass of the loop;
with several servers in the process, to which the kernel deals connections (SO_REUSEPORT), it takes in as many.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc.aio

from kv.errors import Unavailable

LISTENERS: Final = 8
"""Servers of a node. No difference to 24 of them could be measured. Beside one server, an idle node was 0.2 MiB larger."""


class Listeners:
    """Serves at one address. `start` once, then `stop` once."""

    def __init__(
        self, address: str, options: Sequence[tuple[str, Any]], add_to: Callable[[grpc.aio.Server], None]
    ) -> None:
        """`address`: host:port; `add_to` adds the services to a server."""
        self._address = address
        self._options = [*options, ("grpc.so_reuseport", 1)]
        self._add_to = add_to
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        """Bind and serve. Raises `Unavailable` if the port is taken."""
        check_free(self._address)
        for _ in range(LISTENERS):
            server = grpc.aio.server(options=self._options)
            self._add_to(server)
            try:
                server.add_insecure_port(self._address)
            except RuntimeError as error:
                raise _taken(self._address) from error
            self._servers.append(server)
        for server in self._servers:
            await server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse what comes now, give calls `grace_s` seconds to end, then cancel them."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


def check_free(address: str) -> None:
    """Raise `Unavailable` if somebody listens at `address` (host:port).

    Servers that share a port by SO_REUSEPORT would share it with another process of this user as well. One that
    binds between this look and ours is not seen; the Raft port, which nobody shares, then ends one of the two.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        return  # gRPC resolves it in its own way, and says what is wrong with it
    for family, kind, protocol, _, target in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(target)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise _taken(address) from error


def _taken(address: str) -> Unavailable:
    return Unavailable(f"cannot listen on {address}: is it in use?")
