"""What a ringkv replica holds: the public call `kv.v1.ClusterService/GetContentHash`, spoken without the store's own code.

Two messages of few fields, written and read by hand (protobuf encoding: varints and length-delimited fields), since this
package knows nothing of the store but its client, and the client has no such call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import grpc

METHOD: Final = "/kv.v1.ClusterService/GetContentHash"
TIMEOUT_S: Final = 5.0
VARINT, BYTES = 0, 2
"""Wire types."""


@dataclass(frozen=True, slots=True)
class Content:
    """The applied index at which a replica was hashed, and the hash."""

    index: int
    content_hash: str


async def content(address: str, partition: int) -> Content:
    """Ask a node for the content of its replica.

    Raises:
        OSError: it does not answer, has no such replica, or cannot hash it now.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        ask: Callable[..., Awaitable[bytes]] = channel.unary_unary(METHOD)
        try:
            return decoded(await ask(request(partition), timeout=TIMEOUT_S))
        except grpc.aio.AioRpcError as error:
            raise OSError(
                f"{address} gives no content hash of partition {partition}: {error.details()}"
            ) from error


def request(partition: int) -> bytes:
    """Return a `GetContentHashRequest`: field 1, the partition."""
    return bytes([1 << 3 | VARINT]) + _varint(partition)


def decoded(response: bytes) -> Content:
    """Read a `GetContentHashResponse`: field 1 the index, field 2 the hash; others are passed over.

    Raises:
        ValueError: it is no such message.
    """
    found = dict(_fields(response))
    index, digest = found.get(1, 0), found.get(2, b"")
    if not isinstance(index, int) or not isinstance(digest, bytes):
        raise ValueError(f"no content hash: {response.hex()}")
    return Content(index, digest.hex())


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        value, at = _number(message, at)
        if tag & 7 == VARINT:
            yield tag >> 3, value
        elif tag & 7 == BYTES and at + value <= len(message):
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError(f"no content hash: {message.hex()}")


def _number(message: bytes, at: int) -> tuple[int, int]:
    """The varint at this place, and the place after it."""
    number = 0
    for place, byte in enumerate(message[at : at + 10]):
        number |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return number, at + place + 1
    raise ValueError(f"no content hash: {message.hex()}")
