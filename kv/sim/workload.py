"""What the simulated clients do.

Unique writes, conditional writes, deletes, counters, lists, transactions, batches, reads and scans at every
level, and questions for the outcome of writes. Here live the choice of operations and the comparison of each answer by `kv.sim.promises`. Each client is a
production `AsyncClient` on a host of its own, with the retries that it has in production. Every value is
written by one request only, so that a value tells which request wrote it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from kv.client import AsyncClient
from kv.client.levels import Level
from kv.client.types import (
    Compare,
    Delete,
    DeleteReply,
    Get,
    Increment,
    Item,
    Op,
    OutcomeState,
    Put,
    PutReply,
    ReadLevel,
    Txn,
    TxnReply,
)
from kv.errors import Conflict, KVError
from kv.sim.promises import Begun, Promises

TAGS: Final = 12
"""Hash tags over all partitions; each has a few keys, so that requests contend and can be in one transaction."""
MAX_AGES_MS: Final = (20, 200, 2000)
"""Of BOUNDED reads."""
PREFERENCES: Final = ("leader", "leader", "nearest", "least-loaded", "local")
OUTCOME_PAUSE_S: Final = 4.0
"""Up to so long after a write of unknown outcome its client asks what became of it."""
TIMEOUTS_S: Final = (0.5, 2.0, 5.0, 10.0)
VALUE_BYTES: Final = (12, 12, 12, 200, 3000)


@dataclass(frozen=True, slots=True)
class Pace:
    """How much the clients ask for."""

    think_mean_s: float = 2.0
    """Mean pause of one task between two operations."""
    tasks: int = 2
    """Concurrent tasks of each client: their calls travel together."""


def keys_of(tag: int) -> tuple[bytes, bytes]:
    """The two keys of a hash tag that are written as a whole."""
    return b"{t%d}a" % tag, b"{t%d}b" % tag


def counter_of(tag: int) -> bytes:
    """The key of a hash tag that is only incremented."""
    return b"{t%d}n" % tag


def list_of(tag: int) -> bytes:
    """The key of a hash tag that is only appended to, and deleted."""
    return b"{t%d}l" % tag


class Worker:
    """One task of one client."""

    def __init__(
        self,
        name: str,
        client: AsyncClient,
        promises: Promises,
        rng: Random,
        pace: Pace,
        *,
        leases: bool = False,
        scale: float = 1.0,
    ) -> None:
        """`leases`: the clocks allow LEASE reads; `scale`: of all times but those of the disk and the network."""
        self.name, self._client, self._promises, self._rng, self._pace = name, client, promises, rng, pace
        self._levels = tuple(level for level in ReadLevel if leases or level is not ReadLevel.LEASE)
        self._scale = scale
        self._made = 0
        self._seen: dict[bytes, bytes | None] = {}
        self._kinds: tuple[tuple[Callable[[], Awaitable[None]], int], ...] = (
            (self._put, 6),
            (self._get, 5),
            (self._get_at_some_level, 5),
            (self._increment, 2),
            (self._append, 2),
            (self._compare_and_set, 3),
            (self._delete, 1),
            (self._txn, 2),
            (self._nested_txn, 1),
            (self._batch, 2),
            (self._scan, 1),
        )
        self._weights = [weight for _, weight in self._kinds]

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._pace.think_mean_s))
            ((kind, _),) = self._rng.choices(self._kinds, self._weights)
            await kind()

    # ------------------------------------------------------------ choices

    def _value(self) -> bytes:
        self._made += 1
        value = b"%s-%d" % (self.name.encode(), self._made)
        return value.ljust(self._rng.choice(VALUE_BYTES), b".")

    def _piece(self) -> bytes:
        self._made += 1
        return b"%s-%d," % (self.name.encode(), self._made)

    def _keys(self) -> tuple[bytes, bytes]:
        return keys_of(self._rng.randrange(TAGS))

    def _key(self) -> bytes:
        return self._rng.choice(self._keys())

    def _timeout(self) -> float:
        return self._rng.choice(TIMEOUTS_S)

    # ------------------------------------------------------------ operations

    async def _put(self) -> None:
        key, value = self._key(), self._value()
        write_level = "all" if self._rng.random() < 0.1 else "quorum"
        begun = self._promises.begin(self.name)
        try:
            reply = await self._client.put(key, value, timeout=self._timeout(), write_level=write_level)
        except KVError as error:
            await self._failed(begun, [value], error)
            return
        self._seen[key] = value
        self._promises.wrote(begun, key, value, reply.revision, reply.version, reply.evidence)
        if write_level == "all":
            self._promises.on_all(begun, reply.evidence)

    async def _failed(
        self, begun: Begun, values: list[bytes], error: KVError, *, one_branch: bool = False
    ) -> None:
        """A write failed. Where nobody knows what became of it, some ask, now or later.

        `one_branch`: of `values` a transaction writes one branch, or nothing.
        """
        if error.applied:
            self._promises.stands(begun, [] if one_branch else values, error)
            return
        self._promises.failed(begun, values, error)
        if error.token is None or self._rng.random() < 0.3:
            return
        await asyncio.sleep(self._rng.uniform(0, OUTCOME_PAUSE_S) * self._scale)
        try:
            outcome = await self._client.outcome(error.token, timeout=self._timeout())
        except KVError:
            return
        kept = bool(outcome.results)
        if outcome.state is OutcomeState.NOT_APPLIED or (outcome.state is OutcomeState.APPLIED and kept):
            # What was applied may have been refused by its condition: its result says so.
            refused = any(isinstance(result, KVError) for result in outcome.results)
            applied = outcome.state is OutcomeState.APPLIED and not refused
            self._promises.decided(begun, [] if applied and one_branch else values, applied)

    async def _get(self) -> None:
        await self._read(ReadLevel.LINEARIZABLE)

    async def _get_at_some_level(self) -> None:
        await self._read(self._rng.choice(self._levels))

    async def _read(self, kind: ReadLevel) -> None:
        max_age_ms = self._rng.choice(MAX_AGES_MS) if kind is ReadLevel.BOUNDED else 0
        tag = self._rng.randrange(TAGS)
        key = self._rng.choice((*keys_of(tag), *keys_of(tag), counter_of(tag), list_of(tag)))
        prefer = self._rng.choice(PREFERENCES)
        begun = self._promises.begin(self.name)
        try:
            found = await self._client.read(
                key, level=Level(kind, max_age_ms=max_age_ms), prefer=prefer, timeout=self._timeout()
            )
        except KVError:
            return
        if kind is ReadLevel.LINEARIZABLE:
            self._seen[key] = None if found.item is None else found.item.value
        self._promises.read(begun, key, found.item, kind, found.evidence, max_age_ms / 1000)

    async def _increment(self) -> None:
        key = counter_of(self._rng.randrange(TAGS))
        begun = self._promises.begin(self.name)
        try:
            reply = await self._client.increment(key, self._rng.randint(-3, 5), timeout=self._timeout())
        except KVError as error:
            self._promises.failed(begun, [], error)
            return
        self._promises.incremented(begun, key, reply.value, reply.revision, reply.version, reply.evidence)

    async def _append(self) -> None:
        key, piece = list_of(self._rng.randrange(TAGS)), self._piece()
        begun = self._promises.begin(self.name)
        try:
            reply = await self._client.append(key, piece, timeout=self._timeout())
        except KVError as error:
            await self._failed(begun, [piece], error)
            return
        self._promises.appended(begun, key, piece, reply.revision, reply.version, reply.evidence)

    async def _compare_and_set(self) -> None:
        key, value = self._key(), self._value()
        expected = self._seen.get(key)
        begun = self._promises.begin(self.name)
        try:
            reply = await self._client.compare_and_set(key, expected, value, timeout=self._timeout())
        except Conflict as error:
            self._seen.pop(key, None)
            self._promises.conflicted(begun, key, [value], error, expected)
            return
        except KVError as error:
            await self._failed(begun, [value], error)
            return
        self._seen[key] = value
        self._promises.wrote(begun, key, value, reply.revision, reply.version, reply.evidence)

    async def _delete(self) -> None:
        tag = self._rng.randrange(TAGS)
        key = self._rng.choice((*keys_of(tag), list_of(tag)))
        begun = self._promises.begin(self.name)
        try:
            reply = await self._client.delete(key, timeout=self._timeout())
        except KVError as error:
            self._promises.failed(begun, [], error)
            return
        self._seen[key] = None
        self._promises.deleted(begun, key, reply.deleted, reply.revision, reply.evidence)

    async def _txn(self) -> None:
        """Moves on two keys of a tag if the first is as it was seen, else writes the second only."""
        one, other = self._keys()
        values = [self._value() for _ in range(3)]
        expected = self._seen.get(one)
        compare = Compare(one, exists=False) if expected is None else Compare(one, value=expected)
        begun = self._promises.begin(self.name)
        try:
            reply = await self._client.txn(
                [compare],
                [Get(one), Put(one, values[0]), Put(other, values[1])],
                [Get(one), Put(other, values[2])],
                timeout=self._timeout(),
            )
        except KVError as error:
            await self._failed(begun, values, error, one_branch=True)
            return
        self._seen.pop(one, None)
        self._check_txn(begun, one, other, values, reply)

    def _check_txn(
        self, begun: Begun, one: bytes, other: bytes, values: list[bytes], reply: TxnReply
    ) -> None:
        written = ((one, values[0]), (other, values[1])) if reply.succeeded else ((other, values[2]),)
        for key, value in written:
            self._promises.wrote_in_txn(begun, key, value, reply.revision, reply.evidence)
        read = reply.results[0]
        assert read is None or isinstance(read, Item)
        self._promises.read_in_txn(begun, one, read, reply.revision, reply.evidence)

    async def _nested_txn(self) -> None:
        """Counts, and in one of two inner branches writes; nothing of it stands alone."""
        tag = self._rng.randrange(TAGS)
        (one, other), values = keys_of(tag), [self._value() for _ in range(2)]
        inner = Txn([Compare(one, exists=True)], [Put(one, values[0])], [Put(other, values[1])])
        begun = self._promises.begin(self.name)
        try:
            reply = await self._client.txn(
                [], [Increment(counter_of(tag), 1), inner], timeout=self._timeout()
            )
        except KVError as error:
            await self._failed(begun, values, error, one_branch=True)
            return
        done = reply.results[1]
        assert isinstance(done, TxnReply)
        key, value = (one, values[0]) if done.succeeded else (other, values[1])
        self._seen.pop(key, None)
        self._promises.wrote_in_txn(begun, key, value, reply.revision, reply.evidence)

    async def _scan(self) -> None:
        prefix = self._rng.choice((b"", b"{t", b"{t1"))
        level = self._rng.choice((ReadLevel.LINEARIZABLE, ReadLevel.LINEARIZABLE, ReadLevel.STALE))
        begun = self._promises.begin(self.name)
        try:
            items = [item async for item in self._client.scan(prefix, level=level, timeout=self._timeout())]
        except KVError:
            return
        self._promises.scanned(begun, prefix, items, level)

    async def _batch(self) -> None:
        """Writes and reads several keys in one call; each part stands alone."""
        keys = [self._key() for _ in range(self._rng.randint(2, 6))]
        ops: list[Op] = [self._batch_op(key) for key in keys]
        begun = self._promises.begin(self.name)
        try:
            results = await self._client.batch(ops, timeout=self._timeout())
        except KVError as error:
            self._promises.failed(begun, [op.value for op in ops if isinstance(op, Put)], error)
            return
        for op, result in zip(ops, results, strict=True):
            if isinstance(op, Put) and isinstance(result, PutReply):
                self._promises.wrote(
                    begun, op.key, op.value, result.revision, result.version, result.evidence
                )
            elif isinstance(op, Delete) and isinstance(result, DeleteReply):
                self._promises.deleted(begun, op.key, result.deleted, result.revision, result.evidence)
            elif isinstance(op, Put) and isinstance(result, KVError):
                self._promises.failed(begun, [op.value], result)

    def _batch_op(self, key: bytes) -> Op:
        draw = self._rng.random()
        if draw < 0.6:
            return Put(key, self._value())
        return Get(key) if draw < 0.9 else Delete(key)
