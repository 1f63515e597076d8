"""Frames: how messages are cut on a plain TCP connection of ours (pure).

A connection begins with four bytes that say what it is, both ways. Then come frames: eight bytes (length of the
payload, CRC-32C of the payload, big-endian), and the payload. TCP's own checksum has sixteen bits, and what passes it
wrongly would be taken for a message. A frame without payload says nothing but that its sender lives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import google_crc32c

HEADER: Final = struct.Struct(">II")
EMPTY: Final = HEADER.pack(0, 0)
"""A frame without payload."""


class BadFrame(Exception):
    """The bytes are no frames of this protocol; the message says in which way."""


def frame_of(payload: bytes) -> bytes:
    """Return the frame around `payload`."""
    return HEADER.pack(len(payload), google_crc32c.value(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames, however the bytes arrive."""

    def __init__(self, preface: bytes, bytes_max: int) -> None:
        """Refuse a stream that begins otherwise than `preface`, and frames with a payload above `bytes_max`."""
        self.bytes_max = bytes_max
        self._preface = preface
        self._held = bytearray()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes and yield the payload of each frame that they complete, empty ones among them.

        Raises `BadFrame`; the stream cannot go on then.
        """
        held = self._held
        if not held and self._begun and len(data) >= HEADER.size:
            length, crc = HEADER.unpack_from(data)
            if HEADER.size + length == len(data):  # nearly always: one frame, whole and alone
                yield self._checked(data[HEADER.size :], crc)
                return
        held += data
        if not self._begun:
            if not self._preface.startswith(held[: len(self._preface)]):
                raise BadFrame(f"it begins with {bytes(held[:4])!r} instead of {self._preface!r}")
            if len(held) < len(self._preface):
                return
            self._begun = True
            del held[: len(self._preface)]
        place, end = 0, len(held)
        while end - place >= HEADER.size:
            length, crc = HEADER.unpack_from(held, place)
            if length > self.bytes_max:
                raise _too_long(length, self.bytes_max)
            if end - place < HEADER.size + length:
                break
            place += HEADER.size
            payload = bytes(held[place : place + length])
            place += length
            yield self._checked(payload, crc)
        del held[:place]

    def _checked(self, payload: bytes, crc: int) -> bytes:
        if len(payload) > self.bytes_max:
            raise _too_long(len(payload), self.bytes_max)
        if google_crc32c.value(payload) != crc:
            raise BadFrame(f"the checksum of a frame of {len(payload)} bytes is wrong")
        return payload


def _too_long(length: int, bytes_max: int) -> BadFrame:
    return BadFrame(f"a frame of {length} bytes is above {bytes_max}")
