"""`Client`: the synchronous face of the client. Generated from `aio.py` by `tools/gen_sync_client.py`.

Do not edit: change `AsyncClient` and generate again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from kv.client.aio import AsyncClient
from kv.client.lane import Limits
from kv.client.portal import Portal
from kv.client.transport import Transport
from kv.client.types import Compare, DeleteReply, Item, Op, PutReply, ReadLevel, Result, TxnReply
from kv.client.url import TIMEOUT_S_DEFAULT, parse_url
from kv.cluster.map import ClusterMap
from kv.v1 import cluster_pb2


class Client:
    """A client of one cluster for programs without an event loop; safe to share among threads.

    It runs an `AsyncClient` on an event loop in a thread of its own, so calls of several threads
    travel together, and everything that `AsyncClient` promises holds here.

    It does not survive `os.fork`: make one in each process, after the fork.
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
        self._client = AsyncClient(
            endpoints, timeout=timeout, level=level, limits=limits, transport=transport, jitter=jitter
        )
        self._portal = Portal("kv-client")

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Make a client of the cluster at `kv://host:port,host:port/?timeout=2s&level=linearizable`.

        Raises:
            InvalidArgument: the address cannot be used; the message names the part.
        """
        options = parse_url(url)
        return cls(options.endpoints, timeout=options.timeout_s, level=options.level)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. Calls that wait fail: unsent ones definitely, sent writes as `UnknownOutcome`."""
        if not self._portal.closed:
            self._portal.call(self._client.close())
            self._portal.close()

    def get(
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
        return self._portal.call(self._client.get(key, level=level, timeout=timeout))

    def put(
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
        return self._portal.call(
            self._client.put(
                key,
                value,
                if_absent=if_absent,
                if_present=if_present,
                if_revision=if_revision,
                if_value=if_value,
                timeout=timeout,
            )
        )

    def delete(
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
        return self._portal.call(
            self._client.delete(
                key, if_present=if_present, if_revision=if_revision, if_value=if_value, timeout=timeout
            )
        )

    def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes, *, timeout: float | None = None
    ) -> PutReply:
        """Write `value` if the key has the value `expected`; None expects that the key does not exist.

        Raises:
            Conflict: the key has another value; nothing was written.
            UnknownOutcome: no answer in time; the write may have been applied.
            DeadlineExceeded: no answer in time; nothing was written (`definite` is true).
        """
        return self._portal.call(self._client.compare_and_set(key, expected, value, timeout=timeout))

    def batch(
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
        return self._portal.call(self._client.batch(ops, level=level, timeout=timeout))

    def txn(
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
        return self._portal.call(self._client.txn(compare, then, orelse, timeout=timeout))

    def scan(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        level: ReadLevel | str | None = None,
        timeout: float | None = None,
    ) -> Iterator[Item]:
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
        for page in self.scan_pages(
            prefix, start=start, end=end, limit=limit, keys_only=keys_only, level=level, timeout=timeout
        ):
            yield from page

    def scan_pages(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        level: ReadLevel | str | None = None,
        timeout: float | None = None,
    ) -> Iterator[list[Item]]:
        """Iterate over the pages of a scan as they come, each a list of items; see `scan`."""
        yield from self._portal.iterate(
            self._client.scan_pages(
                prefix, start=start, end=end, limit=limit, keys_only=keys_only, level=level, timeout=timeout
            )
        )

    def cluster_map(self, *, timeout: float | None = None) -> ClusterMap:
        """Ask the cluster for its map: nodes, partitions and their replicas.

        Raises:
            DeadlineExceeded: no node answered in time.
        """
        return self._portal.call(self._client.cluster_map(timeout=timeout))

    def status(self, node: str | None = None, *, timeout: float | None = None) -> cluster_pb2.NodeStatus:
        """Return the state of a node and of its replicas, as that node sees it.

        Args:
            node: the id of the node; the first that answers if not given.
            timeout: seconds; the client's own timeout if not given.

        Raises:
            InvalidArgument: the cluster map has no such node.
            Unavailable: the node does not answer.
            DeadlineExceeded: the node does not answer in time.
        """
        return self._portal.call(self._client.status(node, timeout=timeout))
