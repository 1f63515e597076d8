"""The C heap of this process: what LMDB and large values take from it, and how its free part goes back.

Here lives the one call into the C library, and no decision when to make it. What Python's own allocator holds is not touched.
"""

from __future__ import annotations

import ctypes
from typing import Final

_MALLOC_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of glibc; other C libraries have none."""


def trim() -> None:
    """Give the free pages of the heap back to the system, those between others in use too; takes milliseconds.

    glibc does so by itself only at the heap's end: one small block there keeps all that is free before it.
    """
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)
