"""Views of made-up clusters."""

from __future__ import annotations

from kv.cli.view import ClusterView
from kv.v1 import cluster_pb2

LEADER = cluster_pb2.REPLICA_ROLE_LEADER
FOLLOWER = cluster_pb2.REPLICA_ROLE_FOLLOWER
STOPPED = cluster_pb2.REPLICA_ROLE_STOPPED


def replica(
    partition: int,
    role: cluster_pb2.ReplicaRole.ValueType,
    term: int = 1,
    commit: int = 10,
    applied: int = 10,
    failure: str = "",
) -> cluster_pb2.ReplicaStatus:
    """Return what a node says of one replica."""
    return cluster_pb2.ReplicaStatus(
        partition=partition,
        role=role,
        term=term,
        commit_index=commit,
        applied_index=applied,
        failure=failure,
        keys=3,
    )


def two_partitions(**replicas: list[cluster_pb2.ReplicaStatus]) -> ClusterView:
    """Return a view of nodes n1..n3 with partitions 1 and 2; a node without replicas is silent."""
    half = 1 << 63
    cluster_map = cluster_pb2.ClusterMap(
        epoch=4,
        cluster="test",
        nodes=[cluster_pb2.Node(id=f"n{n}", address=f"127.0.0.1:700{n}") for n in (1, 2, 3)],
        partitions=[
            cluster_pb2.Partition(id=1, hash_start=0, hash_end=half, replicas=["n1", "n2", "n3"]),
            cluster_pb2.Partition(id=2, hash_start=half, hash_end=0, replicas=["n2", "n3"]),
        ],
    )
    statuses = {
        node: cluster_pb2.NodeStatus(id=node, version="0", replicas=found) for node, found in replicas.items()
    }
    silent = {f"n{n}": "refused" for n in (1, 2, 3) if f"n{n}" not in replicas}
    return ClusterView(cluster_map, statuses, silent)
