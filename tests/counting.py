"""A workload that counts: increments and appends whose sum is known, with every unknown outcome asked for.

For the simulator and for real processes alike. What must come out is known from the answers alone, without the log: each acknowledged operation once, each one
whose outcome is told to be applied once, and no other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from kv.client import AsyncClient
from kv.client.types import OutcomeState
from kv.errors import KVError

KEYS = 4
"""Counters, and as many lists."""
TIMEOUTS_S = (0.3, 1.0, 3.0, 8.0)


@dataclass(slots=True)
class Books:
    """What all workers were told."""

    operations: int = 0
    acknowledged: int = 0
    refused: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    """Answers of outcome queries."""
    sums: Counter[bytes] = field(default_factory=Counter)
    """By counter: the increments that happened."""
    pieces: dict[bytes, list[bytes]] = field(default_factory=dict)
    """By list: the pieces that happened, each worker's in its order."""
    stopping: bool = False
    working: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Every worker has ended."""
    open: list[tuple[bytes, bytes | None, str]] = field(default_factory=list)
    """Key, piece (None: an increment) and token of what has no outcome yet."""

    def happened(self, key: bytes, piece: bytes | None) -> None:
        """Count one operation that was applied."""
        if piece is None:
            self.sums[key] += 1
        else:
            self.pieces.setdefault(key, []).append(piece)


class CountingWorker:
    """One task: one operation after the other, each by one."""

    def __init__(
        self, name: str, client: AsyncClient, books: Books, rng: Random, think_mean_s: float
    ) -> None:
        self._name, self._client, self._books, self._rng = name, client, books, rng
        self._think_mean_s = think_mean_s
        self._made = 0

    async def run(self) -> None:
        """Work until the books are closed: no operation is left without its end."""
        self._books.working += 1
        while not self._books.stopping:
            await asyncio.sleep(self._rng.expovariate(1 / self._think_mean_s))
            await self._operation()
            if self._books.open and self._rng.random() < 0.2:
                await ask(self._client, self._books, self._rng.randrange(len(self._books.open)))
        self._books.working -= 1
        if not self._books.working:
            self._books.idle.set()

    async def _operation(self) -> None:
        number, counts = self._rng.randrange(KEYS), self._rng.random() < 0.5
        key = b"{c%d}%s" % (number, b"n" if counts else b"l")
        self._made += 1
        piece = None if counts else b"%s.%d," % (self._name.encode(), self._made)
        timeout = self._rng.choice(TIMEOUTS_S)
        self._books.operations += 1
        try:
            if piece is None:
                await self._client.increment(key, 1, timeout=timeout)
            else:
                await self._client.append(key, piece, timeout=timeout)
        except KVError as error:
            self._failed(key, piece, error)
        else:
            self._books.acknowledged += 1
            self._books.happened(key, piece)

    def _failed(self, key: bytes, piece: bytes | None, error: KVError) -> None:
        if error.definite:
            self._books.refused += 1
            return
        assert error.token is not None, f"a write of unknown outcome can be asked for: {error!r}"
        self._books.open.append((key, piece, error.token))


async def ask(client: AsyncClient, books: Books, number: int) -> bool:
    """Ask for the outcome of one open operation; return whether it was told."""
    key, piece, token = books.open.pop(number)
    try:
        outcome = await client.outcome(token, timeout=5)
    except KVError:
        books.open.append((key, piece, token))
        return False
    books.asked[outcome.state.name] += 1
    assert outcome.state is not OutcomeState.UNKNOWN, f"no session expires in this run: {token}"
    if outcome.state is OutcomeState.APPLIED:
        books.happened(key, piece)
    return True


async def settle(client: AsyncClient, books: Books) -> None:
    """Ask for everything that is still open, and compare what is there with what was told."""
    while books.open:
        if not await ask(client, books, 0):
            await asyncio.sleep(0.5)
    for number in range(KEYS):
        counter, whole = b"{c%d}n" % number, b"{c%d}l" % number
        item = await client.get(counter, timeout=20)
        assert int(item.value if item else b"0") == books.sums[counter], f"{counter!r} was counted wrongly"
        listed = await client.get(whole, timeout=20)
        found = [piece + b"," for piece in (listed.value if listed else b"").split(b",")[:-1]]
        told = books.pieces.get(whole, [])
        assert sorted(found) == sorted(told), f"{whole!r} has other pieces than were told"
        assert len(set(found)) == len(found), f"{whole!r} has a piece twice"
