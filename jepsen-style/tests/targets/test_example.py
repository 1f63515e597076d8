"""The example's client tells its outcomes honestly."""

from __future__ import annotations

import asyncio

import pytest

from kv_jepsen.targets.example_node import request


@pytest.mark.parametrize("said", [b"", b'"hal'])
def test_a_node_that_ends_before_it_has_answered_is_a_lost_connection(said: bytes) -> None:
    """A clean end of the stream without a whole line is as unknown as a reset: `OSError`, never the parser's error."""

    async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(said)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(asked, "127.0.0.1", 0)
        async with server:
            with pytest.raises(ConnectionResetError, match="before it had answered"):
                await request("127.0.0.1", server.sockets[0].getsockname()[1], ["write", "k", "v"])

    asyncio.run(run())
