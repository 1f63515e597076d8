"""Rows: the operations of a batch, checked, and as columns where all of them are of one plain kind. Pure.

Checking operations one by one costs more than the network does. Nearly every batch holds only plain puts or only
gets; these are turned into columns first, and looked at column by column. Whatever is not perfect there is looked
at one by one all the same, so that the error is the same, and says what it says of a single operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, cast

from kv.client.columns import Column
from kv.client.operations import OPERATION_OVERHEAD_BYTES, check_op, op_size
from kv.client.types import Get, Op, Put
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX

ITEMS_MIN: Final = 2
"""`itemgetter` gives a tuple from here on, and of less one item alone."""


@dataclass(slots=True)
class Rows:
    """Operations that can be sent, in their order (not frozen: one is built for each partition of a batch)."""

    ops: Sequence[Op]
    keys: Sequence[bytes]
    """Of each operation its key."""
    values: Sequence[bytes]
    """Of plain puts the value of each; else empty."""
    column: Column | None
    """As which column they can travel; None: not all of them are plain puts, or gets."""

    def __len__(self) -> int:
        return len(self.ops)

    def pick(self, positions: Sequence[int]) -> Rows:
        """Return those at the positions, which ascend."""
        if len(positions) == len(self.ops):
            return self
        if len(positions) < ITEMS_MIN:
            picked = slice(positions[0], positions[0] + 1) if positions else slice(0)
            ops, keys, values = self.ops[picked], self.keys[picked], self.values[picked]
        else:
            pick = itemgetter(*positions)  # one for all columns, and no Python for each row
            ops, keys = pick(self.ops), pick(self.keys)
            values = pick(self.values) if self.values else ()
        if self.column is None:
            return _columns_of(ops) or Rows(ops, keys, (), None)
        return Rows(ops, keys, values, self.column)

    def after(self, count: int) -> Rows:
        """Return what is left without the first `count`."""
        return self.pick(range(count, len(self)))

    def size(self) -> int:
        """Return how many bytes they add to a request, at most."""
        if self.column is None:
            return sum(map(op_size, self.ops))
        return (
            len(self.ops) * OPERATION_OVERHEAD_BYTES + sum(map(len, self.keys)) + sum(map(len, self.values))
        )

    @property
    def reads(self) -> bool:
        """Whether they only read."""
        if self.column is not None:
            return self.column is Column.GETS
        return all(isinstance(op, Get) for op in self.ops)


def rows_of(ops: Sequence[Op]) -> Rows:
    """Check the operations; raise a definite error, or `TypeError`, for the first that cannot be sent."""
    ops = tuple(ops)  # the caller may change a list of its own while the batch waits
    rows = _columns_of(ops)
    if rows is None:
        for op in ops:
            check_op(op)
        rows = Rows(ops, [op.key for op in ops], (), None)
    return rows


def _columns_of(ops: Sequence[Op]) -> Rows | None:
    """Return the columns of plain puts or of gets that are all good; None for anything else."""
    kinds = set(map(type, ops))
    if kinds == {Put}:
        keys, values, *options = zip(*cast("Sequence[Put]", ops), strict=True)
        if _all_plain(options) and _all_bytes(values, VALUE_BYTES_MAX) and _all_keys(keys):
            return Rows(ops, keys, values, Column.PUTS)
    elif kinds == {Get}:
        (keys,) = zip(*cast("Sequence[Get]", ops), strict=True)
        if _all_keys(keys):
            return Rows(ops, keys, (), Column.GETS)
    return None


def _all_plain(options: Sequence[Sequence[object]]) -> bool:
    """Return whether these columns of puts, all but the keys and the values, hold nothing but the defaults."""
    return all(
        column.count(default) == len(column) for column, default in zip(options, _DEFAULTS, strict=True)
    )


_DEFAULTS = tuple(Put(b"-", b"")[2:])


def _all_keys(keys: Sequence[bytes]) -> bool:
    return _all_bytes(keys, KEY_BYTES_MAX) and all(keys)


def _all_bytes(texts: Sequence[bytes], bytes_max: int) -> bool:
    return set(map(type, texts)) == {bytes} and max(map(len, texts)) <= bytes_max
