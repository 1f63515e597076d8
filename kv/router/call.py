"""A request in flight, as the router keeps it: `Call`, and `Gather` for the parts of a split batch; its ends.

State only: `kv.router.dispatch` moves it.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Final

from kv.client.session import Session
from kv.cluster.map import ClusterMap, PartitionInfo
from kv.errors import KVError, WrongPartition
from kv.ids import GroupId, NodeId
from kv.router.api import Forwarder, Reply
from kv.router.retry import Kind, Progress
from kv.router.routing import Plan, Traits, merge
from kv.router.timers import Cancellable
from kv.router.trace import Trail

_NO_PROGRESS: Final = Progress()


@lru_cache(maxsize=32)
def _kind(is_read: bool, repeatable: bool, owned_session: bool, any_replica: bool, pinned: bool) -> Kind:
    """Return the one object for each of the few kinds that there are: one for each call would cost more than routing it."""
    return Kind(is_read, repeatable, owned_session, any_replica, pinned)


class Call:
    """One batch for one partition, from its arrival to its reply."""

    __slots__ = (
        "armed",
        "attempt",
        "attempt_open",
        "bare",
        "deadline",
        "delayed",
        "done",
        "info",
        "kind",
        "lost",
        "map_epoch",
        "node",
        "progress",
        "raw",
        "reply",
        "sequence",
        "session",
        "tickets",
        "trail",
        "traits",
    )

    def __init__(
        self, raw: bytes, info: PartitionInfo, map_epoch: int, deadline: float, reply: Reply
    ) -> None:
        self.bare = raw  # as it came; `raw` is what is sent, with our request id
        self.raw = raw
        self.info = info  # of a pinned call: with the one replica that it is for
        self.map_epoch = map_epoch
        self.deadline = deadline
        self.reply = reply
        self.traits: Traits | None = None
        self.kind: Kind | None = None  # None: nobody has decoded it, and nobody does unless an attempt fails
        self.progress = _NO_PROGRESS
        self.node: NodeId = ""
        self.attempt = 0
        self.attempt_open = False
        self.lost = 0  # attempts given up without an answer
        self.tickets: list[tuple[Forwarder, int]] = []
        self.session: Session | None = None
        self.sequence = 0
        self.armed = 0
        self.delayed: Cancellable | None = None
        self.trail: Trail | None = None
        self.done = False

    def describe(self, traits: Traits, *, owned: bool = False, pinned: bool = False) -> Kind:
        """Note what the request is. `owned`: its session is to be the router's; `pinned`: it is for one replica."""
        self.traits = traits
        self.kind = _kind(traits.is_read, owned or traits.repeatable, owned, traits.wish.any_replica, pinned)
        return self.kind

    @property
    def shows_leader(self) -> bool:
        """Whether the node that answers leads the partition: nobody else would have answered."""
        return self.traits is None or (self.traits.wish.at_leader and not (self.kind and self.kind.pinned))


class Gather:
    """Collects the outcomes of a split batch."""

    __slots__ = ("_left", "_outcomes", "_plan", "_reply")

    def __init__(self, plan: Plan, reply: Reply) -> None:
        self._plan = plan
        self._reply = reply
        self._outcomes: list[bytes | KVError] = [b""] * len(plan.parts)
        self._left = len(plan.parts)
        if not self._left:
            reply(merge(plan, ()))

    def take(self, number: int, outcome: bytes | KVError) -> None:
        """Take the outcome of one part; the last one completes the batch."""
        self._outcomes[number] = outcome
        self._left -= 1
        if self._left == 0:
            self._reply(merge(self._plan, self._outcomes))


class End:
    """The end of a request for who awaits it."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        """Must be called on the running loop."""
        self._future: asyncio.Future[bytes | KVError] = asyncio.get_running_loop().create_future()

    def resolve(self, outcome: bytes | KVError) -> None:
        """Take the end: this is the request's `Reply`."""
        if not self._future.done():  # the client may have cancelled its call
            self._future.set_result(outcome)

    async def response(self) -> bytes:
        """Return the serialized response. Raises the `KVError` with which the request ended."""
        outcome = await self._future
        if isinstance(outcome, KVError):
            raise outcome
        return outcome


def no_partition(partition: GroupId, cluster_map: ClusterMap) -> WrongPartition:
    """Return the error of a request for a partition that the map does not have."""
    metadata = {"partition": partition, "map_epoch": cluster_map.epoch}
    return WrongPartition(f"there is no partition {partition}", metadata=metadata)
