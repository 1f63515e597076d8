"""What goes into the client and what comes out: operations, replies, evidence.

Values only, all frozen; how they look on the wire is in `kv.client.calls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from kv.errors import InvalidArgument, KVError


class ReadLevel(IntEnum):
    """What a read promises; the numbers are those of `kv.v1.ReadLevel`."""

    LINEARIZABLE = 1
    """Sees every write that was acknowledged before the read began (Raft dissertation, section 6.4)."""
    STALE = 2
    """Whatever the replica that answers has applied; works without a leader."""


def read_level(value: ReadLevel | str) -> ReadLevel:
    """Return the level called `value` (any case); raise `InvalidArgument` if there is none."""
    if isinstance(value, ReadLevel):
        return value
    try:
        return ReadLevel[value.upper()]
    except KeyError:
        names = ", ".join(level.name.lower() for level in ReadLevel)
        raise InvalidArgument(f"there is no read level {value!r}: give one of {names}") from None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Who served a request, and at which point of the partition's log."""

    partition: int
    map_epoch: int
    """Epoch of the cluster map by which the request was routed."""
    term: int
    """Raft term of the replica that served."""
    index: int
    """For a write the log index of its entry, for a read the applied index at which it was served."""
    node: str
    level: ReadLevel | None
    """The level that was honoured; None for a write."""


class Item(NamedTuple):
    """A key as it was found."""

    key: bytes
    value: bytes
    """Empty if only keys were asked for."""
    create_revision: int
    """Log index of the write that created the key."""
    mod_revision: int
    """Log index of the last write of the key."""
    version: int
    """Number of writes since the creation, from 1."""
    evidence: Evidence | None = None
    """None inside of a scan's page that several partitions fed."""


class PutReply(NamedTuple):
    """A put that was applied."""

    revision: int
    """The key's mod_revision after the write."""
    version: int
    evidence: Evidence


class DeleteReply(NamedTuple):
    """A delete that was applied."""

    deleted: bool
    """Whether the key existed."""
    revision: int
    evidence: Evidence


class TxnReply(NamedTuple):
    """A transaction that was applied."""

    succeeded: bool
    """Whether every compare held."""
    revision: int
    results: tuple[Result, ...]
    """One for each operation of the list that was applied."""
    evidence: Evidence


Result: TypeAlias = Item | PutReply | DeleteReply | KVError | None
"""Of one operation in a batch or a transaction: None is a get of a key that does not exist."""


@dataclass(frozen=True, slots=True)
class Get:
    """Reads one key; its result is an `Item` or None."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Writes one key, if the condition holds. At most one condition may be given."""

    key: bytes
    value: bytes
    if_absent: bool = False
    if_present: bool = False
    if_revision: int | None = None
    if_value: bytes | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes one key, if the condition holds. At most one condition may be given."""

    key: bytes
    if_present: bool = False
    if_revision: int | None = None
    if_value: bytes | None = None


Op: TypeAlias = Get | Put | Delete
Ops: TypeAlias = Sequence[Op]


class Relation(IntEnum):
    """How what a key has relates to what a `Compare` names; the numbers are those of `kv.v1.Comparator`."""

    EQUAL = 1
    NOT_EQUAL = 2
    LESS = 3
    GREATER = 4


@dataclass(frozen=True, slots=True)
class Compare:
    """Tests one key: exactly one of the five targets must be given.

    A missing key has revision 0, version 0, exists False and no value; each comparison of a value
    that is not there is false, except NOT_EQUAL.
    """

    key: bytes
    relation: Relation = Relation.EQUAL
    value: bytes | None = None
    mod_revision: int | None = None
    create_revision: int | None = None
    version: int | None = None
    exists: bool | None = None
