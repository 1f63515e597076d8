"""Fault periods from the notes of a nemesis, in the words of the schedule language and of Jepsen."""

from __future__ import annotations

import pytest

from kv_jepsen.history import Op, OpType, Value
from kv_jepsen.periods import Period, calm_spells, periods


def notes(*rows: tuple[int, str, Value]) -> list[Op]:
    """Notes of a nemesis: time, function, target."""
    return [Op(i, "nemesis", OpType.INFO, f, None, value, at) for i, (at, f, value) in enumerate(rows)]


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("partition", "heal"),
        ("crash", "start"),
        ("kill", "start"),
        ("pause", "resume"),
        ("fill", "free"),
        ("cut", "calm"),
    ],
)
def test_each_fault_lasts_until_what_ends_it(kind: str, end: str) -> None:
    """A fault ends with its counterpart on the same target, not with one on another or of another kind."""
    rows = [(1, kind, "n1"), (2, "unrelated", "n1"), (3, end, "n1")]
    assert periods(notes(*rows)) == (Period(kind, "n1", 1, 3),)


def test_an_end_for_another_node_ends_nothing() -> None:
    """Two crashed nodes come back one by one; a start of all ends both."""
    rows = [(1, "crash", "n1"), (2, "crash", "n2"), (3, "start", "n2")]
    assert periods(notes(*rows)) == (Period("crash", "n1", 1, None), Period("crash", "n2", 2, 3))
    assert [p.end_ns for p in periods(notes(*rows, (9, "start", "*")))] == [9, 3]


def test_the_words_of_jepsen() -> None:
    """`start-partition` and `stop-partition`, each noted twice, are one period; targets may be lists."""
    rows: list[tuple[int, str, Value]] = [
        (1, "start-partition", ("n1", "n2")),
        (2, "start-partition", ("n1", "n2")),
        (5, "stop-partition", None),
        (6, "stop-partition", None),
    ]
    assert periods(notes(*rows)) == (Period("partition", "n1, n2", 1, 5),)


def test_what_is_over_at_once_has_no_length() -> None:
    """A reset or a clock jump is a moment."""
    assert periods(notes((4, "reset", "n1-n2"))) == (Period("reset", "n1-n2", 4, 4),)


def test_calm_begins_when_the_last_of_overlapping_faults_ends() -> None:
    """Overlapping faults have one calm after them, up to the next fault; one that never ends has none."""
    a, b, c = Period("cut", "*", 0, 10), Period("crash", "n1", 5, 20), Period("pause", "n2", 30, 40)
    assert calm_spells([a, b, c]) == [(20, 30), (40, None)]
    assert calm_spells([a, b, Period("kill", "n1", 50, None)]) == [(20, 50)]
    assert calm_spells([]) == []
