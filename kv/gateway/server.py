"""Runs the application inside the node's event loop: bind, serve, stop.

uvicorn is used as a protocol implementation only: signals, logging and the loop are the node's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry

from kv.config import parse_address
from kv.errors import Unavailable
from kv.gateway.app import Executor, Readiness, make_app

CONNECTIONS_MAX: Final = 2000
"""More HTTP connections than this at once are answered 503 by the server itself."""

BACKLOG: Final = 512
KEEP_ALIVE_S: Final = 30
STOP_TIMEOUT_S: Final = 5


class HttpServer:
    """The HTTP side of one node. `start` returns when the port is bound and served, `stop` when all is closed."""

    def __init__(
        self,
        listen: str,
        executor: Executor,
        *,
        ready: Readiness,
        registry: CollectorRegistry,
        timeout_s: float,
        cluster: str = "",
    ) -> None:
        """Prepare; `listen` is host:port, and port 0 means any that is free."""
        self._listen = listen
        app = make_app(executor, ready=ready, registry=registry, timeout_s=timeout_s, cluster=cluster)
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws="none",
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
            )
        )
        self.address = listen
        """host:port, as bound once `start` has returned."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind and serve. Raises `Unavailable` if the port is taken."""
        assert self._task is None, "started twice"
        bound = _bind(self._listen)
        self.address = _address(bound)
        self._task = asyncio.create_task(self._server.serve([bound]), name="http")
        started = asyncio.ensure_future(self._server.up.wait())
        await asyncio.wait({started, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            await self._task  # raises what went wrong
            raise Unavailable(f"the HTTP server on {self._listen} ended while it started")

    async def stop(self) -> None:
        """Finish what is in flight, for at most `STOP_TIMEOUT_S`, and close. May be called twice."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
            self._task = None


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and with an event that says it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the node, which stops its parts in its own order."""
        yield


def _bind(listen: str) -> socket.socket:
    host, port = parse_address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Unavailable(f"cannot listen on {listen} for HTTP: {error.strerror}") from error


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
