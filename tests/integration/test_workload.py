"""The record of a load: that each kind of broken promise is found, and that a kept one is not."""

from __future__ import annotations

import pytest

from kv.client import Item
from tests.integration.workload import Fate, Record, allowed_values

A, R, U = Fate.ACKNOWLEDGED, Fate.REFUSED, Fate.UNKNOWN


def content(*items: tuple[bytes, bytes] | tuple[bytes, bytes, int]) -> dict[bytes, Item]:
    """Return what a cluster might hold: key, value, and a version that is 1 if not given."""
    return {item[0]: Item(item[0], item[1], 7, 7, item[2] if len(item) == 3 else 1) for item in items}


@pytest.mark.parametrize(
    ("fate", "deleted", "present", "absent"),
    [
        (A, None, True, False),
        (R, None, False, True),
        (U, None, True, True),
        (A, A, False, True),
        (A, U, True, True),
        (A, R, True, False),
    ],
)
def test_puts(fate: Fate, deleted: Fate | None, present: bool, absent: bool) -> None:
    """A key is there if its put was acknowledged and not undone, gone if refused or deleted, once only."""
    record = Record(puts={b"k": (b"v", fate)}, deletes={} if deleted is None else {b"k": deleted})
    assert (record.violations(content((b"k", b"v"))) == []) is present
    assert (record.violations({}) == []) is absent
    assert record.violations(content((b"k", b"other"))) != []
    assert record.violations(content((b"k", b"v", 2))) != []


def test_refused_values() -> None:
    """A value whose write was refused is a violation wherever it is."""
    record = Record(never={b"never"})
    assert record.violations(content((b"k", b"v"))) == []
    assert record.violations(content((b"k", b"never"))) != []


def test_registers() -> None:
    """A register holds the last acknowledged value or an unknown one, and was written as often as acknowledged."""
    record = Record(registers={b"r": {b"1": A, b"2": R, b"3": U, b"4": A, b"5": U}})
    assert allowed_values(record.registers[b"r"]) == {b"3", b"4", b"5"}
    for value, version, right in (
        (b"4", 2, True),
        (b"5", 3, True),
        (b"3", 4, True),
        (b"4", 1, False),
        (b"5", 5, False),
        (b"1", 3, False),
        (b"2", 3, False),
    ):
        assert (record.violations(content((b"r", value, version))) == []) is right
    assert record.violations({}) != []


def test_lists() -> None:
    """A list holds each acknowledged token once, an unknown one at most once, and no other; its count agrees."""
    record = Record(lists={b"l": {b"a": A, b"b": U, b"c": R}})
    for value, right in (
        (b"1 a", True),
        (b"2 a b", True),
        (b"2 b a", True),
        (b"1 b", False),
        (b"2 a a", False),
        (b"2 a c", False),
        (b"2 a x", False),
        (b"2 a", False),
    ):
        assert (record.violations(content((b"l", value))) == []) is right, value


def test_pairs() -> None:
    """The two keys of a transaction hold one token."""
    record = Record(pairs={b"{p}": {b"1": A, b"2": U}})
    for left, right, kept in ((b"1", b"1", True), (b"2", b"2", True), (b"1", b"2", False)):
        held = content((b"{p}/left", left), (b"{p}/right", right))
        assert (record.violations(held) == []) is kept
    assert record.violations(content((b"{p}/left", b"1"))) != []
