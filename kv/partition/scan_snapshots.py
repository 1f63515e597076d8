"""The states that open scans read at one index, while writes go on: old records, kept until they are not needed.

Here lives the bookkeeping: which snapshots are open, what the writes since have replaced, the bounds, and why
one is gone. Pure: `now` is a parameter, in seconds, monotonic; nothing here knows requests or evidence.

Copy on write: before a key is written for the first time since the newest snapshot, its record goes to that
snapshot. So a record is kept once, a write costs the same however many scans are open, and an older
snapshot looks into itself, then into each newer one, then into the state. Without an open snapshot nobody is
asked at all (`empty`).

An id is the log index of the snapshot with a counter behind it. An id that outlived its replica can therefore
be taken only for a snapshot at the same index, and the state at an index is the same everywhere.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from kv.errors import SnapshotGone
from kv.partition.overlay import StateView
from kv.partition.read import ReadView

RECORD_OVERHEAD_BYTES: Final = 128
"""Counted for each kept record besides its key and itself: two table entries, two objects."""

CAUSES_MAX: Final = 256
"""Of so many snapshots that went it is remembered why; of older ones it is not."""

ID_COUNTER_BITS: Final = 16
"""An id is (index << ID_COUNTER_BITS) | counter."""

Told = TypeVar("Told")
"""What the owner wants to find again with a snapshot."""


@dataclass(frozen=True, slots=True)
class SnapshotLimits:
    """Bounds of the snapshots of one partition. At each bound the one that was not read for the longest time goes."""

    scan_snapshots_max: int
    scan_snapshot_bytes_max: int
    """What all snapshots together keep, in bytes."""
    scan_snapshot_idle_s: float
    """Seconds without a page after which a snapshot goes."""


@dataclass(slots=True)
class Snapshot(Generic[Told]):
    """The state at one index: what has changed since, down to the next newer snapshot."""

    index: int
    told: Told
    used_at: float
    replaced: dict[bytes, bytes | None] = field(default_factory=dict)
    """Records at the index of keys that were written since; None: there was none."""
    keys: list[bytes] = field(default_factory=list)
    """Of `replaced`, in order."""
    kept_bytes: int = 0


class ScanSnapshots(Generic[Told]):
    """The open snapshots of one replica, oldest index first."""

    def __init__(self, limits: SnapshotLimits) -> None:
        self._limits = limits
        self.opened: OrderedDict[int, Snapshot[Told]] = OrderedDict()
        """The open ones by their ids. Whether there are any is asked each turn and for each entry: so it is no method."""
        self._causes: OrderedDict[int, str] = OrderedDict()
        self._counter = 0
        self.kept_bytes = 0

    def __len__(self) -> int:
        return len(self.opened)

    def open(self, index: int, told: Told, now: float) -> int:
        """Keep the state as it is now, after the entry `index`; return the id."""
        assert not self.opened or index >= self._newest().index, "the state never goes back under a snapshot"
        self._counter = (self._counter + 1) % (1 << ID_COUNTER_BITS)
        number = index << ID_COUNTER_BITS | self._counter
        assert number not in self.opened, "fewer snapshots are open than the counter counts"
        self.opened[number] = Snapshot(index, told, now)
        while len(self.opened) > self._limits.scan_snapshots_max:
            self._drop_idlest("too many scans are open at this replica")
        return number

    def get(self, number: int, now: float) -> Snapshot[Told]:
        """Return the snapshot, which counts as used. Raises `SnapshotGone`."""
        snapshot = self.opened.get(number)
        if snapshot is None:
            cause = self._causes.get(number, "this replica does not know it, or was restarted since")
            raise SnapshotGone(f"the snapshot {number} is gone: {cause}", metadata={"cause": cause})
        snapshot.used_at = now
        return snapshot

    def close(self, number: int) -> None:
        """Forget a snapshot whose scan is at its end."""
        self._drop(number, "its scan had come to its end")

    def expire(self, now: float) -> None:
        """Drop the snapshots that were not read for too long."""
        idle_s = self._limits.scan_snapshot_idle_s
        for number in [number for number, one in self.opened.items() if now - one.used_at >= idle_s]:
            self._drop(number, f"no page was read for {idle_s:g} s")

    def drop_all(self, cause: str) -> None:
        """Drop every snapshot: the state does not follow from theirs by writes any more."""
        for number in list(self.opened):  # oldest first: nobody takes anything over
            self._drop(number, cause)

    def remember(self, key: bytes, state: StateView) -> None:
        """Keep the record of `key`, which is about to be written. At least one snapshot is open."""
        newest = self._newest()
        if key in newest.replaced:
            return
        record = state.get(key)
        self._keep(newest, key, record)
        insort(newest.keys, key)
        while self.opened and self.kept_bytes > self._limits.scan_snapshot_bytes_max:
            self._drop_idlest("the writes since have replaced more than may be kept")

    def view(self, number: int, state: ReadView) -> SnapshotView:
        """Return the state at the snapshot's index. No write may come between two uses of it."""
        numbers = list(self.opened)
        chain = [self.opened[one] for one in numbers[numbers.index(number) :]]
        return SnapshotView(state, chain)

    def _newest(self) -> Snapshot[Told]:
        return next(reversed(self.opened.values()))

    def _keep(self, snapshot: Snapshot[Told], key: bytes, record: bytes | None) -> None:
        snapshot.replaced[key] = record
        size = _kept_bytes(key, record)
        snapshot.kept_bytes += size
        self.kept_bytes += size

    def _drop_idlest(self, cause: str) -> None:
        self._drop(min(self.opened, key=lambda number: self.opened[number].used_at), cause)

    def _drop(self, number: int, cause: str) -> None:
        """Forget a snapshot; the next older one takes over what it needs of it."""
        numbers = list(self.opened)
        place = numbers.index(number)
        gone = self.opened.pop(number)
        self.kept_bytes -= gone.kept_bytes
        if place:
            older = self.opened[numbers[place - 1]]
            for key, record in gone.replaced.items():
                if key not in older.replaced:
                    self._keep(older, key, record)
            older.keys = sorted(older.replaced)
        self._causes[number] = cause
        while len(self._causes) > CAUSES_MAX:
            self._causes.popitem(last=False)


class SnapshotView:
    """The keys of the partition at a snapshot's index, to read. A `ReadView`."""

    def __init__(self, state: ReadView, chain: list[Snapshot[Told]]) -> None:
        """`chain`: the snapshot, then the newer ones."""
        self._state = state
        self._chain = chain

    def get(self, key: bytes) -> bytes | None:
        """Return the record of `key`, or None."""
        for snapshot in self._chain:
            if key in snapshot.replaced:
                return snapshot.replaced[key]
        return self._state.get(key)

    def range(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, record) for start <= key < end in order; an empty `end` is no end."""
        replaced = self._replaced(start, end)
        next_replaced = next(replaced, None)
        for key, record in self._state.range(start, end):
            while next_replaced is not None and next_replaced < key:
                yield from self._item(next_replaced)
                next_replaced = next(replaced, None)
            if next_replaced == key:
                yield from self._item(key)
                next_replaced = next(replaced, None)
            else:
                yield key, record
        while next_replaced is not None:
            yield from self._item(next_replaced)
            next_replaced = next(replaced, None)

    def _item(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        record = self.get(key)
        if record is not None:
            yield key, record

    def _replaced(self, start: bytes, end: bytes) -> Iterator[bytes]:
        """Yield the keys of the range that were written since, in order, each once."""
        last = None
        for key in heapq.merge(*(_between(one.keys, start, end) for one in self._chain)):
            if key != last:
                yield key
            last = key


class RememberingView:
    """The state as commands change it while scans are open: what they replace is kept first. A `StateView`."""

    def __init__(self, state: StateView, snapshots: ScanSnapshots[Told]) -> None:
        self.get = state.get
        self._state = state
        self._snapshots = snapshots

    def put(self, key: bytes, record: bytes, is_new: bool) -> None:
        """Store the record of `key`."""
        if len(self._snapshots):
            self._snapshots.remember(key, self._state)
        self._state.put(key, record, is_new)

    def delete(self, key: bytes) -> None:
        """Remove `key`, which exists."""
        if len(self._snapshots):
            self._snapshots.remember(key, self._state)
        self._state.delete(key)


def _between(keys: list[bytes], start: bytes, end: bytes) -> Iterator[bytes]:
    for place in range(bisect_left(keys, start), len(keys)):
        if end and keys[place] >= end:
            return
        yield keys[place]


def _kept_bytes(key: bytes, record: bytes | None) -> int:
    return len(key) + len(record or b"") + RECORD_OVERHEAD_BYTES
