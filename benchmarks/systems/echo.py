"""An empty grpcio.aio server: what a unary call costs in Python before anything is done for it.

    python -m benchmarks.systems.echo HOST:PORT

Its unary method returns the bytes it got, and is registered without serializers; its stream returns each message.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import uvloop

from benchmarks.calls import unary as unary_call
from benchmarks.goals import GRPCIO
from benchmarks.processes import HOST, Children, free_ports
from benchmarks.systems.base import READY_TIMEOUT_S, System, fresh

SERVICE: Final = "bench.Echo"
UNARY: Final = f"/{SERVICE}/Unary"
STREAM: Final = f"/{SERVICE}/Stream"


class Echo(System):
    """One such server."""

    title = GRPCIO
    client = ""

    def __init__(self, folder: Path) -> None:
        self._children = Children(fresh(folder, "echo"))
        (port,) = free_ports(1)
        self._address = f"{HOST}:{port}"

    async def start(self) -> None:
        """See `System`."""
        self._children.start("echo", [sys.executable, "-m", "benchmarks.systems.echo", self._address])
        async with asyncio.timeout(READY_TIMEOUT_S), grpc.aio.insecure_channel(self._address) as channel:
            await unary_call(channel, UNARY)(b"", wait_for_ready=True)

    def close(self) -> None:
        """See `System`."""
        self._children.close()

    def pids(self) -> dict[str, int]:
        """See `System`."""
        return self._children.pids()

    @property
    def addresses(self) -> Sequence[str]:
        """See `System`."""
        return [self._address]

    def command(self) -> str:
        """See `System`."""
        return f"python -m benchmarks.systems.echo {self._address}"


def main() -> None:
    """Serve until SIGTERM."""
    uvloop.run(serve(sys.argv[1]))


async def serve(address: str) -> None:
    """Serve at `address`."""
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


async def unary(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """Return what came."""
    del context
    return request


async def stream(
    requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
) -> AsyncIterator[bytes]:
    """Return each message."""
    del context
    async for request in requests:
        yield request


if __name__ == "__main__":
    main()
