"""Frames between two nodes: the preface of their connections, and how Raft's messages become a payload (pure).

How a connection is cut into frames is in `kv.frames`; a payload here is a serialized `RaftFrame`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from kv.frames import EMPTY
from kv.internal.v1 import peer_pb2, raft_pb2
from kv.wire import tag_of, varint

PREFACE: Final = b"KVR1"
"""The first bytes of a connection, both ways. The digit is the version of the format."""
KEEPALIVE: Final = EMPTY
"""A frame that says nothing but that its sender lives."""
_MESSAGES: Final = tag_of(peer_pb2.RaftFrame.MESSAGES_FIELD_NUMBER)
_SHORT: Final = [_MESSAGES + varint(length) for length in range(256)]
"""What stands before a message of so many bytes in a serialized `RaftFrame`."""


_APPEND: Final = tag_of(raft_pb2.RaftMessage.APPEND_FIELD_NUMBER)
_ENTRIES: Final = tag_of(raft_pb2.Append.ENTRIES_FIELD_NUMBER)
_TERM: Final = varint(raft_pb2.Entry.TERM_FIELD_NUMBER << 3)
_DATA: Final = tag_of(raft_pb2.Entry.DATA_FIELD_NUMBER)


def raw_of(message: raft_pb2.RaftMessage, entries: Sequence[tuple[int, bytes]] = ()) -> bytes:
    """Return the serialized message; `entries`, each (term, data), are added to its append.

    Entries may be large, and Protobuf would copy them three times. They stand in a second `append` field, which whoever
    reads the message joins to the first.
    """
    head = message.SerializeToString()
    if not entries:
        return head
    pieces: list[bytes] = []
    size = 0
    for term, data in entries:
        begin, length = _begin_of(term), varint(len(data))
        entry_bytes = len(begin) + len(length) + len(data)
        entry_length = varint(entry_bytes)
        pieces += (_ENTRIES, entry_length, begin, length, data)
        size += len(_ENTRIES) + len(entry_length) + entry_bytes
    return b"".join((head, _APPEND, varint(size), *pieces))


@lru_cache(maxsize=64)
def _begin_of(term: int) -> bytes:
    """Return what an entry of this term begins with, up to the length of its data."""
    return _TERM + varint(term) + _DATA


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
