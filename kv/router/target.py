"""Which replica a request would like best.

Pure: from what the request asks for and what this node knows to an order of replicas. What follows a failed
attempt is in `kv.router.retry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kv.ids import NodeId
from kv.router.options import ANYWHERE
from kv.v1 import kv_pb2


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a request would like to be served; the default is the leader."""

    any_replica: bool = False
    """Every replica may serve it."""
    local: bool = False
    """The replica of the node that was asked comes before the others."""
    node: NodeId = ""
    """The replica of this node comes first of all."""

    @property
    def at_leader(self) -> bool:
        """Whether only the leader serves it, so that an answer shows who leads."""
        return not (self.any_replica or self.local or self.node)


def wish_of(level: kv_pb2.ReadLevel.ValueType, read: kv_pb2.ReadOptions) -> Wish:
    """Return where a read of that level and with those options goes."""
    if level == kv_pb2.READ_LEVEL_LEASE:
        return Wish()  # a follower cannot have the lease
    preference = read.preference
    if level in ANYWHERE:
        local = preference != kv_pb2.REPLICA_PREFERENCE_LEADER
        return Wish(any_replica=True, local=local, node=read.node)
    return Wish(local=preference == kv_pb2.REPLICA_PREFERENCE_LOCAL, node=read.node)


def preferred_order(
    wish: Wish, replicas: Sequence[NodeId], *, here: NodeId | None, leader: NodeId | None
) -> tuple[NodeId, ...]:
    """Return each of `replicas` once, the best first.

    `here` is this node if it has a replica, `leader` the one that this node takes for it.
    """
    spread = wish.any_replica and wish.local  # reads that any replica serves leave the leader to the others
    wanted = (wish.node, here if wish.local else None, None if spread else leader, *replicas)
    return tuple(dict.fromkeys(node for node in wanted if node is not None and node in replicas))
