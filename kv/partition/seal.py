"""The seal of a snapshot: a hash of the whole file at its end, without which nobody opens it.

Here lives the trailer that `seal` appends to a copy of a store and `check_seal` demands. LMDB has no
checksums: a damaged page is taken for data, and a damaged page number kills the process that follows it.
The crc of each chunk covers the way between two processes; the seal covers everything from the copy at
the sender to the moment at which the receiver opens the file, disks included.

The trailer is 24 bytes: a magic of 8, then the xxh3_128 of all bytes before the trailer. LMDB reads whole
pages only and does not see it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import xxhash

SEAL_MAGIC: Final = b"kvsnap\x00\x01"
"""Ends with the version of the snapshot's format."""

SEAL_BYTES: Final = len(SEAL_MAGIC) + 16

_READ_BYTES: Final = 1 << 20


def seal(descriptor: int) -> None:
    """Append the seal to the file (blocking: reads all of it). Raises `OSError`."""
    size = os.fstat(descriptor).st_size
    trailer = SEAL_MAGIC + _hash(descriptor, size)
    written = os.pwrite(descriptor, trailer, size)
    if written != SEAL_BYTES:
        raise OSError(f"no room for the seal of a snapshot: {written} of {SEAL_BYTES} bytes were written")


def check_seal(file: Path) -> None:
    """Raise `ValueError` unless `file` is what was sealed (blocking: reads all of it)."""
    with file.open("rb") as opened:
        descriptor = opened.fileno()
        size = os.fstat(descriptor).st_size - SEAL_BYTES
        trailer = os.pread(descriptor, SEAL_BYTES, max(size, 0))
        if size <= 0 or not trailer.startswith(SEAL_MAGIC):
            raise ValueError("it has no seal of this version")
        if trailer[len(SEAL_MAGIC) :] != _hash(descriptor, size):
            raise ValueError("its content is not what was sealed")


def _hash(descriptor: int, size: int) -> bytes:
    digest = xxhash.xxh3_128()
    offset = 0
    while offset < size and (data := os.pread(descriptor, min(_READ_BYTES, size - offset), offset)):
        digest.update(data)
        offset += len(data)
    return digest.digest()
