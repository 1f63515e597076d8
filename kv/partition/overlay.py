"""A state that remembers its changes apart from the one below, until they are wanted.

Here live the face of the state that a command changes, and the overlay on which a transaction runs that may
fail half-way. Pure.
"""

from __future__ import annotations

from typing import Protocol


class StateView(Protocol):
    """The keys of the partition. Records are opaque here but for `kv.partition.record`."""

    def get(self, key: bytes) -> bytes | None:
        """Return the record of `key`, or None."""

    def put(self, key: bytes, record: bytes, is_new: bool) -> None:
        """Store the record of `key`; `is_new`: `get` found none."""

    def delete(self, key: bytes) -> None:
        """Remove `key`, which exists."""


class Overlay:
    """Writes over a state that stays as it is until `flush`. A `StateView` itself: overlays nest."""

    def __init__(self, beneath: StateView) -> None:
        self._beneath = beneath
        self._changed: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the record of `key`, or None."""
        return self._changed[key] if key in self._changed else self._beneath.get(key)

    def put(self, key: bytes, record: bytes, is_new: bool) -> None:
        """Store the record of `key` here."""
        assert is_new == (self.get(key) is None), "whoever writes has looked"
        self._changed[key] = record

    def delete(self, key: bytes) -> None:
        """Remove `key`, which exists, here."""
        assert self.get(key) is not None, "only what exists is deleted"
        self._changed[key] = None

    def flush(self) -> None:
        """Write the changes below, in the order in which their keys were first changed."""
        for key, record in self._changed.items():
            exists = self._beneath.get(key) is not None
            if record is not None:
                self._beneath.put(key, record, not exists)
            elif exists:
                self._beneath.delete(key)
