"""The fault sets of the comparison, and what else differs between them. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SMALL_BATCH_BYTES: Final = 200
DEFAULT_BATCH_BYTES: Final = 1 << 16
"""What the library ships with (`appendEntriesBatchSizeBytes`)."""
COMPACT_ENTRIES: Final = 100
"""After this many entries a log is compacted, in the set that is about it (the library ships with 5000)."""
NEVER_ENTRIES: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class FaultSet:
    """One row of the table."""

    name: str
    title: str
    faults: tuple[str, ...]
    """Names of methods of `nemesis.Nemesis`; one is drawn about every second."""
    replicas: int = 3
    lossy: bool = False
    """Single messages are lost, doubled and overtaken; otherwise links are ordered streams, as TCP's."""
    batch_bytes: int = SMALL_BATCH_BYTES
    compact_entries: int = NEVER_ENTRIES
    """When the stock replica compacts its log. The guarded one always does, every `COMPACT_ENTRIES`."""


_LINKS: Final = ("slow", "stall", "heal")
_CUTS: Final = (*_LINKS, "reset", "partition")

FAULT_SETS: Final = (
    FaultSet("slow", "FIFO links, slow or stalled, batches of 200 bytes", _LINKS),
    FaultSet("cut", "the same with resets and partitions", _CUTS),
    FaultSet("crash", "the same with process crashes, files intact", (*_CUTS, "crash", "crash_all")),
    FaultSet(
        "compaction",
        "default batches, log compaction, no crash",
        _CUTS,
        batch_bytes=DEFAULT_BATCH_BYTES,
        compact_entries=COMPACT_ENTRIES,
    ),
    FaultSet(
        "power",
        "power loss (unsynced writes lost), default batches",
        (*_CUTS, "power", "power_all"),
        batch_bytes=DEFAULT_BATCH_BYTES,
    ),
    FaultSet(
        "lossy3",
        "loss, duplication, reordering; 3 replicas",
        ("slow", "stall", "heal", "partition"),
        lossy=True,
        batch_bytes=DEFAULT_BATCH_BYTES,
    ),
    FaultSet(
        "lossy5",
        "loss, duplication, reordering; 5 replicas",
        ("slow", "stall", "heal", "partition"),
        replicas=5,
        lossy=True,
        batch_bytes=DEFAULT_BATCH_BYTES,
    ),
)


def fault_set(name: str) -> FaultSet:
    """The fault set of this name; `ValueError` that lists the names otherwise."""
    for known in FAULT_SETS:
        if known.name == name:
            return known
    raise ValueError(f"there is no fault set {name!r}: use one of {', '.join(s.name for s in FAULT_SETS)}")
