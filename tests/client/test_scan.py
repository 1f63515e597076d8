"""Properties of a scan's cursor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client.levels import LINEARIZABLE
from kv.client.scan import ScanCursor, prefix_end
from kv.errors import InvalidArgument
from kv.v1 import kv_pb2


def make(prefix: bytes = b"", start: bytes = b"", end: bytes = b"", limit: int = 0) -> ScanCursor:
    """Return a cursor."""
    return ScanCursor(prefix=prefix, start=start, end=end, limit=limit, keys_only=False, level=LINEARIZABLE)


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_prefix_end_bounds_exactly_the_prefix(prefix: bytes, key: bytes) -> None:
    """A key is at or after the prefix and before its end if and only if it begins with the prefix."""
    end = prefix_end(prefix)
    assert (key >= prefix and (not end or key < end)) == key.startswith(prefix)


@given(
    st.lists(st.binary(min_size=1, max_size=3), unique=True).map(sorted), st.integers(1, 4), st.integers(0, 9)
)
def test_a_scan_resumed_after_each_page_reads_each_key_once(
    keys: list[bytes], page_items: int, limit: int
) -> None:
    """Whatever the pages, resuming after each gives the keys once, in order, up to the limit."""
    cursor = make(limit=limit)
    read: list[bytes] = []
    while not cursor.done:
        request = cursor.request()
        left = [key for key in keys if key >= request.start][:page_items]
        if request.limit:
            left = left[: request.limit]
        if not left:
            break
        page = kv_pb2.ScanResponse(items=[kv_pb2.KeyValue(key=key) for key in left])
        read += [item.key for item in cursor.take(page)]
    assert read == (keys[:limit] if limit else keys)


def test_contradictions_are_refused() -> None:
    """A prefix excludes start and end, and a limit is not negative."""
    with pytest.raises(InvalidArgument, match="either a prefix or start and end"):
        make(prefix=b"a", start=b"b")
    with pytest.raises(InvalidArgument, match="below 0"):
        make(limit=-1)


def test_an_empty_range_is_done_at_once() -> None:
    """Nothing is asked for a range that cannot hold a key."""
    assert make(start=b"b", end=b"a").done
    assert not make(prefix=b"\xff\xff").done
