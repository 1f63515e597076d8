"""One client for each system: how an operation is made, and how its end counts.

The peers' clients get the care that ours gets: etcd's joins ready-made bytes and decodes no reply, over one grpc.aio
channel to the leader, NATS's talks to the leader of its stream; all run on uvloop (`worker`).
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from benchmarks import wire
from benchmarks.calls import unary
from benchmarks.load import Counted
from kv.client import AsyncClient, Get, Put
from kv.errors import KVError
from kv.wire import tag_of, varint

KEY_BYTES: Final = 16
FILL_OPERATIONS: Final = 128
"""In one batch of `fill`: what etcd allows in a Txn by default."""

KEYS_LISTED_MAX: Final = 1_000_000

NATS_BUCKET: Final = "bench"
NATS_READY_S: Final = 60.0
NATS_RETRY_S: Final = 0.25
NATS_TIMEOUT_S: Final = 10.0

NOT_HAPPENED: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT})
"""Status codes by which etcd says that it did nothing."""


class Data:
    """Which keys and values: `keys` keys of 16 bytes, chosen uniformly, and values of `value_bytes` random bytes.

    If `listed`, and up to `KEYS_LISTED_MAX`, they are made beforehand: making one costs as much as all else that the load
    does for a call.
    """

    def __init__(self, keys: int, value_bytes: int, *, listed: bool = True) -> None:
        self.keys = keys
        self.value_bytes = value_bytes
        self._listed = (
            [key_of(number) for number in range(keys)] if listed and keys <= KEYS_LISTED_MAX else None
        )

    def key(self) -> bytes:
        """Return one of the keys."""
        number = int(random.random() * self.keys)
        return self._listed[number] if self._listed is not None else key_of(number)

    def some(self, count: int) -> list[bytes]:
        """Return `count` different keys: etcd allows a key only once in a Txn."""
        chosen: dict[bytes, None] = {}
        while len(chosen) < count:
            chosen[self.key()] = None
        return list(chosen)

    def value(self) -> bytes:
        """Return a value. Made once for a run of the load: making it is not what is measured."""
        return random.randbytes(self.value_bytes)


def key_of(number: int) -> bytes:
    """Return the key number `number`."""
    return b"key-%012d" % number


class Client(ABC):
    """What the loops call. `addresses` has the leader first, where there is one leader."""

    def __init__(self, addresses: Sequence[str], data: Data) -> None:
        self.addresses = addresses
        self.data = data
        self.value = data.value()

    async def __aenter__(self) -> Self:
        return self

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""

    @abstractmethod
    def put(self) -> Awaitable[object]:
        """Write one key."""

    @abstractmethod
    def get(self) -> Awaitable[object]:
        """Read one key, linearizably."""

    @abstractmethod
    def put_many(self, keys: Sequence[bytes]) -> Awaitable[object]:
        """Write these keys in one call."""

    @abstractmethod
    def get_many(self, keys: Sequence[bytes]) -> Awaitable[object]:
        """Read these keys in one call."""

    def answered(self, result: object, operations: int) -> Counted | None:
        """Say what came of a call of so many operations that returned; None: all of it was done."""
        del result, operations
        return None

    @abstractmethod
    def refused(self, error: Exception, operations: int) -> Counted:
        """Say what came of a call of so many operations that raised; raise what is no answer of the system."""


class RingKV(Client):
    """`kv.client.AsyncClient` as any user has it."""

    def __init__(self, addresses: Sequence[str], data: Data) -> None:
        super().__init__(addresses, data)
        self._client = AsyncClient(addresses)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    def put(self) -> Awaitable[object]:
        """See `Client`."""
        return self._client.put(self.data.key(), self.value)

    def get(self) -> Awaitable[object]:
        """See `Client`."""
        return self._client.get(self.data.key())

    def put_many(self, keys: Sequence[bytes]) -> Awaitable[object]:
        """See `Client`."""
        value = self.value
        return self._client.batch([Put(key, value) for key in keys])

    def get_many(self, keys: Sequence[bytes]) -> Awaitable[object]:
        """See `Client`."""
        return self._client.batch([Get(key) for key in keys])

    def answered(self, result: object, operations: int) -> Counted | None:
        """See `Client`."""
        if result is None:
            return _failed(operations, "the key is not there", definite=True)
        if not isinstance(result, list):
            return None
        errors = [item for item in result if isinstance(item, KVError)]
        if not errors:
            return None
        definite = sum(error.definite for error in errors)
        return Counted(operations - len(errors), definite, len(errors) - definite, errors[0].reason)

    def refused(self, error: Exception, operations: int) -> Counted:
        """See `Client`."""
        if isinstance(error, KVError):
            return _failed(operations, error.reason, definite=error.definite)
        raise error


class Etcd(Client):
    """etcd's gRPC API from grpc.aio, on ready-made bytes."""

    def __init__(self, addresses: Sequence[str], data: Data) -> None:
        super().__init__(addresses, data)
        self._channel = grpc.aio.insecure_channel(addresses[0])
        self._put = unary(self._channel, wire.PUT)
        self._range = unary(self._channel, wire.RANGE)
        self._txn = unary(self._channel, wire.TXN)
        self._before = tag_of(1) + varint(KEY_BYTES)
        self._after = wire.chunk(2, self.value)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    def put(self) -> Awaitable[object]:
        """See `Client`."""
        return self._put(self._before + self.data.key() + self._after)

    def get(self) -> Awaitable[object]:
        """See `Client`."""
        return self._range(self._before + self.data.key())

    def put_many(self, keys: Sequence[bytes]) -> Awaitable[object]:
        """See `Client`."""
        return self._txn(wire.txn(puts=[self._before + key + self._after for key in keys]))

    def get_many(self, keys: Sequence[bytes]) -> Awaitable[object]:
        """See `Client`."""
        return self._txn(wire.txn(gets=[self._before + key for key in keys]))

    def refused(self, error: Exception, operations: int) -> Counted:
        """See `Client`."""
        if isinstance(error, grpc.aio.AioRpcError):
            code = error.code()
            return _failed(operations, f"{code.name} {error.details()}", definite=code in NOT_HAPPENED)
        raise error


class Nats(Client):
    """JetStream's key-value bucket from nats-py, of three replicas, at the server that leads its stream."""

    def __init__(self, addresses: Sequence[str], data: Data) -> None:
        super().__init__(addresses, data)
        self._connection: Any = None  # nats-py is not imported for the other systems
        self._bucket: Any = None

    async def __aenter__(self) -> Self:
        import nats  # noqa: PLC0415 - of the optional extra `bench`

        urls = {f"s{number}": f"nats://{address}" for number, address in enumerate(self.addresses, 1)}
        self._connection = await nats.connect(list(urls.values()))
        leader = await self._stream_leader()
        await self._connection.close()
        self._connection = await nats.connect(urls[leader])
        self._bucket = await self._connection.jetstream(timeout=NATS_TIMEOUT_S).key_value(NATS_BUCKET)
        return self

    async def _stream_leader(self) -> str:
        """Return the server that leads the bucket's stream, which is made if there is none."""
        from nats.errors import Error  # noqa: PLC0415
        from nats.js.api import KeyValueConfig, StorageType  # noqa: PLC0415

        config = KeyValueConfig(bucket=NATS_BUCKET, replicas=3, history=1, storage=StorageType.FILE)
        async with asyncio.timeout(NATS_READY_S):
            while True:  # JetStream refuses until its own group has a leader, and tells nobody when it has
                try:
                    stream = self._connection.jetstream()
                    await stream.create_key_value(config)
                    info = await stream.stream_info(f"KV_{NATS_BUCKET}")
                except Error:
                    info = None
                if info is not None and info.cluster is not None and info.cluster.leader:
                    return str(info.cluster.leader)
                await asyncio.sleep(NATS_RETRY_S)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    def put(self) -> Awaitable[object]:
        """See `Client`."""
        put: Awaitable[object] = self._bucket.put(self.data.key().decode(), self.value)
        return put

    def get(self) -> Awaitable[object]:
        """See `Client`."""
        raise NotImplementedError("no row reads from NATS: its reads are not linearizable by default")

    def put_many(self, keys: Sequence[bytes]) -> Awaitable[object]:
        """See `Client`."""
        raise NotImplementedError("JetStream's key-value bucket has no batches")

    def get_many(self, keys: Sequence[bytes]) -> Awaitable[object]:
        """See `Client`."""
        raise NotImplementedError("JetStream's key-value bucket has no batches")

    def refused(self, error: Exception, operations: int) -> Counted:
        """See `Client`."""
        from nats.errors import Error  # noqa: PLC0415

        if isinstance(error, Error):
            return _failed(operations, type(error).__name__, definite=False)
        raise error


CLIENTS: Final[dict[str, type[Client]]] = {"ringkv": RingKV, "etcd": Etcd, "nats": Nats}


def _failed(operations: int, reason: str, *, definite: bool) -> Counted:
    return Counted(0, operations if definite else 0, 0 if definite else operations, reason)
