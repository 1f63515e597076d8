"""Rows: columns where they pay, and the very errors of operations that are looked at one by one."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client.columns import Column
from kv.client.operations import check_op, is_plain_put, op_size
from kv.client.rows import rows_of
from kv.client.types import Append, Delete, Get, Increment, Op, Put
from kv.errors import KVError
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX

KEYS: st.SearchStrategy[Any] = st.sampled_from([b"a", b"b", b"c" * KEY_BYTES_MAX])
VALUES: st.SearchStrategy[Any] = st.sampled_from([b"", b"1", bytes(VALUE_BYTES_MAX)])
BAD_KEYS: st.SearchStrategy[Any] = st.sampled_from([b"", bytes(KEY_BYTES_MAX + 1), "text", None])
BAD_VALUES: st.SearchStrategy[Any] = st.sampled_from([bytes(VALUE_BYTES_MAX + 1), "text", None])


def puts(
    keys: st.SearchStrategy[Any],
    values: st.SearchStrategy[Any],
    **options: Any,  # noqa: ANN401  # some are of types that a put must refuse
) -> st.SearchStrategy[Op]:
    """Puts with these options and no others; `st.builds` would make up the rest."""
    return st.builds(lambda key, value: Put(key, value, **options), keys, values)


PUTS = puts(KEYS, VALUES)
GETS = st.builds(Get, KEYS)
OTHERS: st.SearchStrategy[Op] = st.one_of(
    puts(KEYS, VALUES, if_absent=True),
    puts(KEYS, VALUES, if_present=True),
    puts(KEYS, VALUES, if_revision=0),
    puts(KEYS, VALUES, if_value=b""),
    puts(KEYS, VALUES, return_previous=True),
    st.builds(Delete, KEYS),
    st.builds(Append, KEYS, VALUES),
    st.builds(Increment, KEYS),
)
BAD: st.SearchStrategy[Op] = st.one_of(
    puts(BAD_KEYS, VALUES),
    puts(KEYS, BAD_VALUES),
    puts(KEYS, VALUES, if_absent=True, if_present=True),
    puts(KEYS, VALUES, if_value="text"),
    st.builds(Get, BAD_KEYS),
    st.just(cast("Op", "no operation")),
)
GOOD = st.one_of(st.lists(PUTS), st.lists(GETS), st.lists(PUTS | GETS | OTHERS))


@given(GOOD)
def test_rows_are_the_operations(ops: list[Op]) -> None:
    """Keys, size and kind are those of the operations one by one; a column is given exactly where all are plain."""
    rows = rows_of(ops)
    assert [*rows.ops] == ops
    assert [*rows.keys] == [op.key for op in ops]
    assert rows.size() == sum(map(op_size, ops))
    assert rows.reads == all(isinstance(op, Get) for op in ops)
    puts = [op.value for op in ops if is_plain_put(op)]
    assert (rows.column is Column.PUTS) == (len(puts) == len(ops) > 0)
    assert (rows.column is Column.GETS) == (rows.reads and len(ops) > 0)
    assert [*rows.values] == (puts if rows.column is Column.PUTS else [])


@given(GOOD, st.data())
def test_a_choice_of_rows_is_as_if_they_came_alone(ops: list[Op], data: st.DataObject) -> None:
    """What is picked, or left, is what the same operations alone would have given."""
    chosen = sorted(data.draw(st.sets(st.integers(0, len(ops) - 1)))) if ops else []
    for rows, wanted in (
        (rows_of(ops).pick(chosen), rows_of([ops[place] for place in chosen])),
        (rows_of(ops).pick(range(len(ops))), rows_of(ops)),
        (rows_of(ops).after(len(chosen)), rows_of(ops[len(chosen) :])),
    ):
        assert ([*rows.ops], [*rows.keys]) == ([*wanted.ops], [*wanted.keys])
        if wanted.ops:
            assert (rows.column, rows.reads, rows.size()) == (wanted.column, wanted.reads, wanted.size())
        if wanted.column is not None:
            assert [*rows.values] == [*wanted.values]


@given(st.lists(PUTS) | st.lists(GETS), BAD, st.data())
def test_a_bad_operation_is_refused_as_if_it_were_alone(ops: list[Op], bad: Op, data: st.DataObject) -> None:
    """One that cannot be sent fails with its own error, wherever it stands among good ones."""
    with pytest.raises((KVError, TypeError)) as alone:
        check_op(bad)
    place = data.draw(st.integers(0, len(ops)))
    with pytest.raises(alone.type) as together:
        rows_of([*ops[:place], bad, *ops[place:]])
    assert str(together.value) == str(alone.value)


def test_a_list_that_changes_afterwards_changes_nothing() -> None:
    """What was checked is what is sent, whatever the caller does with the list meanwhile."""
    ops: list[Op] = [Put(b"a", b"1")]
    rows = rows_of(ops)
    ops.append(Put(b"", b""))
    assert [*rows.ops] == [Put(b"a", b"1")]
