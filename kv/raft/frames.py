"""Frames between two nodes: the preface of their connections, and how Raft's messages become a payload (pure).

How a connection is cut into frames is in `kv.frames`; a payload here is a serialized `RaftFrame`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kv.frames import EMPTY
from kv.internal.v1 import peer_pb2

PREFACE: Final = b"KVR1"
"""The first bytes of a connection, both ways. The digit is the version of the format."""
KEEPALIVE: Final = EMPTY
"""A frame that says nothing but that its sender lives."""
_LENGTH_DELIMITED: Final = 2
_MESSAGES: Final = peer_pb2.RaftFrame.MESSAGES_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
"""What stands before the length of each message in a serialized `RaftFrame`."""
_VARINT: Final = 0x80
_LENGTHS: Final = [bytes((_MESSAGES, length)) for length in range(_VARINT)]


def pieces_of(messages: Iterable[bytes]) -> list[bytes]:
    """Return the pieces of the serialized `RaftFrame` of serialized messages.

    Written by hand: protobuf copies each message into the frame first, by writing and reading it once more.
    """
    pieces: list[bytes] = []
    for message in messages:
        length = len(message)
        pieces += (_LENGTHS[length] if length < _VARINT else _long(length), message)
    return pieces


def payload_of(messages: Iterable[bytes]) -> bytes:
    """Return the pieces joined."""
    return b"".join(pieces_of(messages))


def _long(length: int) -> bytes:
    field = bytearray((_MESSAGES,))
    while length >= _VARINT:
        field.append(length % _VARINT | _VARINT)
        length //= _VARINT
    field.append(length)
    return bytes(field)
