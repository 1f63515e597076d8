"""The ring: golden hashes, the hash tag rule, and ranges that own each hash exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.router.ring import HASH_SPACE, Ring, hash_tag, initial_ranges, key_hash, owner_of

hashes = st.integers(0, HASH_SPACE - 1)


@dataclass(frozen=True)
class Range:
    """The least that a ring takes."""

    id: int
    hash_start: int
    hash_end: int


def ranges_of(bounds: list[int]) -> list[Range]:
    """Number the ranges between consecutive bounds from 1."""
    return [Range(i, start, end) for i, (start, end) in enumerate(pairwise(bounds), 1)]


def equal_ring(partitions: int) -> Ring:
    """A ring of equal ranges, numbered from 1."""
    return Ring(Range(i, start, end) for i, (start, end) in enumerate(initial_ranges(partitions), 1))


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"", 0x2D06800538D394C2),  # the first three are xxHash's own published vectors
        (b"a", 0xE6C632B61E964E1F),
        (b"abc", 0x78AF5F94892F3950),
        (b"{abc}", 0x78AF5F94892F3950),
        (b"x{a}y{abc}", 0xE6C632B61E964E1F),
    ],
)
def test_golden_hashes(key: bytes, hashed: int) -> None:
    """The hash of a key never changes, or every stored key would be lost."""
    assert key_hash(key) == hashed


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"{user1000}.following", b"user1000"),  # the examples of the Redis Cluster specification
        (b"foo{}{bar}", b"foo{}{bar}"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"foo{bar}{zap}", b"bar"),
        (b"plain", b"plain"),
        (b"open{only", b"open{only"),
        (b"}close{first}", b"first"),
        (b"{", b"{"),
        (b"{}", b"{}"),
        (b"{\x00}", b"\x00"),
    ],
)
def test_hash_tag(key: bytes, tag: bytes) -> None:
    """The tag is what stands between the first `{` and the first `}` after it, if that is not empty."""
    assert hash_tag(key) == tag


@given(tag=st.binary(min_size=1).filter(lambda tag: b"}" not in tag), left=st.binary(), right=st.binary())
def test_same_tag_same_partition(tag: bytes, left: bytes, right: bytes) -> None:
    """Keys with one tag share a hash, whatever stands around it."""
    left = left.replace(b"{", b"")
    assert key_hash(left + b"{" + tag + b"}" + right) == key_hash(b"{" + tag + b"}")


@given(st.integers(1, 4096))
def test_initial_ranges_cover_evenly(partitions: int) -> None:
    """The first ranges cover the hash space without gap or overlap, and their sizes differ by at most one."""
    ranges = initial_ranges(partitions)
    sizes = {end - start for start, end in ranges}
    assert len(ranges) == partitions
    assert (ranges[0][0], ranges[-1][1]) == (0, HASH_SPACE)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))
    assert max(sizes) - min(sizes) <= 1


def test_no_ranges() -> None:
    """The hash space cannot be split into nothing."""
    with pytest.raises(ValueError, match="at least 1"):
        initial_ranges(0)


@given(cuts=st.sets(st.integers(1, HASH_SPACE - 1), max_size=20), hashed=hashes, data=st.data())
def test_lookup_finds_the_owner(cuts: set[int], hashed: int, data: st.DataObject) -> None:
    """In rings of any ranges, given in any order, a hash belongs to the one range that contains it."""
    ranges = ranges_of([0, *sorted(cuts), HASH_SPACE])
    ring = Ring(data.draw(st.permutations(ranges)))
    for probe in (hashed, *cuts, *(cut - 1 for cut in cuts), 0, HASH_SPACE - 1):
        (owner,) = [part.id for part in ranges if part.hash_start <= probe < part.hash_end]
        assert ring.partition_of_hash(probe) == owner


@given(st.binary(max_size=50))
def test_partition_of_a_key_is_that_of_its_hash(key: bytes) -> None:
    """A key belongs to the partition that owns its hash."""
    ring = equal_ring(16)
    assert ring.partition_of(key) == ring.partition_of_hash(key_hash(key))


@pytest.mark.parametrize("hashed", [-1, HASH_SPACE])
def test_hash_out_of_space(hashed: int) -> None:
    """What is no hash has no owner."""
    with pytest.raises(ValueError, match="outside of the hash space"):
        equal_ring(2).partition_of_hash(hashed)


@pytest.mark.parametrize(
    ("ranges", "what"),
    [
        ([], "end at 0"),
        ([Range(1, 5, HASH_SPACE)], "gap"),
        ([Range(1, 0, 5)], "end at 5"),
        ([Range(1, 0, 5), Range(2, 6, HASH_SPACE)], "partition 2 .* gap"),
        ([Range(1, 0, 5), Range(2, 4, HASH_SPACE)], "partition 2 .* overlaps"),
        ([Range(1, 0, HASH_SPACE), Range(2, 0, HASH_SPACE)], "overlaps"),
        ([Range(1, 0, 0), Range(2, 0, HASH_SPACE)], "empty"),
        ([Range(1, 0, HASH_SPACE + 1)], "2\\^64"),
    ],
)
def test_bad_rings(ranges: list[Range], what: str) -> None:
    """A ring with a gap, an overlap or an empty range is refused with the partition at fault."""
    with pytest.raises(ValueError, match=what):
        Ring(ranges)


def test_keys_spread_evenly() -> None:
    """Ten thousand sequential keys fall on 16 partitions within 15 % of their even share."""
    ring = equal_ring(16)
    counts = Counter(ring.partition_of(b"user:%d" % i) for i in range(10_000))
    assert len(counts) == 16
    assert all(0.85 < count / 625 < 1.15 for count in counts.values()), counts


@given(
    st.lists(st.binary(max_size=8) | st.sampled_from([b"{a}b", b"x{a}", b"{}a", b"{a"])), st.integers(1, 9)
)
def test_each_key_has_one_owner_however_it_is_asked(keys: list[bytes], partitions: int) -> None:
    """One by one, all at once and by the ranges themselves: the partition of a key is that of its tag's hash."""
    ring = equal_ring(partitions)
    owners = [owner_of(start, end) for start, end in initial_ranges(partitions)]
    wanted = [ring.partition_of_hash(key_hash(key)) for key in keys]
    assert ring.partitions_of(keys) == wanted
    assert list(map(ring.partition_of, keys)) == wanted
    assert [[number for number, owns in enumerate(owners, 1) if owns(key)] for key in keys] == [
        [number] for number in wanted
    ]
