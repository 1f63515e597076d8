"""What the cycle checker reports: one anomaly, and for a cycle the steps it consists of.

Values only. The names are those of Adya ("Weak Consistency", MIT 1999) and of Elle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Why one transaction must come before another."""

    WW = "ww"
    """The second appended right after what the first appended."""
    WR = "wr"
    """The second read what the first appended."""
    RW = "rw"
    """The first read a list without what the second appended: an anti-dependency."""
    PROCESS = "process"
    """The same process ran the first, then the second."""
    REALTIME = "realtime"
    """The first had completed before the second was invoked."""


@dataclass(frozen=True, slots=True)
class Step:
    """One edge of a cycle: `source` before `target`, and the reason in words."""

    source: int
    target: int
    kind: Kind
    because: str


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that happened and that some consistency models forbid."""

    name: str
    """Such as `G1c` or `G-single-realtime`."""
    txns: tuple[int, ...]
    """The transactions concerned, by `Txn.index`."""
    sentence: str
    """What happened, in one sentence."""
    steps: tuple[Step, ...] = ()
    """The cycle, if it is one; the last step leads back to the first transaction."""
