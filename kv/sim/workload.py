"""What the simulated clients do: unique writes, conditional writes, deletes, transactions, batches, reads.

Here live the choice of operations and the comparison of each answer by `kv.sim.promises`. Each client is a
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
from kv.client.types import (
    Compare,
    Delete,
    DeleteReply,
    Get,
    Item,
    Op,
    Put,
    PutReply,
    ReadLevel,
    TxnReply,
)
from kv.errors import Conflict, KVError
from kv.sim.promises import Begun, Promises

TAGS: Final = 12
"""Hash tags over all partitions; each has two keys, so that requests contend and can be in one transaction."""
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
    """The two keys of a hash tag."""
    return b"{t%d}a" % tag, b"{t%d}b" % tag


class Worker:
    """One task of one client."""

    def __init__(self, name: str, client: AsyncClient, promises: Promises, rng: Random, pace: Pace) -> None:
        self.name, self._client, self._promises, self._rng, self._pace = name, client, promises, rng, pace
        self._made = 0
        self._seen: dict[bytes, bytes | None] = {}
        self._kinds: tuple[tuple[Callable[[], Awaitable[None]], int], ...] = (
            (self._put, 6),
            (self._get, 6),
            (self._stale_get, 2),
            (self._compare_and_set, 3),
            (self._delete, 1),
            (self._txn, 2),
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

    def _keys(self) -> tuple[bytes, bytes]:
        return keys_of(self._rng.randrange(TAGS))

    def _key(self) -> bytes:
        return self._rng.choice(self._keys())

    def _timeout(self) -> float:
        return self._rng.choice(TIMEOUTS_S)

    # ------------------------------------------------------------ operations

    async def _put(self) -> None:
        key, value = self._key(), self._value()
        begun = self._promises.begin(self.name)
        try:
            reply = await self._client.put(key, value, timeout=self._timeout())
        except KVError as error:
            self._promises.failed(begun, [value], error)
            return
        self._seen[key] = value
        self._promises.wrote(begun, key, value, reply.revision, reply.version, reply.evidence)

    async def _get(self) -> None:
        await self._read(ReadLevel.LINEARIZABLE)

    async def _stale_get(self) -> None:
        await self._read(ReadLevel.STALE)

    async def _read(self, level: ReadLevel) -> None:
        key = self._key()
        begun = self._promises.begin(self.name)
        try:
            item = await self._client.get(key, level=level, timeout=self._timeout())
        except KVError:
            return
        if level is ReadLevel.LINEARIZABLE:
            self._seen[key] = None if item is None else item.value
        self._promises.read(begun, key, item, level)

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
            self._promises.failed(begun, [value], error)
            return
        self._seen[key] = value
        self._promises.wrote(begun, key, value, reply.revision, reply.version, reply.evidence)

    async def _delete(self) -> None:
        key = self._key()
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
            self._promises.failed(begun, values, error)
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

    async def _scan(self) -> None:
        prefix = self._rng.choice((b"", b"{t", b"{t1"))
        begun = self._promises.begin(self.name)
        try:
            items = [item async for item in self._client.scan(prefix, timeout=self._timeout())]
        except KVError:
            return
        self._promises.scanned(begun, prefix, items)

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
