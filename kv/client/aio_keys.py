"""The methods of `AsyncClient` on one key: reads, writes, conditional and atomic operations."""

# ruff: noqa: ASYNC109  # `timeout` covers all attempts and decides what the error may promise, which no
# `asyncio.timeout` around the call could know.

from __future__ import annotations

import asyncio

from kv.client.base import ClientBase
from kv.client.calls import GetCall, PutCall, PutIfCall, ReadingCall
from kv.client.levels import LevelLike, PreferenceLike, WriteLevelLike
from kv.client.operations import (
    OPERATION_OVERHEAD_BYTES,
    check_bytes,
    check_op,
    make_condition,
    read_append,
    read_delete,
    read_increment,
    read_put,
    write_op,
)
from kv.client.types import (
    Append,
    AppendReply,
    Delete,
    DeleteReply,
    Increment,
    IncrementReply,
    Item,
    Op,
    Put,
    PutReply,
    Reading,
)
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX, check_key, check_value
from kv.v1 import kv_pb2


class KeyMethods(ClientBase):
    """Operations on one key."""

    async def get(
        self,
        key: bytes,
        *,
        level: LevelLike | None = None,
        prefer: PreferenceLike | None = None,
        timeout: float | None = None,
    ) -> Item | None:
        """Read one key; None if it does not exist.

        Args:
            key: 1 to 480 bytes.
            level: what the read promises, such as "linearizable", "lease" or "bounded:200ms"; the client's own
                level if not given.
            prefer: which replica should serve: "leader", "nearest", "least-loaded", "local" or a node's id;
                the client's own preference if not given.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            DeadlineExceeded: no answer in time; nothing was read.
            TooStale, BehindSession, TooFewReplicas: no replica kept the level until the deadline.
            LeaseRefused: the cluster's configuration does not allow leases.
            InvalidArgument: the key, the level or the preference cannot be used.
        """
        if type(key) is not bytes or not 0 < len(key) <= KEY_BYTES_MAX:
            check_key(check_bytes(key, "key"))
        core, loop, deadline = self._begin(timeout)
        route = self._lanes.read if level is prefer is None else self._read_route(level, prefer)
        directory = self._directory
        if directory.map is None:
            await self._map(deadline)
        future: asyncio.Future[Item | None] = loop.create_future()
        call = GetCall(key, OPERATION_OVERHEAD_BYTES + len(key), deadline, future)
        core.submit(route, directory.partition_of(key), call)
        return await future

    async def read(
        self,
        key: bytes,
        *,
        level: LevelLike | None = None,
        prefer: PreferenceLike | None = None,
        timeout: float | None = None,
    ) -> Reading:
        """Read one key with the evidence of the read, whether the key exists or not; as `get` otherwise.

        For QUORUM and ALL it tells what each replica said. Arguments and errors are those of `get`.
        """
        check_key(check_bytes(key, "key"))
        core, loop, deadline = self._begin(timeout)
        route = self._read_route(level, prefer)
        if self._directory.map is None:
            await self._map(deadline)
        future: asyncio.Future[Reading] = loop.create_future()
        call = ReadingCall(key, OPERATION_OVERHEAD_BYTES + len(key), deadline, future)
        core.submit(route, self._directory.partition_of(key), call)
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
        return_previous: bool = False,
        write_level: WriteLevelLike | None = None,
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
            return_previous: give back what the key held before.
            write_level: "quorum", or "all" to wait until every replica has it on disk, for half of `timeout`
                and of `Limits.attempt_timeout_s` at most; the client's own if not given.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            Conflict: the condition did not hold; nothing was written.
            NotOnAllReplicas: at level ALL: it was written, but is not known to be on every replica.
            UnknownOutcome: no answer in time; the write may have been applied: ask `outcome`.
            DeadlineExceeded: no answer in time; nothing was written (`definite` is true).
            InvalidArgument: the key, the value or the conditions cannot be used.
        """
        if return_previous:
            op = Put(key, value, if_absent, if_present, if_revision, if_value, return_previous)
            return await self._operate("put", _built(op), read_put, key, write_level, timeout)
        fits = type(key) is bytes and type(value) is bytes and 0 < len(key) <= KEY_BYTES_MAX
        if not fits or len(value) > VALUE_BYTES_MAX:  # at one look; these say what is wrong, if anything is
            check_key(check_bytes(key, "key"))
            check_value(check_bytes(value, "value"))
        condition = None
        if if_absent or if_present or if_revision is not None or if_value is not None:
            condition = make_condition(if_absent, if_present, if_revision, if_value)
        core, loop, deadline = self._begin(timeout)
        route = self._lanes.write if write_level is None else self._write_route(write_level)
        directory = self._directory
        if directory.map is None:
            await self._map(deadline)
        future: asyncio.Future[PutReply] = loop.create_future()
        call = (
            PutCall(key, value, deadline, future)
            if condition is None
            else PutIfCall(key, value, condition, deadline, future)
        )
        core.submit(route, directory.partition_of(key), call)
        return await future

    async def delete(
        self,
        key: bytes,
        *,
        if_absent: bool = False,
        if_present: bool = False,
        if_revision: int | None = None,
        if_value: bytes | None = None,
        return_previous: bool = False,
        write_level: WriteLevelLike | None = None,
        timeout: float | None = None,
    ) -> DeleteReply:
        """Remove one key, if its condition holds. Without a condition, removing a missing key succeeds.

        Args:
            key: 1 to 480 bytes.
            if_absent: only if the key does not exist, else `Conflict`: removes nothing, but proves it.
            if_present: only if the key exists, else `Conflict`.
            if_revision: only if the key's mod_revision is this.
            if_value: only if the key's value is this.
            return_previous: give back what the key held before.
            write_level: as for `put`.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            Conflict: the condition did not hold; nothing was removed.
            NotOnAllReplicas: at level ALL: it was removed, but is not known to be on every replica.
            UnknownOutcome: no answer in time; the delete may have been applied: ask `outcome`.
            DeadlineExceeded: no answer in time; nothing was removed (`definite` is true).
            InvalidArgument: the key or the conditions cannot be used.
        """
        op = Delete(key, if_present, if_revision, if_value, return_previous, if_absent)
        return await self._operate("delete", _built(op), read_delete, key, write_level, timeout)

    async def increment(
        self,
        key: bytes,
        delta: int = 1,
        *,
        if_absent: bool = False,
        if_present: bool = False,
        if_revision: int | None = None,
        if_value: bytes | None = None,
        write_level: WriteLevelLike | None = None,
        timeout: float | None = None,
    ) -> IncrementReply:
        """Add `delta` to the signed 64-bit integer that the key holds as decimal text; a missing key counts as 0.

        Args:
            key: 1 to 480 bytes.
            delta: a signed 64-bit integer.
            if_absent: only if the key does not exist; the conditions are those of `put`.
            if_present: only if the key exists.
            if_revision: only if the key's mod_revision is this.
            if_value: only if the key's value is this.
            write_level: as for `put`.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            NotAnInteger: the key holds something else; nothing was written.
            IntegerOverflow: the sum does not fit into 64 bits; nothing was written.
            Conflict: the condition did not hold; nothing was written.
            NotOnAllReplicas, UnknownOutcome, DeadlineExceeded, InvalidArgument: as for `put`.
        """
        op = Increment(key, delta, if_absent, if_present, if_revision, if_value)
        return await self._operate("increment", _built(op), read_increment, key, write_level, timeout)

    async def append(
        self,
        key: bytes,
        value: bytes,
        *,
        if_absent: bool = False,
        if_present: bool = False,
        if_revision: int | None = None,
        if_value: bytes | None = None,
        write_level: WriteLevelLike | None = None,
        timeout: float | None = None,
    ) -> AppendReply:
        """Add bytes to the end of the key's value; a missing key counts as empty.

        Args:
            key: 1 to 480 bytes.
            value: what to add; the whole value stays within 1 MiB.
            if_absent: only if the key does not exist; the conditions are those of `put`.
            if_present: only if the key exists.
            if_revision: only if the key's mod_revision is this.
            if_value: only if the key's value is this.
            write_level: as for `put`.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            ValueTooLarge: the value would be larger than 1 MiB; nothing was written.
            Conflict: the condition did not hold; nothing was written.
            NotOnAllReplicas, UnknownOutcome, DeadlineExceeded, InvalidArgument: as for `put`.
        """
        op = Append(key, value, if_absent, if_present, if_revision, if_value)
        return await self._operate("append", _built(op), read_append, key, write_level, timeout)

    async def get_and_put(
        self,
        key: bytes,
        value: bytes,
        *,
        write_level: WriteLevelLike | None = None,
        timeout: float | None = None,
    ) -> Item | None:
        """Write one key and return what it held before, atomically; None if it did not exist.

        Raises:
            NotOnAllReplicas, UnknownOutcome, DeadlineExceeded, InvalidArgument: as for `put`.
        """
        reply = await self.put(key, value, return_previous=True, write_level=write_level, timeout=timeout)
        return reply.previous

    async def compare_and_set(
        self,
        key: bytes,
        expected: bytes | None,
        value: bytes,
        *,
        write_level: WriteLevelLike | None = None,
        timeout: float | None = None,
    ) -> PutReply:
        """Write `value` if the key has the value `expected`; None expects that the key does not exist.

        Raises:
            Conflict: the key has another value; nothing was written.
            UnknownOutcome: no answer in time; the write may have been applied.
            DeadlineExceeded: no answer in time; nothing was written (`definite` is true).
        """
        return await self.put(
            key,
            value,
            if_absent=expected is None,
            if_value=expected,
            write_level=write_level,
            timeout=timeout,
        )


def _built(op: Op) -> kv_pb2.Operation:
    """Return a checked operation as it travels."""
    check_op(op)
    operation = kv_pb2.Operation()
    write_op(op, operation)
    return operation
