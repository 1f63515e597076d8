"""The node's end of the direct way: takes in TCP connections and ties each to its Pipeline stream (`kv.direct`).

Here live the listener and its connections. What a message says and which bounds a stream has is the Pipeline's.
A connection without the token of a stream that is open now is nobody: it is closed without a word.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, cast

import structlog

from kv.direct import PREFACE, TOKEN_BYTES, Offer
from kv.errors import KVError, Unavailable
from kv.frames import EMPTY, BadFrame, FrameReader, write_frame
from kv.router.limits import PUBLIC_MESSAGE_BYTES_MAX
from kv.router.pipeline import Pipeline

HELLO_TIMEOUT_S: Final = 2.0
"""A connection that has not shown a token by then is closed."""
STRANGERS_MAX: Final = 64
"""Connections that have shown no token yet; one more is closed at once."""
WRITE_BUFFER_BYTES_MAX: Final = 1 << 20
"""What is handed to a socket that does not take it; further replies wait in the Pipeline, which bounds them."""

_log = structlog.get_logger(__name__)


class DirectConnection(asyncio.Protocol):
    """One connection; carries the messages of one Pipeline once it has shown its token."""

    def __init__(self, listener: DirectListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(PREFACE, TOKEN_BYTES)
        self._transport: asyncio.Transport | None = None
        self._pipeline: Pipeline | None = None
        self._writable = True
        self._reading = True
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None

    # --- what the loop calls ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES_MAX)
        if self._listener.admit(self):
            self._timer = self._loop.call_later(HELLO_TIMEOUT_S, self.abort)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            for payload in self._reader.feed(data):
                if self._transport is None or self._transport.is_closing():
                    return
                if self._pipeline is None:
                    self._greet(payload)
                else:
                    self._pipeline.take_in(payload)
        except BadFrame as error:
            _log.debug("direct connection refused", error=str(error))
            self.abort()
        except KVError as error:
            self._fail(error)
        else:
            self._pace()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writable = False

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writable = True
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._listener.lost(self)
        self._fail(Unavailable(f"the direct connection ended: {exc or 'closed by the client'}"))

    # --- the pipeline -------------------------------------------------------------------------------

    def abort(self) -> None:
        """End the connection without sending what waits."""
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> None:
        """The stream has ended: so does this."""
        self._pipeline = None
        self.abort()

    def _greet(self, token: bytes) -> None:
        pipeline = self._listener.take(token, self)
        if pipeline is None:
            _log.debug("direct connection refused: no stream has offered its token")
            self.abort()
            return
        assert self._timer is not None, "it was admitted"
        assert self._transport is not None, "it is connected"
        self._timer.cancel()
        self._reader.bytes_max = PUBLIC_MESSAGE_BYTES_MAX
        self._transport.write(PREFACE + EMPTY)
        self._pipeline = pipeline
        pipeline.wake = self._wake
        self._flush()

    def _fail(self, error: KVError) -> None:
        """End the stream to which this belongs."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.fail(error)
        self.abort()

    def _wake(self) -> None:
        """A reply is ready: it leaves at the end of this turn of the loop, with the others that are."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        pipeline, transport = self._pipeline, self._transport
        if pipeline is None or transport is None:
            return
        while self._writable and (message := pipeline.take_out()) is not None:
            write_frame(transport, (message,))
        self._pace()

    def _pace(self) -> None:
        """Read on only while the stream may take in more."""
        if self._pipeline is None or self._transport is None or self._transport.is_closing():
            return
        may_read = self._pipeline.may_read
        if may_read != self._reading:
            self._reading = may_read
            if may_read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


class DirectListener:
    """Where clients connect beside their streams."""

    def __init__(self, host: str, port: int) -> None:
        """Listen at `host`, at any free port if `port` is 0, once it is started."""
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._offers: dict[bytes, Pipeline] = {}
        self._connections: dict[DirectConnection, Pipeline | None] = {}

    @property
    def connections(self) -> int:
        """Connections that carry a stream now."""
        return sum(pipeline is not None for pipeline in self._connections.values())

    async def start(self) -> None:
        """Listen. Raises `Unavailable` if the port is taken."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: DirectConnection(self), self._host or None, self._port
            )
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {self._host}:{self._port} for direct streams: is it in use? ({error})"
            ) from error
        self._port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Take no more connections, and end those that are open."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.release()

    def offer(self, pipeline: Pipeline) -> Offer:
        """Return what the client of the stream may take up, once."""
        token = secrets.token_bytes(TOKEN_BYTES)
        self._offers[token] = pipeline
        return Offer(self._port, token)

    def withdraw(self, offer: Offer, pipeline: Pipeline) -> None:
        """Note that the stream has ended."""
        self._offers.pop(offer.token, None)
        for connection in [one for one, carried in self._connections.items() if carried is pipeline]:
            connection.release()

    # --- what connections ask and tell ----------------------------------------------------------------

    def admit(self, connection: DirectConnection) -> bool:
        """Return False if there are too many connections that have shown no token."""
        if sum(pipeline is None for pipeline in self._connections.values()) >= STRANGERS_MAX:
            _log.warning("direct connection refused: too many without a token", strangers_max=STRANGERS_MAX)
            return False
        self._connections[connection] = None
        return True

    def take(self, token: bytes, connection: DirectConnection) -> Pipeline | None:
        """Return the stream that offered the token, which is good for one connection."""
        pipeline = self._offers.pop(token, None)
        if pipeline is not None:
            self._connections[connection] = pipeline
        return pipeline

    def lost(self, connection: DirectConnection) -> None:
        """A connection ended."""
        self._connections.pop(connection, None)
