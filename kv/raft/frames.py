"""Frames between two nodes: the preface of their connections, and how Raft's messages become a payload (pure).

How a connection is cut into frames is in `kv.frames`; a payload here is a serialized `RaftFrame`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kv.frames import EMPTY
from kv.internal.v1 import peer_pb2
from kv.wire import tag_of, varint

PREFACE: Final = b"KVR1"
"""The first bytes of a connection, both ways. The digit is the version of the format."""
KEEPALIVE: Final = EMPTY
"""A frame that says nothing but that its sender lives."""
_MESSAGES: Final = tag_of(peer_pb2.RaftFrame.MESSAGES_FIELD_NUMBER)
_SHORT: Final = [_MESSAGES + varint(length) for length in range(256)]
"""What stands before a message of so many bytes in a serialized `RaftFrame`."""


def pieces_of(messages: Iterable[bytes]) -> list[bytes]:
    """Return the pieces of the serialized `RaftFrame` of serialized messages.

    Written by hand: protobuf copies each message into the frame first, by writing and reading it once more.
    """
    pieces: list[bytes] = []
    for message in messages:
        length = len(message)
        pieces += (_SHORT[length] if length < len(_SHORT) else _MESSAGES + varint(length), message)
    return pieces


def payload_of(messages: Iterable[bytes]) -> bytes:
    """Return the pieces joined."""
    return b"".join(pieces_of(messages))
