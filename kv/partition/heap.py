"""The C heap of this process: what LMDB and large values take from it, and how its free part goes back.

Here live the calls into the C library, and no decision when to make them. What Python's own allocator holds is not touched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_MALLOC_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of glibc; other C libraries have none."""
_MALLOPT: Final = getattr(ctypes.CDLL(None), "mallopt", None)
_M_MMAP_THRESHOLD: Final = -3
_M_TRIM_THRESHOLD: Final = -1
"""From glibc's `malloc.h`."""
MAPPED_BYTES_MIN: Final = 1 << 20
"""LMDB takes two blocks of 1 and 2 MiB for each environment, mostly never touched."""
KEPT_BYTES_MAX: Final = 16 << 20
"""Above a request of the greatest size, twice: Protobuf doubles the memory in which it writes."""
FREE_BYTES_MAX: Final = 32 << 20
"""What a node keeps free at the heap's end, until the next `trim`."""

_keeps = False


def trim() -> None:
    """Give the free pages of the heap back to the system, those between others in use too; takes milliseconds.

    glibc does so by itself only at the heap's end: one small block there keeps all that is free before it.
    """
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)


def map_large_blocks() -> None:
    """Let blocks of `MAPPED_BYTES_MIN` and more come from the system for good, empty and untouched.

    glibc stops doing so once one was freed: then each environment that is opened again zeroes 3 MiB of the heap,
    which takes a millisecond and makes them resident. For a process that opens environments all the time.
    """
    if _MALLOPT is not None:
        _MALLOPT(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)


def keep_blocks() -> None:
    """Let blocks of less than `KEPT_BYTES_MAX` come from the heap, and up to `FREE_BYTES_MAX` of it stay when it is free.

    glibc gives large blocks back as soon as they are free: each copy of a value of 1 MiB then begins with 256 page
    faults, and that was a sixth of the CPU of storing one.
    """
    global _keeps  # noqa: PLW0603 - the heap is the process's
    if _MALLOPT is not None:
        _keeps = True
        _MALLOPT(_M_MMAP_THRESHOLD, KEPT_BYTES_MAX)
        _MALLOPT(_M_TRIM_THRESHOLD, FREE_BYTES_MAX)


@contextmanager
def untouched_blocks() -> Iterator[None]:
    """Meanwhile blocks of `MAPPED_BYTES_MIN` and more come from the system, empty: for those of LMDB, which live long.

    From the heap they would be zeroed, 3 MiB for each environment, and be resident from then on.
    """
    if _MALLOPT is None or not _keeps:
        yield
        return
    _MALLOPT(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
    try:
        yield
    finally:
        _MALLOPT(_M_MMAP_THRESHOLD, KEPT_BYTES_MAX)
