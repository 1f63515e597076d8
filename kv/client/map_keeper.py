"""Fetches the cluster map and keeps it fresh: one fetch at a time, however many wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kv.client.directory import Directory
from kv.client.retry import backoff_s, deadline_error
from kv.client.transport import Transport
from kv.cluster.map import from_proto
from kv.errors import KVError, NoLeader

MAP_ATTEMPT_TIMEOUT_S: Final = 1.0
"""One address gets so long to answer before the next is asked."""


class MapKeeper:
    """Asks the known addresses in turn until one has a map."""

    def __init__(
        self,
        directory: Directory,
        transport: Transport,
        *,
        jitter: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        """Call `on_change` after each newer map."""
        self._directory = directory
        self._transport = transport
        self._jitter = jitter
        self._on_change = on_change
        self._fetch: asyncio.Task[None] | None = None
        self._cause: KVError | None = None

    def refresh(self) -> asyncio.Task[None]:
        """Start a fetch unless one is under way; return its task, which ends when an address has answered."""
        if self._fetch is None or self._fetch.done():
            self._fetch = asyncio.get_running_loop().create_task(self._run())
        return self._fetch

    async def ready(self, deadline: float) -> None:
        """Return as soon as there is a map; raise `DeadlineExceeded` (definite) at `deadline`."""
        loop = asyncio.get_running_loop()
        while self._directory.map is None:
            remaining = deadline - loop.time()
            if remaining <= 0:
                raise deadline_error(write=False, indefinite=False, cause=self._cause)
            await asyncio.wait((self.refresh(),), timeout=remaining)

    async def fetch(self, deadline: float) -> None:
        """Ask the cluster again, whatever is known already; raise `DeadlineExceeded` (definite) at `deadline`."""
        task = self.refresh()
        remaining = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait((task,), timeout=remaining)
        if not task.done():
            raise deadline_error(write=False, indefinite=False, cause=self._cause)
        task.result()

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetch is not None and not self._fetch.done():
            self._fetch.cancel()
            await asyncio.wait((self._fetch,))

    async def _run(self) -> None:
        """Ask every address, pause, ask again. It ends with the first map, or when it is cancelled."""
        rounds = 0
        loop = asyncio.get_running_loop()
        while True:
            for address in self._directory.known_addresses(loop.time()):
                if await self._ask(address):
                    self._cause = None
                    return
            rounds += 1
            await asyncio.sleep(backoff_s(rounds, self._jitter()))

    async def _ask(self, address: str) -> bool:
        try:
            response = await self._transport.get_map(address, MAP_ATTEMPT_TIMEOUT_S)
            if not response.HasField("map"):
                raise NoLeader(f"the node at {address} has not learned a cluster map yet")
            changed = self._directory.install(from_proto(response.map))
        except KVError as error:
            self._cause = error
            return False
        if changed:
            self._on_change()
        return True
