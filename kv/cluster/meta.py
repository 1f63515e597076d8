"""The cluster map in the meta group, and how a node comes to know it.

The meta group is a Raft group like any other; the map is the value of one key in it. The
group's leader writes the first map, if there is none, by a put that requires that the key is
absent. Members of the group read their own copy, the other nodes ask them. A map only ever
gives way to one of a higher epoch, so a stale answer costs time and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from kv.cluster.map import ClusterMap, decode
from kv.errors import KVError
from kv.v1 import kv_pb2

MAP_KEY = b"map"
META_MEMBERS_MAX = 5
LOOK_EAGER_S = 0.05
"""How often a node without a map looks for one."""
LOOK_S = 1.0
"""How often it looks for a newer one."""

_READ_MAP = kv_pb2.BatchRequest(
    operations=[kv_pb2.Operation(get=kv_pb2.GetOperation(key=MAP_KEY))], level=kv_pb2.READ_LEVEL_STALE
).SerializeToString()

log = structlog.get_logger(__name__)


def meta_members(nodes: Sequence[str]) -> tuple[str, ...]:
    """The members of the meta group at creation: an odd number of the first nodes, at most five."""
    count = min(len(nodes), META_MEMBERS_MAX)
    return tuple(sorted(nodes)[: count - 1 + count % 2])


class MetaReplica(Protocol):
    """This node's replica of the meta group."""

    @property
    def is_leader(self) -> bool:
        """Whether it leads."""

    def submit(self, raw: bytes, reply: Callable[[bytes | KVError], None]) -> None:
        """Take a serialized BatchRequest."""


class MapWatch:
    """Keeps one node's cluster map."""

    def __init__(
        self,
        *,
        replica: MetaReplica | None,
        first_map: Callable[[], ClusterMap],
        ask_peers: Callable[[], Awaitable[ClusterMap | None]],
        learned: Callable[[ClusterMap], None],
        known: ClusterMap | None,
    ) -> None:
        """`learned` is called with each newer map; `ask_peers` is for a node outside the meta group."""
        self._replica, self._first_map, self._ask_peers = replica, first_map, ask_peers
        self._learned, self._known = learned, known
        self._raw = b""
        self._found: ClusterMap | None = None  # what `_raw` says: it hardly ever changes

    async def run(self) -> None:
        """Looks for a map, then for newer ones, until cancelled."""
        while True:
            found = await self._look()
            if found is not None and (self._known is None or found.epoch > self._known.epoch):
                self._known = found
                self._learned(found)
            await asyncio.sleep(LOOK_EAGER_S if self._known is None else LOOK_S)

    async def _look(self) -> ClusterMap | None:
        if self._replica is None:
            return await self._ask_peers()
        if self._known is None and self._replica.is_leader:
            await self._create()
        return await self._read()

    async def _read(self) -> ClusterMap | None:
        answer = await self._submit(_READ_MAP)
        if answer is None or not answer.results[0].get.HasField("item"):
            return None
        raw = answer.results[0].get.item.value
        if raw != self._raw:
            self._found, self._raw = decode(raw), raw
        return self._found

    async def _create(self) -> None:
        put = kv_pb2.PutOperation(
            key=MAP_KEY, value=self._first_map().encode(), condition=kv_pb2.Condition(absent=True)
        )
        batch = kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put=put)])
        await self._submit(batch.SerializeToString())

    async def _submit(self, batch: bytes) -> kv_pb2.BatchResponse | None:
        """Runs a serialized batch in the meta group; None if it could not be, which is tried again."""
        assert self._replica is not None
        future: asyncio.Future[bytes | KVError] = asyncio.get_running_loop().create_future()

        def reply(outcome: bytes | KVError) -> None:
            if not future.done():
                future.set_result(outcome)

        self._replica.submit(batch, reply)
        outcome = await future
        if isinstance(outcome, KVError):
            log.debug("meta group not available", error=str(outcome))
            return None
        return kv_pb2.BatchResponse.FromString(outcome)
