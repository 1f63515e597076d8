"""The port between the client's core and the network: what a transport must do.

Only Protocols. `kv.client.connection` is the gRPC transport; tests and the simulator
bring their own. Everything here runs on the one event loop of the client.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from typing import Protocol, TypeAlias

from kv.errors import KVError
from kv.v1 import cluster_pb2, kv_pb2

OnReply: TypeAlias = Callable[[kv_pb2.PipelineResponse], None]
OnClosed: TypeAlias = Callable[[KVError, Collection[int]], None]
"""Called with why the stream ended, and the ids of requests that certainly never left this process."""


class Stream(Protocol):
    """One Pipeline stream to one node."""

    def send(self, request_id: int, raw: bytes) -> None:
        """Queue a serialized `kv.v1.PipelineRequest` with one batch; after the end of the stream do nothing.

        What is queued may travel joined: serialized messages one after the other are one message. It may stay until `flush`.
        """

    def flush(self) -> None:
        """Let what is queued leave now, as far as the network takes it. It follows `send` in the same turn of the loop."""

    def withdraw(self, request_id: int) -> bool:
        """Take a request out of the queue; return False if it may have left already."""

    def close(self) -> None:
        """End the stream; `on_closed` is not called any more."""


class Transport(Protocol):
    """The way to every node, by its address."""

    def open(self, address: str, on_reply: OnReply, on_closed: OnClosed) -> Stream:
        """Return a stream that connects in the background.

        `on_closed` is called once, from the event loop and never from inside `open` or `send`.
        """

    async def get_map(self, address: str, timeout_s: float) -> cluster_pb2.GetMapResponse:
        """Ask the node for its cluster map; raise `KVError`."""

    async def get_status(self, address: str, timeout_s: float) -> cluster_pb2.GetStatusResponse:
        """Ask the node how it is; raise `KVError`."""

    def scan(
        self, address: str, request: kv_pb2.ScanRequest, timeout_s: float
    ) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        """Run KVService.Scan at the node; raise `KVError`."""

    async def close(self) -> None:
        """Close every connection."""
