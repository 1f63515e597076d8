"""Where a scan stands. Pure.

One call of the service reads each partition's share at one index. A scan that goes on after
the last key that was received, in another call, reads at another: so whoever drives it may do
that unasked only while nothing was received.
"""

from __future__ import annotations

from collections.abc import Mapping

from kv.client.levels import Level, Preference, read_options
from kv.client.operations import read_evidence, read_item
from kv.client.types import ReadLevel, ScanPage
from kv.errors import Internal, InvalidArgument
from kv.ids import GroupId
from kv.v1 import kv_pb2


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after all that begin with `prefix`; empty if there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else b""


class ScanCursor:
    """A range of keys and how far it was read."""

    def __init__(
        self,
        *,
        prefix: bytes,
        start: bytes,
        end: bytes,
        limit: int,
        keys_only: bool,
        level: Level,
        preference: Preference | None = None,
        after: Mapping[GroupId, int] | None = None,
    ) -> None:
        """Take the range; raise `InvalidArgument` if it contradicts itself. `after`: indexes of a SESSION read."""
        if level.kind in (ReadLevel.QUORUM, ReadLevel.ALL):
            raise InvalidArgument(
                f"a scan has no level {level}: scan at linearizable, lease, session, bounded or stale"
            )
        if prefix and (start or end):
            raise InvalidArgument("give either a prefix or start and end, not both")
        if limit < 0:
            raise InvalidArgument(f"the limit {limit} is below 0; 0 means no limit")
        self._start = prefix or start
        self._end = prefix_end(prefix) if prefix else end
        self._limit = limit
        self._left = limit
        self._keys_only = keys_only
        self._level = level
        self._options = read_options(level, preference)
        if level.kind is ReadLevel.SESSION:
            for partition, index in sorted((after or {}).items()):
                self._options.after.add(partition=partition, index=index)
        self.done = bool(self._end) and self._start >= self._end

    def request(self) -> kv_pb2.ScanRequest:
        """Return the request for what is left."""
        return kv_pb2.ScanRequest(
            start=self._start,
            end=self._end,
            limit=self._left,
            keys_only=self._keys_only,
            level=kv_pb2.ReadLevel.ValueType(int(self._level.kind)),
            read=self._options if self._options.ByteSize() else None,
        )

    def take(self, page: kv_pb2.ScanResponse) -> ScanPage:
        """Return the items of a page and go on after them; raise `Internal` if they are out of order."""
        items = ScanPage(read_item(item, None) for item in page.items)
        items.evidence = tuple(read_evidence(proof, write=False) for proof in page.evidence)
        if items:
            keys = [item.key for item in items]
            if keys[0] < self._start or keys != sorted(keys):
                raise Internal(
                    "a page of the scan is out of order: client and node do not understand each other"
                )
            self._start = keys[-1] + b"\x00"
        if self._limit:
            self._left = max(0, self._left - len(items))
            self.done = self._left == 0
        return items
