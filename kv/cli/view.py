"""What is known of a cluster at one moment: its map, and what each node said of itself. Pure.

Reads are made from it by `kv status`, `kv ring`, the demo and the supervisor of node processes.
How the parts are fetched is in `kv.cli.probe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kv.v1 import cluster_pb2

LEADER = cluster_pb2.REPLICA_ROLE_LEADER


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A map and the status of each node that answered, by node id; `silent` says why the others did not."""

    cluster_map: cluster_pb2.ClusterMap | None
    statuses: Mapping[str, cluster_pb2.NodeStatus]
    silent: Mapping[str, str] = field(default_factory=dict)

    def replicas(self, partition: int) -> dict[str, cluster_pb2.ReplicaStatus]:
        """Return what each answering node says of its replica of `partition`."""
        return {
            node: replica
            for node, status in self.statuses.items()
            for replica in status.replicas
            if replica.partition == partition
        }

    def leader(self, partition: int) -> str | None:
        """Return the node that leads `partition`, of several claims the one with the highest term."""
        claims = [
            (replica.term, node)
            for node, replica in self.replicas(partition).items()
            if replica.role == LEADER
        ]
        return max(claims)[1] if claims else None

    def led_by(self, node: str) -> tuple[int, ...]:
        """Return the partitions that `node` leads."""
        return tuple(part for part in self.partition_ids if self.leader(part) == node)

    @property
    def partition_ids(self) -> tuple[int, ...]:
        """All partitions of the map, in its order."""
        return tuple(part.id for part in self.cluster_map.partitions) if self.cluster_map else ()

    def unready(self) -> str | None:
        """Return why the cluster cannot serve every key yet, or None if each partition has a leader."""
        if self.cluster_map is None:
            return "no node has a cluster map"
        headless = [part for part in self.partition_ids if self.leader(part) is None]
        if headless:
            return f"no leader in partition {', '.join(map(str, headless))}"
        return None

    def stopped(self) -> dict[tuple[str, int], str]:
        """Return the failure of each replica that stopped itself, by (node, partition)."""
        return {
            (node, replica.partition): replica.failure or "no reason given"
            for node, status in self.statuses.items()
            for replica in status.replicas
            if replica.role == cluster_pb2.REPLICA_ROLE_STOPPED
        }

    def commit_indexes(self) -> dict[int, int]:
        """Return the highest commit index that any replica knows, by partition."""
        return {
            part: max((replica.commit_index for replica in self.replicas(part).values()), default=0)
            for part in self.partition_ids
        }

    def behind(self, node: str, targets: Mapping[int, int]) -> dict[int, int]:
        """Return how many entries `node`'s replicas lack to the index in `targets`, where they lack any.

        A replica that the map gives to the node and that it does not report lacks all.
        """
        if self.cluster_map is None:
            return dict(targets)
        applied = {part: 0 for part in self.partition_ids if node in self._members(part)}
        if status := self.statuses.get(node):
            applied |= {replica.partition: replica.applied_index for replica in status.replicas}
        return {
            part: target - applied[part]
            for part, target in targets.items()
            if part in applied and applied[part] < target
        }

    def _members(self, partition: int) -> tuple[str, ...]:
        assert self.cluster_map is not None
        found = next(part for part in self.cluster_map.partitions if part.id == partition)
        return tuple(found.replicas)


def addresses(cluster_map: cluster_pb2.ClusterMap) -> dict[str, str]:
    """Return the gRPC address of each node of the map."""
    return {node.id: node.address for node in cluster_map.nodes}
