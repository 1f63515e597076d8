"""What all parts of `AsyncClient` share: its settings, its life, and how a call begins. No public methods here."""

# ruff: noqa: ASYNC109  # as in aio_keys.py

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import TypeVar

from kv.client.calls import OperationCall
from kv.client.connection import GrpcTransport
from kv.client.core import Core
from kv.client.directory import Directory
from kv.client.lanes import Lanes
from kv.client.levels import (
    Level,
    LevelLike,
    Preference,
    PreferenceLike,
    WriteLevelLike,
    level_of,
    preference_of,
    write_level_of,
)
from kv.client.limits import Limits
from kv.client.map_keeper import MapKeeper
from kv.client.route import Route
from kv.client.session_token import Seen
from kv.client.transport import Transport
from kv.client.types import Evidence
from kv.client.url import TIMEOUT_S_DEFAULT, check_timeout_s, parse_endpoints
from kv.errors import InvalidArgument, Unavailable
from kv.v1 import kv_pb2

_T = TypeVar("_T")


class ClientBase:
    """The inside of an `AsyncClient`."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout: float = TIMEOUT_S_DEFAULT,
        level: LevelLike,
        prefer: PreferenceLike | None,
        write_level: WriteLevelLike,
        limits: Limits | None = None,
        transport: Transport | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if isinstance(endpoints, str):
            raise InvalidArgument("endpoints is a list of host:port; for a kv:// address use from_url")
        self._directory = Directory(parse_endpoints(list(endpoints)))
        self._timeout_s = check_timeout_s(timeout)
        self._level = level_of(level)
        self._prefer = None if prefer is None else preference_of(prefer)
        self._limits = limits or Limits()
        self._lanes = Lanes(
            level=self._level,
            preference=self._prefer,
            write_level=write_level_of(write_level),
            limits=self._limits,
        )
        self._jitter = jitter
        self._transport = transport
        self._seen = Seen()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        """In which thread the loop runs; 0: not known, or the client is closed."""
        self._core: Core | None = None
        self._keeper: MapKeeper | None = None
        self._closed = False

    def _start(self) -> asyncio.AbstractEventLoop:
        """Return the loop of this client, which is that of the first call."""
        loop = asyncio.get_running_loop()
        if self._loop is loop and not self._closed:
            self._thread = get_ident()
            return loop
        if self._closed:
            raise Unavailable("the client is closed: make a new one")
        if self._loop is not None:
            raise RuntimeError(
                "an AsyncClient belongs to the event loop of its first call: make one for each loop"
            )
        self._loop, self._thread = loop, get_ident()
        transport = self._transport = self._transport or GrpcTransport()
        self._keeper = MapKeeper(self._directory, transport, jitter=self._jitter, on_change=self._reroute)
        self._core = Core(
            self._directory,
            transport,
            self._lanes,
            seen=self._seen,
            limits=self._limits,
            open_timeout_s=self._timeout_s,
            jitter=self._jitter,
            refresh_map=self._keeper.refresh,
        )
        return loop

    def _begin(self, timeout: float | None) -> tuple[Core, asyncio.AbstractEventLoop, float]:
        """Return what a call needs: the core, the loop, and its deadline in loop time."""
        loop = self._loop
        # Asking asyncio for the running loop is a system call each time. A loop that runs, and in this thread, is it.
        if loop is None or get_ident() != self._thread or not loop.is_running():
            loop = self._start()
        core = self._core
        assert core is not None, "the client has started"
        # As `_seconds` does, written out: the hot path.
        return core, loop, loop.time() + (self._timeout_s if timeout is None else check_timeout_s(timeout))

    async def _map(self, deadline: float) -> None:
        """Wait for the first map; apart from the calls, which need it once, because awaiting costs."""
        assert self._keeper is not None, "the client has started"
        await self._keeper.ready(deadline)
        assert self._directory.map is not None, "it is ready"
        self._seen.bind(self._directory.map.cluster)

    def _reroute(self) -> None:
        if self._core is not None:
            self._core.reroute()

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout_s if timeout is None else check_timeout_s(timeout)

    # --- options ------------------------------------------------------------------------------------

    def _read_options(
        self, level: LevelLike | None, prefer: PreferenceLike | None
    ) -> tuple[Level, Preference | None]:
        """Return what a read asks for, where the client's own options stand in for what is not given."""
        return (
            self._level if level is None else level_of(level),
            self._prefer if prefer is None else preference_of(prefer),
        )

    def _read_route(self, level: LevelLike | None, prefer: PreferenceLike | None) -> Route:
        if level is None and prefer is None:
            return self._lanes.read
        return self._lanes.read_route(*self._read_options(level, prefer))

    def _write_route(self, write_level: WriteLevelLike | None) -> Route:
        if write_level is None:
            return self._lanes.write
        return self._lanes.write_route(write_level_of(write_level))

    # --- calls --------------------------------------------------------------------------------------

    async def _operate(
        self,
        name: str,
        operation: kv_pb2.Operation,
        reader: Callable[[kv_pb2.OperationResult, Evidence], _T],
        key: bytes,
        write_level: WriteLevelLike | None,
        timeout: float | None,
    ) -> _T:
        """Run one write that is built already, on the partition of `key`."""
        route = self._write_route(write_level)
        core, loop, deadline = self._begin(timeout)
        if self._directory.map is None:
            await self._map(deadline)
        future: asyncio.Future[_T] = loop.create_future()
        call = OperationCall(name, operation, reader, (key,), deadline, future)
        core.submit(route, self._directory.partition_of(key), call)
        return await future
