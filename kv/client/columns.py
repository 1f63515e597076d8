"""Requests in columns: plain puts, or gets, that travel together and are not made into a message each.

An operation as a message of its own costs each process on its way some microseconds of Python; a row of a column costs
a fraction of one. So what a request joins travels as one `PutManyOperation` or `GetManyOperation` where all of it is
plain: puts without conditions that do not ask for what was there before, or gets. Here live how such a request is
written and its answer read; which calls travel together is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from itertools import chain, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from kv.client.types import Evidence, Item, PutReply
from kv.v1 import kv_pb2
from kv.wire import tag_of, varint

if TYPE_CHECKING:
    from kv.client.calls import Call

ROWS_MIN: Final = 2
"""A lone operation travels as itself: a column of one row saves nothing."""
LARGE_BYTES_MIN: Final = 64 << 10
ROW_BYTES_MIN: Final = 4 << 10
"""From here on, in all and for each row, values are written by hand, a lone one too: Protobuf takes and gives back some times
their bytes of memory, whose pages are then fresh each time. For 1 MiB that is 1 to 2 ms, and a copy takes 0.1."""

_OPERATIONS: Final = tag_of(kv_pb2.BatchRequest.OPERATIONS_FIELD_NUMBER)
_PUT_MANY: Final = tag_of(kv_pb2.Operation.PUT_MANY_FIELD_NUMBER)
_VALUES_TAG: Final = tag_of(kv_pb2.PutManyOperation.VALUES_FIELD_NUMBER)


class Column(StrEnum):
    """What a call can be a row of, by the name of the operation and of its result."""

    PUTS = "put_many"
    GETS = "get_many"


_new: Final = tuple.__new__
"""Makes a NamedTuple of the tuple of its fields, in a third of the time that its own way takes."""


def bare_kind(calls: Iterable[Call]) -> type[Call] | None:
    """Return of which class all the calls are, if of one whose calls are `bare`: see there."""
    kinds: set[type[Call]] = set(map(type, calls))
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    return kind if kind.bare else None


def column_of(calls: Sequence[Call], count: int) -> Column | None:
    """Return the column in which all the calls can travel, `count` rows; None if there is none."""
    if count < ROWS_MIN and calls[0].size < LARGE_BYTES_MIN:
        return None
    bare = bare_kind(calls)
    columns = {call.column for call in calls} if bare is None else {bare.column}
    return columns.pop() if len(columns) == 1 else None


def write_column(column: Column, calls: Sequence[Call], batch: kv_pb2.BatchRequest) -> None:
    """Write the calls into the batch as one operation."""
    operation = batch.operations.add()
    if column is Column.PUTS:
        operation.put_many.keys.extend(_of_all(calls, _KEY, _KEYS))
        operation.put_many.values.extend(_of_all(calls, _VALUE, _VALUES))
    else:
        operation.get_many.keys.extend(keys_of(calls))


def are_large(calls: Iterable[Call], count: int) -> bool:
    """Return whether calls of so many rows are for `large_puts`."""
    size = sum([call.size for call in calls])
    return size >= LARGE_BYTES_MIN and size >= count * ROW_BYTES_MIN


def large_puts(calls: Sequence[Call]) -> Sequence[bytes]:
    """Return the pieces of a serialized batch whose one operation are these calls. No value is copied."""
    operation = [kv_pb2.PutManyOperation(keys=keys_of(calls)).SerializeToString()]
    for value in _of_all(calls, _VALUE, _VALUES):
        operation += (_VALUES_TAG, varint(len(value)), value)
    size = sum(map(len, operation))
    length = varint(size)
    around = varint(len(_PUT_MANY) + len(length) + size)
    return (_OPERATIONS, around, _PUT_MANY, length, *operation)


def keys_of(calls: Sequence[Call]) -> list[bytes]:
    """Return the keys of all calls, in order, again for each time."""
    return _of_all(calls, _KEY, _KEYS)


def _of_all(
    calls: Sequence[Call], one: Callable[[Call], bytes], several: Callable[[Call], Sequence[bytes]]
) -> list[bytes]:
    """Return `one` of each call, where they are bare, else all that `several` says of them. `map`: the hot path."""
    if bare_kind(calls) is not None:
        return [*map(one, calls)]
    return [*chain.from_iterable(map(several, calls))]


_KEY: Final[Callable[[Call], bytes]] = attrgetter("key")
_KEYS: Final[Callable[[Call], Sequence[bytes]]] = attrgetter("keys")
_VALUE: Final[Callable[[Call], bytes]] = attrgetter("value")
_VALUES: Final[Callable[[Call], Sequence[bytes]]] = attrgetter("values")


def items_of(calls: Sequence[Call], many: kv_pb2.GetManyResult, proof: Evidence) -> list[Item | None]:
    """Return what was found for each key, as far as the answer goes; each with its own evidence."""
    partition, map_epoch, term, index, node, level, _, age_ms = proof
    revisions = many.mod_revisions[:]
    # Rows that were written together share their evidence: what is made for each row costs twice, the second time when
    # the collector looks at it. And no Python for each row: `zip` and `map` put the columns together.
    proofs = {
        revision: _new(Evidence, (partition, map_epoch, term, index, node, level, revision, age_ms))
        for revision in set(revisions)
    }
    columns = (many.values[:], many.create_revisions[:], revisions, many.versions[:])
    fields = zip(keys_of(calls), *columns, map(proofs.__getitem__, revisions), strict=False)
    items = map(_new, repeat(Item), fields)
    return [item if item.mod_revision else None for item in items] if 0 in proofs else [*items]


def replies_of(revision: int, versions: Sequence[int], proof: Evidence) -> list[PutReply]:
    """Return the replies to puts; equal ones are one object, as above."""
    replies = {version: _new(PutReply, (revision, version, proof, None)) for version in set(versions)}
    return [*map(replies.__getitem__, versions)]
