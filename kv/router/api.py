"""The router's surroundings as Protocols: the node around it, a replica here, a stream to there.

Here live the faces that the node (or a simulator) implements for the router. No code that does
anything may live here.

Everything runs on one event loop: each method is called on its thread and never blocks, and each
`Reply` is called on it exactly once, possibly before the call that took it returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol, TypeAlias

from kv.cluster.map import ClusterMap
from kv.errors import KVError
from kv.ids import GroupId, NodeId
from kv.v1 import cluster_pb2

Reply: TypeAlias = Callable[[bytes | KVError], None]
"""Takes the end of a request: a serialized `kv.v1.BatchResponse`, or the error."""


class Replica(Protocol):
    """This node's copy of one partition, as far as the router needs it."""

    @property
    def is_leader(self) -> bool:
        """Whether this replica leads, as far as it knows."""

    @property
    def leader(self) -> NodeId | None:
        """The node that leads the partition, if this replica knows one."""

    def submit(self, raw: bytes, reply: Reply) -> None:
        """Take a serialized `kv.v1.BatchRequest` for this partition.

        A definite error means that nothing of it was or will be applied.
        """


class Forwarder(Protocol):
    """The way to the replicas of one other node."""

    def send(self, partition: GroupId, map_epoch: int, timeout_ms: int, raw: bytes, reply: Reply) -> int:
        """Send a serialized `kv.v1.BatchRequest` to the partition's replica there; return a ticket.

        Errors of the way itself: `Unavailable` and `Overloaded` if it was never sent (definite),
        `UnknownOutcome` if the stream ended after it was handed to the wire.
        """

    def cancel(self, ticket: int) -> bool:
        """Forget the request: its `reply` is not called any more. Return True if it was never sent."""


class Cluster(Protocol):
    """What the node gives to its router."""

    @property
    def node_id(self) -> NodeId:
        """This node."""

    @property
    def map(self) -> ClusterMap | None:
        """The newest cluster map that this node knows; a new object for each change."""

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, monotonic: the clock of the event loop."""

    @property
    def rng(self) -> Random:
        """Randomness for jitter."""

    def replica(self, partition: GroupId) -> Replica | None:
        """Return this node's replica of the partition, if it runs one."""

    def forwarder(self, node: NodeId) -> Forwarder:
        """Return the way to another node; one that answers `Unavailable` if the node is not known."""

    def status(self) -> cluster_pb2.NodeStatus:
        """Return the state of this node and of its replicas."""

    def content_hash(self, partition: GroupId) -> Awaitable[cluster_pb2.GetContentHashResponse]:
        """Hash the content of this node's replica; raises a `KVError` if there is none."""
