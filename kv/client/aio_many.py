"""The methods of `AsyncClient` on many keys: batches, transactions, scans."""

# ruff: noqa: ASYNC109  # as in aio_keys.py

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from kv.client.base import ClientBase
from kv.client.batch import BatchRun
from kv.client.calls import OperationCall
from kv.client.levels import LevelLike, Preference, PreferenceKind, PreferenceLike, WriteLevelLike
from kv.client.operations import check_bytes, read_txn
from kv.client.rows import rows_of
from kv.client.scan import ScanCursor
from kv.client.scanner import Scanner
from kv.client.txn import make_txn
from kv.client.types import Compare, Item, Op, Result, ScanPage, TxnOp, TxnReply
from kv.errors import CrossPartition


class ManyMethods(ClientBase):
    """Operations on many keys."""

    async def batch(
        self,
        ops: Sequence[Op],
        *,
        level: LevelLike | None = None,
        prefer: PreferenceLike | None = None,
        write_level: WriteLevelLike | None = None,
        timeout: float | None = None,
    ) -> list[Result]:
        """Run many operations and return the result of each, in order. It is not atomic.

        The operations of one partition are applied in their order. The result of an operation
        that failed is its `KVError`, which is returned, not raised. After a failure that was not
        the operation's own (say, no leader) the later ones of that partition are not sent.

        Args:
            ops: any number of `Get`, `Put`, `Delete`, `Increment` and `Append`.
            level: for partitions where `ops` only reads; a partition with a write reads linearizably.
            prefer: which replica should serve these reads.
            write_level: as for `put`.
            timeout: seconds for everything; the client's own if not given.

        Raises:
            InvalidArgument: an operation cannot be used; nothing was sent.
        """
        rows = rows_of(ops)
        read, write = self._read_route(level, prefer), self._write_route(write_level)
        core, _, deadline = self._begin(timeout)
        if self._directory.map is None:
            await self._map(deadline)
        run = BatchRun(core, rows, self._limits, read, write, deadline)
        return await run.run(self._directory.partitions_of)

    async def txn(
        self,
        compare: Sequence[Compare] = (),
        then: Sequence[TxnOp] = (),
        orelse: Sequence[TxnOp] = (),
        *,
        write_level: WriteLevelLike | None = None,
        timeout: float | None = None,
    ) -> TxnReply:
        """Apply `then` if every compare holds, else `orelse`, atomically, inside one partition.

        Keys that share a hash tag, as in `{user7}/name`, share a partition. If one of the operations
        cannot be done (an increment of what is no integer), nothing of the transaction is.

        Args:
            compare: tests, all of which must hold.
            then: operations without conditions, and `Txn`s that hold no further ones.
            orelse: the same.
            write_level: as for `put`.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            CrossPartition: the keys are in more than one partition; nothing was sent.
            NotAnInteger, IntegerOverflow, ValueTooLarge: an operation cannot be done; nothing was applied.
            NotOnAllReplicas: at level ALL: it was applied, but is not known to be on every replica.
            UnknownOutcome: no answer in time; the transaction may have been applied: ask `outcome`.
            DeadlineExceeded: no answer in time; nothing was applied (`definite` is true).
            InvalidArgument: a compare or an operation cannot be used.
        """
        operation, keys = make_txn(compare, then, orelse)
        route = self._write_route(write_level)
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
        core.submit(route, partitions.pop(), call)
        return await future

    async def scan(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        level: LevelLike | None = None,
        prefer: PreferenceLike | None = None,
        resume: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Item]:
        """Iterate over a range of keys in order, over all partitions.

        Each partition's share of the scan is read at one index; the partitions are not read at one
        moment together. A scan that loses its node before the first item begins again at another.

        Args:
            prefix: keys that begin with this; excludes `start` and `end`.
            start: first key, inclusive; empty: from the beginning.
            end: end, exclusive; empty: to the end.
            limit: at most this many items; 0: no limit.
            keys_only: leave the values empty.
            level: what the reads promise; the client's own level if not given. Not "quorum" or "all".
            prefer: which replicas should serve.
            resume: if the scan breaks half way, go on after the last key, though at another index.
            timeout: seconds without progress; the client's own timeout if not given.

        Raises:
            SnapshotGone: the scan broke half way, or was read too slowly for the server to keep its state.
            DeadlineExceeded: no page came in time.
            InvalidArgument: the range or the level cannot be used.
        """
        pages = self.scan_pages(
            prefix,
            start=start,
            end=end,
            limit=limit,
            keys_only=keys_only,
            level=level,
            prefer=prefer,
            resume=resume,
            timeout=timeout,
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
        level: LevelLike | None = None,
        prefer: PreferenceLike | None = None,
        resume: bool = False,
        timeout: float | None = None,
    ) -> AsyncGenerator[ScanPage, None]:
        """Iterate over the pages of a scan as they come, each a list of items with its evidence; see `scan`.

        A scan that finds nothing gives one page without items, if the server says at which index it looked.
        """
        for name, given in (("prefix", prefix), ("start", start), ("end", end)):
            check_bytes(given, name)
        chosen, preference = self._read_options(level, prefer)
        cursor = ScanCursor(
            prefix=prefix,
            start=start,
            end=end,
            limit=limit,
            keys_only=keys_only,
            level=chosen,
            preference=preference,
            after=self._seen.indexes,
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
            resume=resume,
            on_page=self._saw_page,
            first=lambda: self._scan_at(preference),
        )
        async with aclosing(scanner.pages()) as pages:
            async for page in pages:
                yield page

    def _saw_page(self, page: ScanPage) -> None:
        for evidence in page.evidence:
            self._seen.note(evidence.partition, evidence.index)

    def _scan_at(self, preference: Preference | None) -> tuple[str, ...]:
        """Return the node that should run the scan, where one is preferred; that of the endpoints otherwise."""
        if preference is None or preference.kind is not PreferenceKind.NODE:
            return ()
        address = self._directory.address_of(preference.node)
        return () if address is None else (address,)
