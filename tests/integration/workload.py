"""Load with a record of its own: what each operation was told, and what must therefore be found in the end.

Each worker writes values that nobody else writes and notes how each operation ended: acknowledged, refused
for certain, or unknown. `Record.violations` compares these notes with what the cluster holds. Nothing here
knows how the cluster works: it believes answers only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from random import Random
from typing import Final, TypeAlias

from kv.client import AsyncClient, Item, Put
from kv.config import KIB
from kv.errors import KVError
from kv.v1 import kv_pb2, kv_pb2_grpc
from tests.integration import support

Worker: TypeAlias = Callable[[AsyncClient, int, float], Awaitable[None]]

REFUSED_PAUSE_S: Final = 0.05


class Fate(Enum):
    """What an operation was told."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """Definitely not applied."""
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Record:
    """What every operation was told, by what it left behind."""

    puts: dict[bytes, tuple[bytes, Fate]] = field(default_factory=dict)
    """Key that is written once: its value and the fate of the put."""
    deletes: dict[bytes, Fate] = field(default_factory=dict)
    """Key that was written and acknowledged: the fate of its delete, REFUSED if it was only tried wrongly."""
    never: set[bytes] = field(default_factory=set)
    """Values of writes that were refused: nobody may ever see them."""
    registers: dict[bytes, dict[bytes, Fate]] = field(default_factory=dict)
    """Key with one writer: its values in the order of writing, each with its fate."""
    lists: dict[bytes, dict[bytes, Fate]] = field(default_factory=dict)
    """Key whose value is a list of tokens, appended by compare-and-set: the fate of each token."""
    pairs: dict[bytes, dict[bytes, Fate]] = field(default_factory=dict)
    """Hash tag of two keys that transactions set to one token: the fate of each token."""
    unexpected: list[str] = field(default_factory=list)
    """What was wrong while the load ran."""

    def count(self, fate: Fate) -> int:
        """Return how many operations had this fate."""
        tables = (*self.registers.values(), *self.lists.values(), *self.pairs.values())
        return (
            sum(one is fate for _, one in self.puts.values())
            + sum(one is fate for one in self.deletes.values())
            + sum(one is fate for table in tables for one in table.values())
        )

    def violations(self, content: Mapping[bytes, Item]) -> list[str]:
        """Return each promise that `content` (everything the cluster holds) breaks."""
        return [
            *self.unexpected,
            *self._wrong_puts(content),
            *self._wrong_registers(content),
            *self._wrong_lists(content),
            *self._wrong_pairs(content),
            *(f"{item.key!r} holds a refused write" for item in content.values() if item.value in self.never),
        ]

    def _wrong_puts(self, content: Mapping[bytes, Item]) -> list[str]:
        wrong = []
        for key, (value, fate) in self.puts.items():
            item, deleted = content.get(key), self.deletes.get(key, Fate.REFUSED)
            may_be_there = fate is not Fate.REFUSED and deleted is not Fate.ACKNOWLEDGED
            may_be_gone = fate is not Fate.ACKNOWLEDGED or deleted is not Fate.REFUSED
            # A put that was applied twice shows: the second makes version 2, or brings a deleted key back.
            right = (
                may_be_gone if item is None else may_be_there and item.value == value and item.version == 1
            )
            if not right:
                wrong.append(f"{key!r}: put {fate.value}, delete {deleted.value}, found {item}")
        return wrong

    def _wrong_registers(self, content: Mapping[bytes, Item]) -> list[str]:
        wrong = []
        for key, writes in self.registers.items():
            item, fates = content.get(key), list(writes.values())
            value, version = (None, 0) if item is None else (item.value, item.version)
            if value not in allowed_values(writes):
                wrong.append(f"register {key!r} holds {value!r}, allowed: {allowed_values(writes)}")
            least = fates.count(Fate.ACKNOWLEDGED)
            if not least <= version <= least + fates.count(Fate.UNKNOWN):
                wrong.append(f"register {key!r} was written {version} times, acknowledged {least}")
        return wrong

    def _wrong_lists(self, content: Mapping[bytes, Item]) -> list[str]:
        wrong = []
        for key, tokens in self.lists.items():
            number, *held = content[key].value.split() if key in content else [b"0"]
            if int(number) != len(held):
                wrong.append(f"{key!r} counts {int(number)} and holds {len(held)}")
            wrong += [f"{key!r} holds {token!r} twice" for token in set(held) if held.count(token) > 1]
            wrong += [f"{key!r} holds {token!r}, which nobody sent" for token in set(held) - set(tokens)]
            lost = {token for token, fate in tokens.items() if fate is Fate.ACKNOWLEDGED} - set(held)
            wrong += [f"{key!r} lost the acknowledged {token!r}" for token in lost]
            refused = {token for token, fate in tokens.items() if fate is Fate.REFUSED} & set(held)
            wrong += [f"{key!r} holds the refused {token!r}" for token in refused]
        return wrong

    def _wrong_pairs(self, content: Mapping[bytes, Item]) -> list[str]:
        wrong = []
        for tag, writes in self.pairs.items():
            sides = [content.get(tag + side) for side in (b"/left", b"/right")]
            left, right = (None if item is None else item.value for item in sides)
            if left != right:
                wrong.append(f"pair {tag!r} was torn: {left!r} and {right!r}")
            if left not in allowed_values(writes):
                wrong.append(f"pair {tag!r} holds {left!r}, allowed: {allowed_values(writes)}")
        return wrong


def allowed_values(writes: Mapping[bytes, Fate]) -> set[bytes | None]:
    """Return what a key with one writer may hold: the last acknowledged value or any of unknown fate.

    An unknown one counts even if it is older: it may have been applied late, until the cluster forgot it.
    """
    allowed: set[bytes | None] = {value for value, fate in writes.items() if fate is Fate.UNKNOWN}
    acknowledged = [value for value, fate in writes.items() if fate is Fate.ACKNOWLEDGED]
    allowed.add(acknowledged[-1] if acknowledged else None)
    return allowed


def large_value(token: bytes) -> bytes:
    """Return what a token stands for: 256 KiB to 1 MiB of it, of any length in between."""
    length = 256 * KIB + int(token) * 37_117 % (768 * KIB)
    return (token + b" ") * (length // (len(token) + 1))


def without_large_values(content: Mapping[bytes, Item]) -> dict[bytes, Item]:
    """Return what is held with tokens for large values; one that is not whole stays as it is, and is no token."""
    small = dict(content)
    for key, item in content.items():
        token = item.value[:20].split(b" ")[0]
        if token.isdigit() and item.value == large_value(token):
            small[key] = item._replace(value=token)
    return small


class Load:
    """Workers of several kinds that write until they are told to stop."""

    def __init__(
        self,
        record: Record,
        rng: Random,
        clients: Sequence[AsyncClient],
        stubs: Sequence[kv_pb2_grpc.KVServiceAsyncStub],
        timeouts_s: Sequence[float] = (0.4, 15.0),
    ) -> None:
        """Write through `clients`, and through the bare `stubs`, whose nodes' routers then retry for them.

        Each worker keeps one of `timeouts_s`: a short one leaves operations unknown when nodes die, a long
        one makes the client carry its retries over a restart.
        """
        self.record = record
        self.acknowledged = 0
        self._rng = rng
        self._clients = clients
        self._stubs = stubs
        self._timeouts_s = timeouts_s
        self._stopping = False
        self._progress = asyncio.Event()
        self._numbers = count()

    def stop(self) -> None:
        """Let each worker end after the operation that it is in."""
        self._stopping = True

    async def run(self, each: int) -> None:
        """Run `each` workers of every kind until `stop` is called."""
        kinds = (self._put, self._routed_put, self._register, self._list_by_value, self._counter, self._pair)
        await self._run(each, kinds)

    async def run_large(self, each: int) -> None:
        """Run `each` workers that write large values until `stop` is called."""
        await self._run(each, [self._large])

    async def _run(self, each: int, kinds: Sequence[Worker]) -> None:
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                for number in range(each):
                    timeout_s = self._timeouts_s[number % len(self._timeouts_s)]
                    group.create_task(self._work(kind, number, timeout_s))

    async def progress(self, operations: int) -> None:
        """Wait until so many more operations were acknowledged."""
        goal = self.acknowledged + operations
        while self.acknowledged < goal:
            self._progress.clear()
            await self._progress.wait()

    async def _work(self, kind: Worker, number: int, timeout_s: float) -> None:
        client = self._clients[number % len(self._clients)]
        while not self._stopping:
            await kind(client, number, timeout_s)

    async def _try(self, operation: Awaitable[object]) -> Fate:
        try:
            await operation
        except KVError as error:
            # A refusal at once (no leader, say) must not make this loop spin.
            await asyncio.sleep(REFUSED_PAUSE_S)
            return Fate.REFUSED if error.definite else Fate.UNKNOWN
        self.acknowledged += 1
        self._progress.set()
        return Fate.ACKNOWLEDGED

    def _token(self) -> bytes:
        return b"%d" % next(self._numbers)

    # --- the kinds ----------------------------------------------------------------------------------

    async def _put(self, client: AsyncClient, _: int, timeout_s: float) -> None:
        """Write a new key; then often a write that must be refused, a delete that must be, a delete."""
        token = self._token()
        key, value = b"put/" + token, b"value " + token
        fate = await self._try(client.put(key, value, timeout=timeout_s))
        self.record.puts[key] = value, fate
        if fate is not Fate.ACKNOWLEDGED:
            return
        if self._rng.random() < 0.3:
            await self._refused(client, key, token, timeout_s)
        if self._rng.random() < 0.5:
            self.record.deletes[key] = await self._try(client.delete(key, timeout=timeout_s))

    async def _refused(self, client: AsyncClient, key: bytes, token: bytes, timeout_s: float) -> None:
        value = b"never " + token
        fates = (
            await self._try(client.put(key, value, if_absent=True, timeout=timeout_s)),
            await self._try(client.delete(key, if_value=value, timeout=timeout_s)),
        )
        if Fate.ACKNOWLEDGED in fates:
            self.record.unexpected.append(f"{key!r}: a condition that does not hold was passed over")
        if fates[0] is Fate.REFUSED:
            self.record.never.add(value)

    async def _routed_put(self, _: AsyncClient, number: int, timeout_s: float) -> None:
        """Write a new key through any node without a session: its router retries in a session of its own."""
        token = self._token()
        key, value = b"routed/" + token, b"value " + token
        stub = self._rng.choice(self._stubs)
        request = kv_pb2.PutRequest(key=key, value=value)
        fate = await self._try(support.call(stub.Put(request, timeout=timeout_s)))
        self.record.puts[key] = value, fate

    async def _register(self, client: AsyncClient, number: int, timeout_s: float) -> None:
        """Overwrite a key that nobody else writes, and read it back."""
        key = b"register/%d" % number
        writes = self.record.registers.setdefault(key, {})
        value = self._token()
        writes[value] = Fate.UNKNOWN
        writes[value] = await self._try(client.put(key, value, timeout=timeout_s))
        with contextlib.suppress(KVError):  # a read that fails says nothing
            item = await client.get(key, timeout=timeout_s)
            found = None if item is None else item.value
            if found not in (allowed := allowed_values(writes)):
                self.record.unexpected.append(f"{key!r} read {found!r}, allowed {allowed}")

    async def _large(self, client: AsyncClient, number: int, timeout_s: float) -> None:
        """Overwrite a key that nobody else writes with a value that is large; only its token is kept in mind."""
        key, token = b"large/%d" % number, self._token()
        writes = self.record.registers.setdefault(key, {})
        writes[token] = Fate.UNKNOWN
        writes[token] = await self._try(client.put(key, large_value(token), timeout=timeout_s))

    async def _list_by_value(self, client: AsyncClient, number: int, timeout_s: float) -> None:
        """Append to a list that workers share, if it still has the value that was read."""
        await self._append(client, b"list/%d" % (number // 3), timeout_s, by_value=True)

    async def _counter(self, client: AsyncClient, number: int, timeout_s: float) -> None:
        """Count up and leave a token, if the key still has the revision that was read."""
        await self._append(client, b"counter/%d" % (number // 3), timeout_s, by_value=False)

    async def _append(self, client: AsyncClient, key: bytes, timeout_s: float, *, by_value: bool) -> None:
        try:
            item = await client.get(key, timeout=timeout_s)
        except KVError:
            await asyncio.sleep(REFUSED_PAUSE_S)
            return
        token = self._token()
        held = [] if item is None else item.value.split()[1:]
        value = b" ".join((b"%d" % (len(held) + 1), *held, token))
        if item is None:
            write = client.put(key, value, if_absent=True, timeout=timeout_s)
        elif by_value:
            write = client.put(key, value, if_value=item.value, timeout=timeout_s)
        else:
            write = client.put(key, value, if_revision=item.mod_revision, timeout=timeout_s)
        tokens = self.record.lists.setdefault(key, {})
        tokens[token] = Fate.UNKNOWN
        tokens[token] = await self._try(write)

    async def _pair(self, client: AsyncClient, number: int, timeout_s: float) -> None:
        """Set two keys of one partition to one token in a transaction."""
        tag = b"{pair%d}" % number
        writes = self.record.pairs.setdefault(tag, {})
        token = self._token()
        writes[token] = Fate.UNKNOWN
        then = [Put(tag + b"/left", token), Put(tag + b"/right", token)]
        writes[token] = await self._try(client.txn(then=then, timeout=timeout_s))
