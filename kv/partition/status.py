"""What a replica tells people about itself.

Here lives the translation into `kv.v1.ReplicaStatus`, and nothing is decided.
"""

from __future__ import annotations

from typing import Protocol

from kv.raft.api import GroupHandle
from kv.v1 import cluster_pb2


class Described(Protocol):
    """What is told of a replica."""

    @property
    def partition_id(self) -> int:
        """The partition."""

    @property
    def raft(self) -> GroupHandle:
        """Its group."""

    @property
    def applied_index(self) -> int:
        """The index of the last applied entry."""

    @property
    def checkpoint_index(self) -> int:
        """The applied index that would survive a crash now."""

    @property
    def stopped_because(self) -> str | None:
        """Why it stopped: its own failure, or that of its group."""


def status_of(replica: Described, keys: int, sessions: int) -> cluster_pb2.ReplicaStatus:
    """Return the state of a replica, for people."""
    raft, failure = replica.raft, replica.stopped_because
    role = cluster_pb2.REPLICA_ROLE_LEADER if raft.is_leader else cluster_pb2.REPLICA_ROLE_FOLLOWER
    return cluster_pb2.ReplicaStatus(
        partition=replica.partition_id,
        epoch=raft.epoch,
        role=role if failure is None else cluster_pb2.REPLICA_ROLE_STOPPED,
        leader=raft.leader or "",
        term=raft.term,
        commit_index=raft.commit_index,
        applied_index=replica.applied_index,
        first_index=raft.first_index,
        last_index=raft.last_index,
        durable_index=raft.durable_index,
        checkpoint_index=replica.checkpoint_index,
        failure=failure or "",
        keys=keys,
        sessions=sessions,
    )
