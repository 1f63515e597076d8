"""What goes into the client and what comes out: operations, replies, evidence.

Values only, all frozen; how they look on the wire is in `kv.client.calls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from kv.errors import KVError


class ReadLevel(IntEnum):
    """What a read promises; the numbers are those of `kv.v1.ReadLevel`."""

    LINEARIZABLE = 1
    """Sees every write that was acknowledged before the read began (Raft dissertation, section 6.4)."""
    STALE = 2
    """Whatever the replica that answers has applied; works without a leader."""
    LEASE = 3
    """As LINEARIZABLE while clocks drift less than configured, without a round (section 6.4.1)."""
    SESSION = 4
    """Sees what this client has seen, its own writes among it (Terry et al., PDIS 1994)."""
    BOUNDED = 5
    """Sees every write that was acknowledged so long before the read began; needs an age: see `Level`."""
    QUORUM = 6
    """The newest of what several replicas have. Not linearizable."""
    ALL = 7
    """The newest of what all replicas have. Not linearizable."""


class WriteLevel(IntEnum):
    """When a write is acknowledged; the numbers are those of `kv.v1.WriteLevel`."""

    QUORUM = 1
    """A majority of the replicas has it on disk."""
    ALL = 2
    """Every replica has it on disk; else `NotOnAllReplicas`, and the write stands."""


class Evidence(NamedTuple):
    """Who served a request, and at which point of the partition's log.

    A tuple, as the replies are, because one is made for each read.
    """

    partition: int
    map_epoch: int
    """Epoch of the cluster map by which the request was routed."""
    term: int
    """Raft term of the replica that served."""
    index: int  # type: ignore[assignment]  # it hides tuple.index, which nobody misses
    """For a write the log index of the entry that answered it, its own or that of a repetition (its reply's
    revision tells where it was applied); for a read the applied index at which it was served."""
    node: str
    level: ReadLevel | None
    """The level that was honoured; None for a write."""
    revision: int = 0
    """For a write its revision, for a read the highest mod_revision among what it found; 0: nothing found."""
    age_ms: int | None = None
    """For levels that may be old: every write that was acknowledged so many milliseconds before the answer
    is in it. None where it is not known, and for the levels that are never old."""


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
    """None in a scan, whose pages have their own: `ScanPage.evidence`."""


class Reading(NamedTuple):
    """A read of one key, with its evidence also where there is no such key."""

    item: Item | None
    evidence: Evidence
    answers: tuple[Evidence, ...] = ()
    """QUORUM and ALL: what each replica that was asked said, the chosen one first."""


class ScanPage(list[Item]):
    """The items of one page of a scan."""

    evidence: tuple[Evidence, ...] = ()
    """Of the reads that fed the page: one for each partition."""


class PutReply(NamedTuple):
    """A put that was applied."""

    revision: int
    """The key's mod_revision after the write."""
    version: int
    evidence: Evidence
    previous: Item | None = None
    """What the key held before, if that was asked for and if it existed."""


class DeleteReply(NamedTuple):
    """A delete that was applied."""

    deleted: bool
    """Whether the key existed."""
    revision: int
    evidence: Evidence
    previous: Item | None = None
    """What the key held before, if that was asked for and if it existed."""


class IncrementReply(NamedTuple):
    """An increment that was applied."""

    value: int
    """After the increment."""
    revision: int
    version: int
    evidence: Evidence


class AppendReply(NamedTuple):
    """An append that was applied."""

    length: int
    """Bytes of the value after the append."""
    revision: int
    version: int
    evidence: Evidence


class TxnReply(NamedTuple):
    """A transaction that was applied."""

    succeeded: bool
    """Whether every compare held."""
    revision: int
    results: tuple[Result, ...]
    """One for each operation of the list that was applied."""
    evidence: Evidence


Result: TypeAlias = Item | PutReply | DeleteReply | IncrementReply | AppendReply | TxnReply | KVError | None
"""Of one operation in a batch or a transaction: None is a get of a key that does not exist."""


class OutcomeState(IntEnum):
    """What became of a write; the numbers are those of `kv.v1.WriteOutcome`."""

    APPLIED = 1
    """It was applied, once."""
    NOT_APPLIED = 2
    """It was not applied and never will be."""
    UNKNOWN = 3
    """The partition does not remember it: its session expired, or has acknowledged it."""


class Outcome(NamedTuple):
    """What became of a write that had no answer."""

    state: OutcomeState
    results: tuple[Result, ...]
    """Of the operations that the token names, if it was applied and they are still kept; else empty."""
    evidence: Evidence


class Get(NamedTuple):
    """Reads one key; its result is an `Item` or None. A tuple, as `Put` is: loads make millions of these."""

    key: bytes


class Put(NamedTuple):
    """Writes one key, if the condition holds. At most one condition may be given."""

    key: bytes
    value: bytes
    if_absent: bool = False
    if_present: bool = False
    if_revision: int | None = None
    if_value: bytes | None = None
    return_previous: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes one key, if the condition holds. At most one condition may be given."""

    key: bytes
    if_present: bool = False
    if_revision: int | None = None
    if_value: bytes | None = None
    return_previous: bool = False
    if_absent: bool = False


@dataclass(frozen=True, slots=True)
class Increment:
    """Adds to the signed 64-bit integer that a key holds as decimal text; a missing key counts as 0."""

    key: bytes
    delta: int = 1
    if_absent: bool = False
    if_present: bool = False
    if_revision: int | None = None
    if_value: bytes | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """Adds bytes to the end of a key's value; a missing key counts as empty."""

    key: bytes
    value: bytes
    if_absent: bool = False
    if_present: bool = False
    if_revision: int | None = None
    if_value: bytes | None = None


Op: TypeAlias = Get | Put | Delete | Increment | Append
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


@dataclass(frozen=True, slots=True)
class Txn:
    """A transaction inside a transaction: one deep, in the same partition; its result is a `TxnReply`."""

    compare: Sequence[Compare] = ()
    then: Ops = ()
    orelse: Ops = ()


TxnOp: TypeAlias = Op | Txn
"""What the lists of a transaction hold: operations without conditions, and transactions that hold no further ones."""
