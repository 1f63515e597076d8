"""One HTTP request to a node, with JSON both ways: enough for a gateway, and plain about what was sent.

HTTP/1.0, so that the answer ends with the connection. No retries, no redirects, no pool.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

ANSWER_BYTES_MAX: Final = 16 << 20


class Unsent(OSError):
    """There was no connection: nothing was sent."""


async def post(address: str, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    """Send `body`, return the status and the answer.

    Raises:
        Unsent: nothing was sent.
        OSError: the connection ended.
        ValueError: the answer is none.
    """
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port), limit=ANSWER_BYTES_MAX)
    except OSError as error:
        raise Unsent(f"no connection to {address}: {error}") from error
    try:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {len(content)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + content)
        await writer.drain()
        return _parsed(await reader.read(-1))
    finally:
        writer.close()


def _parsed(answer: bytes) -> tuple[int, Mapping[str, Any]]:
    head, blank, content = answer.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if not blank or len(words) < 2 or not words[1].isdigit():
        raise ValueError(f"no HTTP answer: {answer[:60]!r}")
    loaded = json.loads(content)
    if not isinstance(loaded, dict):
        raise ValueError(f"no JSON object: {content[:60]!r}")
    return int(words[1]), loaded
