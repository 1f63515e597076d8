"""`AsyncClient`: the public face of the client for asyncio.

Here are the methods that users call, with their promises. How requests are joined,
routed and retried is in `kv.client.core` and `kv.client.retry`. The synchronous
`kv.client.sync.Client` is generated from this file, so its methods keep to what
`tools/gen_sync_client.py` understands: one class, every public method documented.
"""

# ruff: noqa: ASYNC109  # `timeout` covers all attempts and decides what the error may promise, which no
# `asyncio.timeout` around the call could know.

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from kv.client.batch import BatchRun
from kv.client.calls import (
    OPERATION_OVERHEAD_BYTES,
    GetCall,
    OperationCall,
    PutCall,
    check_bytes,
    check_op,
    make_condition,
    read_delete,
    read_txn,
    write_op,
)
from kv.client.connection import GrpcTransport
from kv.client.core import Core
from kv.client.directory import Directory
from kv.client.lane import Kind, Limits
from kv.client.map_keeper import MapKeeper
from kv.client.retry import deadline_error
from kv.client.scan import ScanCursor
from kv.client.scanner import Scanner
from kv.client.transport import Transport
from kv.client.txn import make_txn
from kv.client.types import (
    Compare,
    Delete,
    DeleteReply,
    Item,
    Op,
    PutReply,
    ReadLevel,
    Result,
    TxnReply,
    read_level,
)
from kv.client.url import TIMEOUT_S_DEFAULT, check_timeout_s, parse_endpoints, parse_url
from kv.cluster.map import ClusterMap
from kv.errors import CrossPartition, InvalidArgument, KVError, Unavailable
from kv.ids import check_key, check_value
from kv.v1 import cluster_pb2, kv_pb2


class AsyncClient:
    """A client of one cluster, for one event loop; safe to share among its tasks.

    It learns the cluster map from any endpoint and sends each request to the leader of
    its partition. Calls of concurrent tasks travel together. Every write is applied at
    most once, however often it is retried; one `timeout` covers all attempts.

    Errors are `kv.errors.KVError`. `definite` ones mean that nothing was applied;
    `UnknownOutcome` means that a write may have been.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout: float = TIMEOUT_S_DEFAULT,
        level: ReadLevel | str = ReadLevel.LINEARIZABLE,
        limits: Limits | None = None,
        transport: Transport | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Make a client; it connects at the first call.

        Args:
            endpoints: host:port of one or more nodes; the others are learned.
            timeout: seconds for each call that names none.
            level: the level of each read that names none.
            limits: how much to join, hold and wait.
            transport: the network; gRPC unless a test or a simulator brings its own.
            jitter: returns uniform numbers in [0, 1) for the pauses between attempts.

        Raises:
            InvalidArgument: an argument cannot be used; the message names it.
        """
        if isinstance(endpoints, str):
            raise InvalidArgument("endpoints is a list of host:port; for a kv:// address use from_url")
        self._directory = Directory(parse_endpoints(list(endpoints)))
        self._timeout_s = check_timeout_s(timeout)
        self._level = read_level(level)
        self._limits = limits or Limits()
        self._jitter = jitter
        self._transport = transport
        self._loop: asyncio.AbstractEventLoop | None = None
        self._core: Core | None = None
        self._keeper: MapKeeper | None = None
        self._closed = False

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Make a client of the cluster at `kv://host:port,host:port/?timeout=2s&level=linearizable`.

        Raises:
            InvalidArgument: the address cannot be used; the message names the part.
        """
        options = parse_url(url)
        return cls(options.endpoints, timeout=options.timeout_s, level=options.level)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. Calls that wait fail: unsent ones definitely, sent writes as `UnknownOutcome`."""
        self._closed = True
        if self._core is not None and self._keeper is not None and self._transport is not None:
            self._core.close()
            await self._keeper.close()
            await self._transport.close()

    # --- keys ---------------------------------------------------------------------------------------

    async def get(
        self, key: bytes, *, level: ReadLevel | str | None = None, timeout: float | None = None
    ) -> Item | None:
        """Read one key; None if it does not exist.

        Args:
            key: 1 to 480 bytes.
            level: what the read promises; the client's own level if not given.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            DeadlineExceeded: no answer in time; nothing was read.
            InvalidArgument: the key cannot be used.
        """
        check_key(check_bytes(key, "key"))
        core, loop, deadline = self._begin(timeout)
        if self._directory.map is None:
            await self._map(deadline)
        future: asyncio.Future[Item | None] = loop.create_future()
        call = GetCall(key, OPERATION_OVERHEAD_BYTES + len(key), deadline, future)
        core.submit(self._read_kind(level), self._directory.partition_of(key), call)
        return await future

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        if_absent: bool = False,
        if_present: bool = False,
        if_revision: int | None = None,
        if_value: bytes | None = None,
        timeout: float | None = None,
    ) -> PutReply:
        """Write one key, if its condition holds. At most one condition may be given.

        Args:
            key: 1 to 480 bytes.
            value: up to 1 MiB.
            if_absent: only if the key does not exist.
            if_present: only if the key exists.
            if_revision: only if the key's mod_revision is this.
            if_value: only if the key's value is this.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            Conflict: the condition did not hold; nothing was written.
            UnknownOutcome: no answer in time; the write may have been applied.
            DeadlineExceeded: no answer in time; nothing was written (`definite` is true).
            InvalidArgument: the key, the value or the conditions cannot be used.
        """
        check_key(check_bytes(key, "key"))
        check_value(check_bytes(value, "value"))
        condition = make_condition(if_absent, if_present, if_revision, if_value)
        core, loop, deadline = self._begin(timeout)
        if self._directory.map is None:
            await self._map(deadline)
        future: asyncio.Future[PutReply] = loop.create_future()
        call = PutCall(key, value, condition, deadline, future)
        core.submit(Kind.WRITE, self._directory.partition_of(key), call)
        return await future

    async def delete(
        self,
        key: bytes,
        *,
        if_present: bool = False,
        if_revision: int | None = None,
        if_value: bytes | None = None,
        timeout: float | None = None,
    ) -> DeleteReply:
        """Remove one key, if its condition holds. Without a condition, removing a missing key succeeds.

        Args:
            key: 1 to 480 bytes.
            if_present: only if the key exists, else `Conflict`.
            if_revision: only if the key's mod_revision is this.
            if_value: only if the key's value is this.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            Conflict: the condition did not hold; nothing was removed.
            UnknownOutcome: no answer in time; the delete may have been applied.
            DeadlineExceeded: no answer in time; nothing was removed (`definite` is true).
            InvalidArgument: the key or the conditions cannot be used.
        """
        operation = kv_pb2.Operation()
        write = Delete(key, if_present=if_present, if_revision=if_revision, if_value=if_value)
        check_op(write)
        write_op(write, operation)
        core, loop, deadline = self._begin(timeout)
        if self._directory.map is None:
            await self._map(deadline)
        future: asyncio.Future[DeleteReply] = loop.create_future()
        call = OperationCall("delete", operation, read_delete, (key,), deadline, future)
        core.submit(Kind.WRITE, self._directory.partition_of(key), call)
        return await future

    async def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes, *, timeout: float | None = None
    ) -> PutReply:
        """Write `value` if the key has the value `expected`; None expects that the key does not exist.

        Raises:
            Conflict: the key has another value; nothing was written.
            UnknownOutcome: no answer in time; the write may have been applied.
            DeadlineExceeded: no answer in time; nothing was written (`definite` is true).
        """
        return await self.put(key, value, if_absent=expected is None, if_value=expected, timeout=timeout)

    # --- many keys ----------------------------------------------------------------------------------

    async def batch(
        self,
        ops: Sequence[Op],
        *,
        level: ReadLevel | str | None = None,
        timeout: float | None = None,
    ) -> list[Result]:
        """Run many operations and return the result of each, in order. It is not atomic.

        The operations of one partition are applied in their order. The result of an operation
        that failed is its `KVError`, which is returned, not raised. After a failure that was not
        the operation's own (say, no leader) the later ones of that partition are not sent.

        Args:
            ops: any number of `Get`, `Put` and `Delete`.
            level: for partitions where `ops` only reads; a partition with a write reads linearizably.
            timeout: seconds for everything; the client's own if not given.

        Raises:
            InvalidArgument: an operation cannot be used; nothing was sent.
        """
        for op in ops:
            check_op(op)
        read_kind = self._read_kind(level)
        core, _, deadline = self._begin(timeout)
        if self._directory.map is None:
            await self._map(deadline)
        return await BatchRun(core, ops, self._limits, read_kind, deadline).run(self._directory.partition_of)

    async def txn(
        self,
        compare: Sequence[Compare] = (),
        then: Sequence[Op] = (),
        orelse: Sequence[Op] = (),
        *,
        timeout: float | None = None,
    ) -> TxnReply:
        """Apply `then` if every compare holds, else `orelse`, atomically, inside one partition.

        Keys that share a hash tag, as in `{user7}/name`, share a partition.

        Args:
            compare: tests, all of which must hold.
            then: `Get`, `Put` and `Delete` without conditions.
            orelse: the same.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            CrossPartition: the keys are in more than one partition; nothing was sent.
            UnknownOutcome: no answer in time; the transaction may have been applied.
            DeadlineExceeded: no answer in time; nothing was applied (`definite` is true).
            InvalidArgument: a compare or an operation cannot be used.
        """
        operation, keys = make_txn(compare, then, orelse)
        core, loop, deadline = self._begin(timeout)
        if self._directory.map is None:
            await self._map(deadline)
        partitions = {self._directory.partition_of(key) for key in keys}
        if len(partitions) > 1:
            numbers = ", ".join(map(str, sorted(partitions)))
            raise CrossPartition(
                f"the keys of the transaction are in the partitions {numbers}",
                metadata={"partitions": numbers},
            )
        future: asyncio.Future[TxnReply] = loop.create_future()
        call = OperationCall("txn", operation, read_txn, keys, deadline, future)
        core.submit(Kind.WRITE, partitions.pop(), call)
        return await future

    async def scan(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        level: ReadLevel | str | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Item]:
        """Iterate over a range of keys in order, over all partitions.

        Each partition's share of a page is read at one index; pages are separate reads. A scan
        that loses its node goes on at another after the last key.

        Args:
            prefix: keys that begin with this; excludes `start` and `end`.
            start: first key, inclusive; empty: from the beginning.
            end: end, exclusive; empty: to the end.
            limit: at most this many items; 0: no limit.
            keys_only: leave the values empty.
            level: what the reads promise; the client's own level if not given.
            timeout: seconds without progress; the client's own timeout if not given.

        Raises:
            DeadlineExceeded: no page came in time.
            InvalidArgument: the range cannot be used.
        """
        pages = self.scan_pages(
            prefix, start=start, end=end, limit=limit, keys_only=keys_only, level=level, timeout=timeout
        )
        async with aclosing(pages):
            async for page in pages:
                for item in page:
                    yield item

    async def scan_pages(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        level: ReadLevel | str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[list[Item], None]:
        """Iterate over the pages of a scan as they come, each a list of items; see `scan`."""
        for name, given in (("prefix", prefix), ("start", start), ("end", end)):
            check_bytes(given, name)
        chosen = self._level if level is None else read_level(level)
        cursor = ScanCursor(
            prefix=prefix, start=start, end=end, limit=limit, keys_only=keys_only, level=chosen
        )
        self._start()
        assert self._transport is not None, "the client has started"
        scanner = Scanner(
            cursor,
            self._directory,
            self._transport,
            timeout_s=self._seconds(timeout),
            silence_s=self._limits.attempt_timeout_s,
            jitter=self._jitter,
        )
        async with aclosing(scanner.pages()) as pages:
            async for page in pages:
                yield page

    # --- cluster ------------------------------------------------------------------------------------

    async def cluster_map(self, *, timeout: float | None = None) -> ClusterMap:
        """Ask the cluster for its map: nodes, partitions and their replicas.

        Raises:
            DeadlineExceeded: no node answered in time.
        """
        loop = self._start()
        assert self._keeper is not None, "the client has started"
        await self._keeper.fetch(loop.time() + self._seconds(timeout))
        assert self._directory.map is not None, "a fetch ends with a map"
        return self._directory.map

    async def status(
        self, node: str | None = None, *, timeout: float | None = None
    ) -> cluster_pb2.NodeStatus:
        """Return the state of a node and of its replicas, as that node sees it.

        Args:
            node: the id of the node; the first that answers if not given.
            timeout: seconds; the client's own timeout if not given.

        Raises:
            InvalidArgument: the cluster map has no such node.
            Unavailable: the node does not answer.
            DeadlineExceeded: the node does not answer in time.
        """
        loop = self._start()
        deadline = loop.time() + self._seconds(timeout)
        addresses = self._directory.known_addresses(loop.time())
        if node is not None:
            addresses = [await self._address_of(node, deadline)]
        return await self._first_status(addresses, deadline)

    # --- inside -------------------------------------------------------------------------------------

    def _start(self) -> asyncio.AbstractEventLoop:
        """Return the loop of this client, which is that of the first call."""
        loop = asyncio.get_running_loop()
        if self._loop is loop and not self._closed:
            return loop
        if self._closed:
            raise Unavailable("the client is closed: make a new one")
        if self._loop is not None:
            raise RuntimeError(
                "an AsyncClient belongs to the event loop of its first call: make one for each loop"
            )
        self._loop = loop
        transport = self._transport = self._transport or GrpcTransport()
        self._keeper = MapKeeper(self._directory, transport, jitter=self._jitter, on_change=self._reroute)
        self._core = Core(
            self._directory,
            transport,
            limits=self._limits,
            open_timeout_s=self._timeout_s,
            jitter=self._jitter,
            refresh_map=self._keeper.refresh,
        )
        return loop

    def _begin(self, timeout: float | None) -> tuple[Core, asyncio.AbstractEventLoop, float]:
        """Return what a call needs: the core, the loop, and its deadline in loop time."""
        loop = self._start()
        core = self._core
        assert core is not None, "the client has started"
        return core, loop, loop.time() + self._seconds(timeout)

    async def _map(self, deadline: float) -> None:
        """Wait for the first map; apart from the calls, which need it once, because awaiting costs."""
        assert self._keeper is not None, "the client has started"
        await self._keeper.ready(deadline)

    def _reroute(self) -> None:
        if self._core is not None:
            self._core.reroute()

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout_s if timeout is None else check_timeout_s(timeout)

    def _read_kind(self, level: ReadLevel | str | None) -> Kind:
        chosen = self._level if level is None else read_level(level)
        return Kind.STALE if chosen is ReadLevel.STALE else Kind.READ

    async def _address_of(self, node: str, deadline: float) -> str:
        await self._map(deadline)
        address = self._directory.address_of(node)
        if address is None:
            raise InvalidArgument(f"the cluster map has no node {node!r}", metadata={"node": node})
        return address

    async def _first_status(self, addresses: Sequence[str], deadline: float) -> cluster_pb2.NodeStatus:
        assert self._transport is not None, "the client has started"
        loop = asyncio.get_running_loop()
        cause: KVError | None = None
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            remaining = deadline - loop.time()
            if remaining <= 0:
                break
            try:
                # Each address gets its share of the time, so that a silent one leaves some for the others.
                return (await self._transport.get_status(address, remaining / left)).status
            except KVError as error:
                cause = error
        raise cause or deadline_error(write=False, indefinite=False, cause=None)
