"""Requests in columns: plain puts, or gets, that travel together and are not made into a message each.

An operation as a message of its own costs each process on its way some microseconds of Python; a row of a column costs
a fraction of one. So what a request joins travels as one `PutManyOperation` or `GetManyOperation` where all of it is
plain: puts without conditions that do not ask for what was there before, or gets. Here live how such a request is
written and its answer read; which calls travel together is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kv.client.types import Evidence, Item, PutReply
from kv.v1 import kv_pb2

if TYPE_CHECKING:
    from kv.client.calls import Call

ROWS_MIN: Final = 2
"""A lone operation travels as itself: a column of one row saves nothing."""


class Column(StrEnum):
    """What a call can be a row of, by the name of the operation and of its result."""

    PUTS = "put_many"
    GETS = "get_many"


def column_of(calls: Sequence[Call], count: int) -> Column | None:
    """Return the column in which all the calls can travel, `count` rows; None if there is none."""
    columns = {call.column for call in calls}
    return columns.pop() if len(columns) == 1 and count >= ROWS_MIN else None


def write_column(column: Column, calls: Sequence[Call], batch: kv_pb2.BatchRequest) -> None:
    """Write the calls into the batch as one operation."""
    keys: list[bytes] = []
    values: list[bytes] = []
    for call in calls:
        call.add_rows(keys, values)
    operation = batch.operations.add()
    if column is Column.PUTS:
        operation.put_many.keys.extend(keys)
        operation.put_many.values.extend(values)
    else:
        operation.get_many.keys.extend(keys)


def items_of(calls: Sequence[Call], many: kv_pb2.GetManyResult, proof: Evidence) -> list[Item | None]:
    """Return what was found for each key, as far as the answer goes; each with its own evidence."""
    keys: list[bytes] = []
    for call in calls:
        call.add_rows(keys, [])
    partition, map_epoch, term, index, node, level, _, age_ms = proof
    new = tuple.__new__  # a NamedTuple's own takes three times as long, and two are made for each row
    columns = (many.values[:], many.create_revisions[:], many.mod_revisions[:], many.versions[:])
    return [
        new(Item, (*row, new(Evidence, (partition, map_epoch, term, index, node, level, row[3], age_ms))))
        if row[3]
        else None
        for row in zip(keys, *columns, strict=False)
    ]


def replies_of(revision: int, versions: Iterable[int], proof: Evidence) -> list[PutReply]:
    """Return the replies to puts."""
    new = tuple.__new__  # as above
    return [new(PutReply, (revision, version, proof, None)) for version in versions]
