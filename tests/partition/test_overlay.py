"""The overlay on which a transaction runs that may fail half-way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.partition.overlay import Overlay
from tests.partition.tools import DictState

KEYS = st.sampled_from([b"a", b"b", b"c"])
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=2)), max_size=12)


def change(view: DictState | Overlay, key: bytes, record: bytes | None) -> None:
    """Put a record, or delete the key if it is there."""
    exists = view.get(key) is not None
    if record is not None:
        view.put(key, record, not exists)
    elif exists:
        view.delete(key)


@given(CHANGES, CHANGES, CHANGES)
def test_flush_is_what_direct_writes_are(
    before: list[tuple[bytes, bytes | None]],
    outer: list[tuple[bytes, bytes | None]],
    inner: list[tuple[bytes, bytes | None]],
) -> None:
    """Nothing is written below until the flush; after it the state is as if all had been written directly."""
    direct, beneath = DictState(), DictState()
    for key, record in before:
        change(direct, key, record)
        change(beneath, key, record)
    untouched = dict(beneath.records)
    overlay = Overlay(beneath)
    for key, record in outer:
        change(direct, key, record)
        change(overlay, key, record)
    nested = Overlay(overlay)
    for key, record in inner:
        change(direct, key, record)
        change(nested, key, record)
    assert {key: nested.get(key) for key in (b"a", b"b", b"c")} == {
        key: direct.get(key) for key in (b"a", b"b", b"c")
    }
    nested.flush()
    assert beneath.records == untouched
    overlay.flush()
    assert beneath.records == direct.records
