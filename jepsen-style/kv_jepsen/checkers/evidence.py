"""What the replies say about themselves: revisions, indexes, partitions, read levels; by the names of `Op.extra`.

Pure. One place for how the checkers read evidence, so that they agree.
"""

from __future__ import annotations

from typing import Final

from kv_jepsen.history import Call, Value

READS: Final = frozenset({"read", "get", "r", "scan"})
"""Functions that change nothing."""

WRITES: Final = frozenset(
    {"write", "put", "cas", "append", "add", "add_get", "incr", "enqueue", "dequeue", "delete", "remove"}
)
"""Functions that change one key. Others, as transactions and scans, are about several keys, whose revisions say
nothing of each other, and are left out where keys are judged."""

DELETES: Final = frozenset({"delete", "remove", "expire"})
"""Functions after which a key may be absent."""

LINEARIZABLE: Final = "linearizable"
"""The level of a read that names none."""

LINEARIZABLE_LEVELS: Final = frozenset({LINEARIZABLE, "lease"})
SESSION_LEVELS: Final = frozenset({LINEARIZABLE, "lease", "session"})
"""Read levels that keep the session guarantees."""


def number(call: Call, name: str) -> int | None:
    """A number of the evidence; None if it is not there."""
    value = call.extra.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def level(call: Call) -> str:
    """The read level, in lower case."""
    value = call.extra.get("level")
    return value.lower() if isinstance(value, str) and value else LINEARIZABLE


def is_read(call: Call) -> bool:
    """Whether the call changes nothing by what it is."""
    return call.f in READS


def is_write(call: Call) -> bool:
    """Whether the call certainly changed its key: it completed, and did not answer that there was nothing to do."""
    idle = call.output is False or (call.f == "dequeue" and call.output is None)
    return call.ok and call.f in WRITES and not idle


def partition(call: Call) -> Value:
    """The partition that answered; None if nobody said."""
    return call.extra.get("partition")
