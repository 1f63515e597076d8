"""Protobuf's wire format by hand, where its own writer would copy what is large once more. Pure.

A field of bytes and a nested message look the same: a tag, the length, the bytes. Fields may come in any order, so that
what Protobuf wrote, and one field behind it, are one message.
"""

from __future__ import annotations

from typing import Final

_ONE_BYTE_MAX: Final = 0x7F
_LENGTH_DELIMITED: Final = 2


def tag_of(field: int) -> bytes:
    """Return what stands before the length of a field of bytes, or of a nested message."""
    return varint(field << 3 | _LENGTH_DELIMITED)


def varint(number: int) -> bytes:
    """Return Protobuf's form of a number that is not negative."""
    if number <= _ONE_BYTE_MAX:
        return bytes((number,))
    if number < 1 << 14:  # lengths and revisions are written for each answer: no loop for most of them
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 1 << 21:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    out = bytearray()
    while number > _ONE_BYTE_MAX:
        out.append((number & _ONE_BYTE_MAX) | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
