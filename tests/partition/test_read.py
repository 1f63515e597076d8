"""Gets and pages of ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.ids import REQUEST_BYTES_MAX, VALUE_BYTES_MAX
from kv.partition.batch import decode_batch
from kv.partition.read import ITEM_OVERHEAD_BYTES, PageLimits, read_batch
from kv.partition.record import HEADER, HEADER_BYTES
from kv.v1 import kv_pb2
from tests.partition.tools import DictState, Op, batch, get, results, scan

LIMITS = PageLimits(scan_page_items=5, scan_page_bytes=10_000)


def state(**values: bytes) -> DictState:
    """Return a state of these keys, each written once at revision 9."""
    made = DictState()
    for key, value in values.items():
        made.put(key.encode(), HEADER.pack(9, 9, 1, 0) + value, is_new=True)
    return made


def read(view: DictState, *operations: Op, limits: PageLimits = LIMITS) -> list[kv_pb2.OperationResult]:
    """Return the results of a batch of reads."""
    return results(read_batch(view, decode_batch(batch(*operations)), limits))


def test_range_bounds() -> None:
    """The start is in the range and the end is not; an empty bound is none."""
    view = state(a=b"1", b=b"2", c=b"3")
    expected = {
        (b"", b""): b"abc",
        (b"b", b""): b"bc",
        (b"", b"b"): b"a",
        (b"a", b"c"): b"ab",
        (b"c", b"a"): b"",
    }
    for (start, end), keys in expected.items():
        page = read(view, scan(start, end))[0].range
        assert b"".join(item.key for item in page.items) == keys
        assert not page.more


def test_range_items() -> None:
    """An item of a range has the key's value and history; keys_only leaves only the value out."""
    full = kv_pb2.KeyValue(key=b"a", value=b"1", create_revision=9, mod_revision=9, version=1)
    assert list(read(state(a=b"1"), scan())[0].range.items) == [full]
    full.ClearField("value")
    assert list(read(state(a=b"1"), scan(keys_only=True))[0].range.items) == [full]


@pytest.mark.parametrize(("limit", "count", "more"), [(0, 5, True), (3, 3, True), (9, 5, True)])
def test_page_items(limit: int, count: int, more: bool) -> None:
    """A page ends at the smaller of the asked and the configured number of items, and says that more follow."""
    page = read(state(a=b"", b=b"", c=b"", d=b"", e=b"", f=b""), scan(limit=limit))[0].range
    assert (len(page.items), page.more) == (count, more)


def test_last_page_says_so() -> None:
    """A page that ends with the range exactly at the limit says that nothing follows."""
    page = read(state(a=b"", b=b"", c=b"", d=b"", e=b""), scan(limit=5))[0].range
    assert (len(page.items), page.more) == (5, False)


def test_page_bytes() -> None:
    """A page takes items up to the byte limit exactly, but one item at least."""
    item_bytes = 1 + HEADER_BYTES + ITEM_OVERHEAD_BYTES + 100
    view = state(a=bytes(100), b=bytes(100), c=bytes(100))
    for page_bytes, count in ((3 * item_bytes, 3), (3 * item_bytes - 1, 2), (1, 1)):
        page = read(view, scan(), limits=PageLimits(10, page_bytes))[0].range
        assert (len(page.items), page.more) == (count, count < 3)


@given(st.sets(st.text("abc", min_size=1, max_size=4), max_size=20), st.integers(1, 5))
def test_pages_cover_the_range(keys: set[str], limit: int) -> None:
    """Page after page, each from behind the last key, gives every key once and in order."""
    view = state(**dict.fromkeys(keys, b"v"))
    found: list[bytes] = []
    more, start = True, b""
    while more:
        page = read(view, scan(start, limit=limit))[0].range
        found += [item.key for item in page.items]
        more, start = page.more, found[-1] + b"\0" if found else b""
    assert found == sorted(key.encode() for key in keys)


def test_response_is_bounded() -> None:
    """Results beyond the response's bound become definite errors, one by one; small ones after them still fit."""
    view = state(a=bytes(VALUE_BYTES_MAX), b=b"small")
    reads = [get(b"a"), get(b"a"), get(b"a"), scan(), get(b"b")]
    response = read_batch(view, decode_batch(batch(*reads)), LIMITS)
    assert len(response) < REQUEST_BYTES_MAX
    kinds = [result.WhichOneof("result") for result in results(response)]
    assert kinds == ["get", "get", "error", "error", "get"]
    assert results(response)[2].error.definite


def test_refused_beside_reads() -> None:
    """A bad get is an error of its own."""
    got = read(state(a=b"1"), get(b""), get(b"a"))
    assert (got[0].error.reason, got[1].get.item.value) == ("KEY_EMPTY", b"1")
