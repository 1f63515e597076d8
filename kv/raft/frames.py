"""Frames: how messages are cut on a connection between two nodes (pure).

A connection begins with four bytes that say what it is, both ways. Then come frames: eight bytes (length of the
payload, CRC-32C of the payload, big-endian), and the payload, a serialized `RaftFrame`. TCP's own checksum has sixteen
bits, and what passes it wrongly would be taken for the log of a group. A frame without payload says only that its
sender lives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import google_crc32c

from kv.internal.v1 import peer_pb2, raft_pb2

PREFACE: Final = b"KVR1"
"""The first bytes of a connection, both ways. The digit is the version of the format."""
HEADER: Final = struct.Struct(">II")
KEEPALIVE: Final = HEADER.pack(0, 0)
"""A frame that says nothing but that its sender lives."""
_LENGTH_DELIMITED: Final = 2
_MESSAGES: Final = peer_pb2.RaftFrame.MESSAGES_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
"""What stands before the length of each message in a serialized `RaftFrame`."""
_VARINT: Final = 0x80
_LENGTHS: Final = [bytes((_MESSAGES, length)) for length in range(_VARINT)]


class BadFrame(Exception):
    """The bytes are no frames of this protocol; the message says in which way."""


def payload_of(messages: Iterable[raft_pb2.RaftMessage]) -> bytes:
    """Return the serialized `RaftFrame` of the messages.

    Written by hand: protobuf copies each message into the frame first, by writing and reading it once more.
    """
    parts: list[bytes] = []
    for message in messages:
        raw = message.SerializeToString()
        length = len(raw)
        parts += (_LENGTHS[length] if length < _VARINT else _long(length), raw)
    return b"".join(parts)


def _long(length: int) -> bytes:
    field = bytearray((_MESSAGES,))
    while length >= _VARINT:
        field.append(length % _VARINT | _VARINT)
        length //= _VARINT
    field.append(length)
    return bytes(field)


def frame_of(payload: bytes) -> bytes:
    """Return the frame around `payload`."""
    return HEADER.pack(len(payload), google_crc32c.value(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames, however the bytes arrive."""

    def __init__(self, bytes_max: int) -> None:
        """Refuse frames with a payload above `bytes_max`."""
        self.bytes_max = bytes_max
        self._held = bytearray()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes and yield the payload of each frame that they complete, empty ones among them.

        Raises `BadFrame`; the stream cannot go on then.
        """
        held = self._held
        held += data
        if not self._begun:
            if not PREFACE.startswith(held[: len(PREFACE)]):
                raise BadFrame(f"it begins with {bytes(held[:4])!r} instead of {PREFACE!r}")
            if len(held) < len(PREFACE):
                return
            self._begun = True
            del held[: len(PREFACE)]
        place, end = 0, len(held)
        while end - place >= HEADER.size:
            length, crc = HEADER.unpack_from(held, place)
            if length > self.bytes_max:
                raise BadFrame(f"a frame of {length} bytes is above {self.bytes_max}")
            if end - place < HEADER.size + length:
                break
            place += HEADER.size
            payload = bytes(held[place : place + length])
            place += length
            if google_crc32c.value(payload) != crc:
                raise BadFrame(f"the checksum of a frame of {length} bytes is wrong")
            yield payload
        del held[:place]
