"""Where a partition's store stands: the log position of its content, and how it is written down.

Here lives the stored form of a checkpoint's mark, a disk format. Pure.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from kv.raft.api import BOOTSTRAP_INDEX

FORMAT_VERSION: Final = 1
"""Of the whole store: records, sessions and this mark. A newer one is refused."""

_MARK: Final = Struct("<HIQQQQQ")


class UnknownFormat(ValueError):
    """The store was written by a newer version, or is not a store."""


class Checkpoint(NamedTuple):
    """The state after the entry `applied_index`, whose term is `term` (a tuple: one is made for each entry)."""

    group_id: int
    applied_index: int = BOOTSTRAP_INDEX
    term: int = 0
    previous_term: int = 0
    """Term of the entry before: a group that starts from a snapshot needs both."""
    time_ms: int = 0
    """Of the last command."""
    keys: int = 0

    def encode(self) -> bytes:
        """Return the stored form."""
        return _MARK.pack(
            FORMAT_VERSION,
            self.group_id,
            self.applied_index,
            self.term,
            self.previous_term,
            self.time_ms,
            self.keys,
        )

    @staticmethod
    def decode(encoded: bytes) -> Checkpoint:
        """Return the mark that `encoded` holds. Raises `UnknownFormat`."""
        version = int.from_bytes(encoded[:2], "little")
        if version > FORMAT_VERSION:
            raise UnknownFormat(
                f"the store has format {version}, this version knows up to {FORMAT_VERSION}: upgrade this node"
            )
        if version < FORMAT_VERSION or len(encoded) != _MARK.size:
            raise UnknownFormat(
                f"not the mark of a store: format {version}, {len(encoded)} bytes instead of {_MARK.size}"
            )
        return Checkpoint(*_MARK.unpack(encoded)[1:])
