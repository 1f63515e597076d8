"""Durations as people write them: 500ms, 2s, 1.5m. Pure."""

from __future__ import annotations

import re
from typing import Final

from kv.errors import InvalidArgument

_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)")


def parse_duration_s(text: str) -> float:
    """Return the seconds in a duration such as 500ms, 2s, 1.5m; raise `InvalidArgument` for anything else."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise InvalidArgument(f"the duration {text!r} is not a number with one of the units ms, s, m")
    seconds = float(found[1]) * _UNIT_S[found[2]]
    if seconds <= 0:
        raise InvalidArgument(f"the duration {text!r} must be above zero")
    return seconds
