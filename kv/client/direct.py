"""The client's end of the direct way: one TCP connection beside a Pipeline stream (`kv.direct`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

from kv.direct import PREFACE, Offer
from kv.frames import BadFrame, FrameReader, frame_of, write_frame

ACCEPT_TIMEOUT_S: Final = 1.0
"""An offer that has not led to a connection by then is forgotten: the stream goes on over gRPC."""
SILENCE_S: Final = 4.0
"""A connection whose bytes nobody has acknowledged for so long is dead, as one of gRPC that answers no ping."""
WRITE_BUFFER_BYTES_MAX: Final = 1 << 20
"""What is handed to a socket that does not take it; the rest waits in the stream's queue."""


class DirectConnection(asyncio.Protocol):
    """Carries messages both ways once it is `accepted`."""

    def __init__(
        self,
        offer: Offer,
        message_bytes_max: int,
        on_message: Callable[[bytes], None],
        on_writable: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """Show the offer's token once connected.

        Args:
            offer: the node's.
            message_bytes_max: what the node may send at once.
            on_message: called for each message.
            on_writable: called when the socket takes bytes again.
            on_lost: called once with the reason, if the connection ends after it was accepted.
        """
        self.writable = True
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._offer = offer
        self._reader = FrameReader(PREFACE, message_bytes_max)
        self._on_message = on_message
        self._on_writable = on_writable
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES_MAX)
        _watch(transport.get_extra_info("socket"))
        transport.write(PREFACE + frame_of(self._offer.token))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            for payload in self._reader.feed(data):
                if self.accepted.done():
                    self._on_message(payload)
                else:
                    self.accepted.set_result(None)
        except BadFrame as error:
            self._why = str(error)
            self.abort()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.writable = False

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.writable = True
        self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        reason = self._why or str(exc or "closed by the node")
        self._transport = None
        if self.accepted.done() and not self.accepted.cancelled() and self.accepted.exception() is None:
            self._on_lost(reason)
        elif not self.accepted.done():
            self.accepted.set_exception(ConnectionError(reason))
            self.accepted.exception()  # whoever made the connection may have given it up already: no complaint

    def send(self, message: bytes) -> None:
        """Hand a message to the socket."""
        if self._transport is not None:
            write_frame(self._transport, (message,))

    def abort(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()


def _watch(connected: socket.socket) -> None:
    """Let the kernel find out that the node is gone: what it has not acknowledged in time ends the connection."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere gRPC's pings beside it must do
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_S * 1000))
