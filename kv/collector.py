"""The garbage collector of a busy process: what its start left behind lives as long as it does.

A node or a loaded client has a hundred thousand objects that never go away, and makes few cycles. Left alone, the
collector walks all of them again and again.
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (10_000, 20, 50)
"""See `gc.set_threshold`: young objects are looked at after so many of them, older ones after so many such looks."""


def calm() -> None:
    """Collect once, look at nothing of what is left any more, and at the rest less often. It is on then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
