"""`AsyncClient`: the public face of the client for asyncio.

Here are its making and its end, what became of a write, and the cluster; methods on one key are
in `aio_keys`, those on many in `aio_many`. How requests are joined, routed and retried is in
`kv.client.core` and `kv.client.retry`. The synchronous `kv.client.sync.Client` is generated from
these three files, so their methods keep to what `tools/gen_sync_client.py` understands: one class
in each, every public method documented.
"""

# ruff: noqa: ASYNC109  # as in aio_keys.py

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from kv.client.aio_keys import KeyMethods
from kv.client.aio_many import ManyMethods
from kv.client.calls import OperationCall
from kv.client.levels import LINEARIZABLE, LevelLike, PreferenceLike, WriteLevelLike
from kv.client.limits import Limits
from kv.client.operations import read_outcome
from kv.client.retry import deadline_error
from kv.client.transport import Transport
from kv.client.types import Outcome, WriteLevel
from kv.client.url import TIMEOUT_S_DEFAULT, parse_url
from kv.cluster.map import ClusterMap
from kv.errors import InvalidArgument, KVError
from kv.outcome import OutcomeToken
from kv.v1 import cluster_pb2, kv_pb2


class AsyncClient(KeyMethods, ManyMethods):
    """A client of one cluster, for one event loop; safe to share among its tasks.

    It learns the cluster map from any endpoint and sends each request to the leader of
    its partition, or to the replica that the read prefers. Calls of concurrent tasks travel
    together. Every write is applied at most once, however often it is retried; one `timeout`
    covers all attempts.

    Errors are `kv.errors.KVError`. `definite` ones mean that nothing was applied;
    `UnknownOutcome` means that a write may have been: `outcome` tells.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout: float = TIMEOUT_S_DEFAULT,
        level: LevelLike = LINEARIZABLE,
        prefer: PreferenceLike | None = None,
        write_level: WriteLevelLike = WriteLevel.QUORUM,
        limits: Limits | None = None,
        transport: Transport | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Make a client; it connects at the first call.

        Args:
            endpoints: host:port of one or more nodes; the others are learned.
            timeout: seconds for each call that names none.
            level: the level of each read that names none.
            prefer: the preference of each read that names none; the leader for levels that it serves, else
                the replicas in turn, if not given.
            write_level: the level of each write that names none.
            limits: how much to join, hold and wait.
            transport: the network; gRPC unless a test or a simulator brings its own.
            jitter: returns uniform numbers in [0, 1) for the pauses between attempts.

        Raises:
            InvalidArgument: an argument cannot be used; the message names it.
        """
        super().__init__(
            endpoints,
            timeout=timeout,
            level=level,
            prefer=prefer,
            write_level=write_level,
            limits=limits,
            transport=transport,
            jitter=jitter,
        )

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Make a client of the cluster at `kv://host:port,host:port/?timeout=2s&level=lease&prefer=nearest&write=all`.

        Raises:
            InvalidArgument: the address cannot be used; the message names the part.
        """
        options = parse_url(url)
        return cls(
            options.endpoints,
            timeout=options.timeout_s,
            level=options.level,
            prefer=options.prefer,
            write_level=options.write,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. Calls that wait fail: unsent ones definitely, sent writes as `UnknownOutcome`."""
        self._closed, self._thread = True, 0
        if self._core is not None and self._keeper is not None and self._transport is not None:
            self._core.close()
            await self._keeper.close()
            await self._transport.close()

    # --- sessions and outcomes ----------------------------------------------------------------------

    async def outcome(self, write: KVError | OutcomeToken | str, *, timeout: float | None = None) -> Outcome:
        """Return what became of a write whose outcome was unknown, and decide it: asking is final.

        `APPLIED` comes with the results, if they are still kept. `NOT_APPLIED` is for good: a copy that is still
        on its way will be refused. `UNKNOWN` means that the partition does not remember the write's session.
        Works in another process, too, with the token that the error carries.

        Args:
            write: the error of the write, or its `token`.
            timeout: seconds for all attempts together; the client's own if not given.

        Raises:
            InvalidArgument: that is no token, or the error has none, or this cluster has no such partition.
            DeadlineExceeded: no answer in time; ask again.
        """
        token = _token_of(write)
        core, loop, deadline = self._begin(timeout)
        if self._directory.map is None:
            await self._map(deadline)
        assert self._directory.map is not None, "a call goes on only with a map"
        if self._directory.map.partition(token.partition) is None:
            raise InvalidArgument(
                f"this cluster has no partition {token.partition}: the token is of another one",
                metadata={"partition": token.partition},
            )
        operation = kv_pb2.Operation(
            outcome=kv_pb2.OutcomeOperation(session=token.session, sequence=token.sequence)
        )
        future: asyncio.Future[Outcome] = loop.create_future()
        reader = partial(read_outcome, token=token)
        call = OperationCall("outcome", operation, reader, (), deadline, future)
        core.submit(self._lanes.alone, token.partition, call)
        return await future

    def session_token(self) -> str:
        """Return how far this client has seen, as text for `observe` in another client or process.

        It covers every answer that came so far, reads and writes. SESSION reads of whoever observes it see at
        least that.
        """
        return self._seen.token()

    def observe(self, token: str) -> None:
        """Make this client's SESSION reads see at least what the owner of `token` has seen.

        Raises:
            InvalidArgument: that is no session token, or one of another cluster.
        """
        self._seen.observe(token)

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


def _token_of(write: KVError | OutcomeToken | str) -> OutcomeToken:
    """Return the token that is meant; raise `InvalidArgument` if there is none."""
    if isinstance(write, OutcomeToken):
        return write
    if isinstance(write, KVError):
        if write.token is None:
            state = "its outcome is known" if write.definite or write.applied else "it is not of a write"
            raise InvalidArgument(f"the error {write.reason} has no outcome token: {state}")
        return OutcomeToken.parse(write.token)
    if not isinstance(write, str):
        raise TypeError(f"an outcome is asked for by an error or its token, not {type(write).__name__}")
    return OutcomeToken.parse(write)
