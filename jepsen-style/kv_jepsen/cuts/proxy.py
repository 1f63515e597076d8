"""Cuts without privileges: one TCP proxy of the harness in front of each node, which knows who dials it.

All nodes are told the same addresses, those of the proxies, since systems hand addresses on (a cluster map, a member
list). So an address cannot tell whose link it is; the dialling socket does: Linux tells in `/proc` which node's process holds
it. What is held by no node is a client's, the host `clients`.

A cut holds what is sent, one way; if it lasts, the connection is reset, as TCP's own timeouts would do. Data is never
dropped inside a connection: to those who use TCP a lost packet is a late one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeAlias

from kv_jepsen.cuts import sockets
from kv_jepsen.cuts.api import Cuts
from kv_jepsen.cuts.links import CLIENTS, ROUTER, Links, router_of
from kv_jepsen.unsupported import Unsupported

HOST: Final = "127.0.0.1"
OFFERED: Final = frozenset(
    {"cut", "partition", "heal", "slow", "reset", "weather", "long_delay", "router", "clients", "calm"}
)
_Way: TypeAlias = Sequence[tuple[str, str]]
"""Links, from host to host, that must all be passable; the first is between the nodes themselves."""
HOLD_S: Final = 2.5
"""A cut that lasts so long resets the connections that it holds; the simulator's figure."""
CHUNK_BYTES_MAX: Final = 64 * 1024
CHUNKS_HELD_MAX: Final = 256
"""Of one direction of a connection; then the sender is no longer read, as with a full window."""
DIAL_TIMEOUT_S: Final = 2.0
CLOSE_TIMEOUT_S: Final = 5.0


class ProxyCuts(Cuts):
    """See the first lines of this file."""

    def __init__(self, nodes: Sequence[str], rng: Random) -> None:
        self.nodes = tuple(nodes)
        self.pid_of = lambda _: None
        self._links = Links()
        self._rng = rng
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """See `Cuts`."""
        if not sockets.offered():
            raise Unsupported("proxy cuts ask the kernel who dials: they need Linux")

    async def close(self) -> None:
        """See `Cuts`."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        self._servers.clear()

    def host(self, node: str) -> str:
        """See `Cuts`."""
        del node
        return HOST

    def prefix(self, node: str) -> list[str]:
        """See `Cuts`."""
        del node
        return []

    async def exposed(self, node: str, port: int, role: str = "") -> str:
        """See `Cuts`: opens the proxy in front of the port."""

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._carry(node, port, role, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accepted, HOST, 0)
        self._servers.append(server)
        return f"{HOST}:{server.sockets[0].getsockname()[1]}"

    def cut(self, source: str, end: str) -> None:
        """See `Cuts`."""
        self._links.cut(source, end)

    def slow(self, source: str, end: str, seconds: float) -> None:
        """See `Cuts`."""
        self._links.slow(source, end, seconds)

    def reset(self, source: str, end: str) -> None:
        """See `Cuts`."""
        for connection in list(self._connections):
            if {connection.dialler, connection.node} == {source, end}:
                connection.reset()

    def weather(self, loss: float, long_delay: float, seconds: float) -> None:
        """See `Cuts`."""
        self._links.weather(loss, long_delay, seconds)

    def heal(self) -> None:
        """See `Cuts`."""
        self._links.heal()

    def offers(self, kind: str) -> bool:
        """See `Cuts`."""
        return kind in OFFERED

    async def _carry(
        self, node: str, port: int, role: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection from its first byte to its last."""
        dialler = self._dialler(writer)
        if dialler is None:
            _abort(writer)
            return
        connection = _Connection(dialler, node, writer)
        self._connections.add(connection)
        try:
            # Neither the first packet nor its answer may be cut; the dialler sees a connection that says nothing.
            there, back = self._ways(dialler, node, role)
            await _passable(self._links, there)
            await _passable(self._links, back)
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                back_reader, back_writer = await asyncio.open_connection(HOST, port)
            connection.back = back_writer
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(there, reader, back_writer))
                pumps.create_task(self._pump(back, back_reader, writer))
        except* (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # an end is gone, or the cut lasted: both ends learn it by the reset below
        finally:
            connection.reset()
            self._connections.discard(connection)

    def _ways(self, dialler: str, node: str, role: str) -> tuple[_Way, _Way]:
        """The links, one way and the other, that a connection goes over."""
        names = [dialler, router_of(dialler)] if role == ROUTER and dialler != CLIENTS else [dialler]
        return [(name, node) for name in names], [(node, name) for name in names]

    async def _pump(self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction: what was read is due after its delay, and goes when the link is passable."""
        source, end = way[0]
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_HELD_MAX)
        loop = asyncio.get_running_loop()

        async def read() -> None:
            while True:
                data = await reader.read(CHUNK_BYTES_MAX)
                await held.put((loop.time() + self._links.delay(source, end, self._rng), data))
                if not data:
                    return

        async def write() -> None:
            while True:
                due, data = await held.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                await _passable(self._links, way)
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(read())
            both.create_task(write())

    def _dialler(self, writer: asyncio.StreamWriter) -> str | None:
        """Whose connection it is; None if the dialling end is gone already."""
        peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        inode = sockets.inode_of(peer, own) if peer else None
        if inode is None:
            return None
        for node in self.nodes:
            pid = self.pid_of(node)
            if pid is not None and sockets.holds(pid, inode):
                return node
        return CLIENTS


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection through a proxy."""

    dialler: str
    node: str
    front: asyncio.StreamWriter
    back: asyncio.StreamWriter | None = field(default=None)

    def reset(self) -> None:
        """End both halves by RST."""
        _abort(self.front)
        if self.back is not None:
            _abort(self.back)


async def _passable(links: Links, way: _Way) -> None:
    """Return when nothing cuts any of the links; raises `TimeoutError` if a cut lasts."""
    while any(links.is_cut(*link) for link in way):
        for source, end in way:
            await links.passable(source, end, HOLD_S)


def _abort(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):  # the other end was faster
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
