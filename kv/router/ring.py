"""The ring: from a key to its hash, and from the hash to the partition that owns it.

Pure: two clients of the same map must agree for ever, so nothing here may depend on anything
but the arguments. The golden vectors in the tests pin the hash; changing it loses every key.

Sources: consistent hashing with fixed, equal partitions is strategy 3 of Dynamo (DeCandia et al.
2007, section 6.2); hash tags follow the Redis Cluster specification ("Hash tags").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final, Protocol

import xxhash

from kv.ids import GroupId

_digest: Final = xxhash.xxh3_64_intdigest

_OPENS: Final = ord("{")
"""What begins a hash tag. The number: looking for one byte of bytes by bytes takes nine times as long."""

HASH_SPACE: Final = 2**64
"""Hashes h satisfy 0 <= h < HASH_SPACE."""


class HashRange(Protocol):
    """What the ring needs of a partition: it owns the hashes hash_start <= h < hash_end."""

    @property
    def id(self) -> GroupId:
        """The partition's number."""

    @property
    def hash_start(self) -> int:
        """The first hash of the range."""

    @property
    def hash_end(self) -> int:
        """The hash after the last; `HASH_SPACE` for the last range."""


def hash_tag(key: bytes) -> bytes:
    """Return the part of `key` that is hashed.

    That is what stands between the first `{` and the first `}` after it, if that is not empty,
    else the whole key: `{user1}/name` and `{user1}/mail` share a partition.
    """
    if _OPENS not in key:
        return key
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if end > start + 1 else key


def key_hash(key: bytes) -> int:
    """Return xxh3_64 (seed 0) of the hash tag of `key`, as an unsigned 64-bit number."""
    return _digest(hash_tag(key))


def owner_of(start: int, end: int) -> Callable[[bytes], bool]:
    """Return the function that says whether start <= `key_hash(key)` < end. Asked for each row of a request."""

    def owns(key: bytes) -> bool:
        return start <= _digest(hash_tag(key) if _OPENS in key else key) < end

    return owns


def initial_ranges(partitions: int) -> list[tuple[int, int]]:
    """Split the hash space into that many half-open ranges whose sizes differ by at most one."""
    if not 1 <= partitions <= HASH_SPACE:
        raise ValueError(f"cannot split the hash space into {partitions} ranges: give at least 1")
    bounds = [HASH_SPACE * i // partitions for i in range(partitions + 1)]
    return list(pairwise(bounds))


class Ring:
    """The partitions in the order of their ranges; a lookup is one binary search."""

    __slots__ = ("_ids", "_starts")

    def __init__(self, partitions: Iterable[HashRange]) -> None:
        """Take partitions in any order; raise `ValueError` unless they cover the hash space exactly once."""
        ordered = sorted(partitions, key=lambda partition: partition.hash_start)
        check_cover(ordered)
        self._starts = [partition.hash_start for partition in ordered]
        self._ids = [partition.id for partition in ordered]

    def partition_of(self, key: bytes) -> GroupId:
        """Return the partition that owns `key`."""
        tag = hash_tag(key) if _OPENS in key else key  # on the hot path: one call less for most keys
        return self._ids[bisect_right(self._starts, _digest(tag)) - 1]

    def partitions_of(self, keys: Iterable[bytes]) -> list[GroupId]:
        """Return the partition of each key. The loop of large batches, so `partition_of` is written out in it."""
        ids, starts = self._ids, self._starts
        return [
            ids[bisect_right(starts, _digest(hash_tag(key) if _OPENS in key else key)) - 1] for key in keys
        ]

    def partition_of_hash(self, hashed: int) -> GroupId:
        """Return the partition that owns the hash; raise `ValueError` outside of the hash space."""
        if not 0 <= hashed < HASH_SPACE:
            raise ValueError(f"{hashed} is outside of the hash space")
        return self._ids[bisect_right(self._starts, hashed) - 1]


def check_cover(ordered: Iterable[HashRange]) -> None:
    """Raise `ValueError` unless the ranges, in their order, cover the hash space without gap or overlap."""
    reached = 0
    for part in ordered:
        if part.hash_start != reached:
            what = "leaves a gap" if part.hash_start > reached else "overlaps the range before it"
            raise ValueError(f"partition {part.id} starts at {part.hash_start}, not {reached}: it {what}")
        if part.hash_end <= part.hash_start:
            raise ValueError(f"partition {part.id} has an empty range")
        reached = part.hash_end
    if reached != HASH_SPACE:
        raise ValueError(f"the ranges end at {reached}, not at 2^64")
