"""The node of the example: a dictionary behind a socket, one line of JSON each way.

python -m kv_jepsen.targets.example_node HOST PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def request(host: str, port: int, words: list[Any]) -> Any:  # noqa: ANN401 - what JSON gives
    """Ask a node. Raises `OSError`: then nobody knows what became of it."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(json.dumps(words).encode() + b"\n")
        line = await reader.readline()
        if not line.endswith(b"\n"):  # killed between taking the question and the end of its answer
            raise ConnectionResetError("the node closed the connection before it had answered")
        return json.loads(line)
    finally:
        writer.close()


def answer(held: dict[str, str], words: list[Any]) -> str | bool | None:
    """Do what is asked: `read KEY`, `write KEY VALUE`, `swap EXPECTED NEW`."""
    match words:
        case ["read", key]:
            return held.get(key)
        case ["write", key, value]:
            held[key] = value
            return None
        case ["swap", expected, new]:
            fits = all(held.get(key) == value for key, value in expected.items())
            held.update(new if fits else {})
            return fits
    raise ValueError(f"not understood: {words!r}")


async def serve(host: str, port: int) -> None:
    """Serve until the process ends."""
    held: dict[str, str] = {}

    async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(answer(held, json.loads(await reader.readline()))).encode() + b"\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(asked, host, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
