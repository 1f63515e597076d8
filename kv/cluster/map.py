"""The cluster map: which nodes there are, and which partition has which hashes and replicas.

Pure values with their encoding. A map that exists is valid: construction checks it, so whoever
holds one need not. The first map is a pure function of the configuration, so that nodes which
start with the same configuration agree on it without asking each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from kv.cluster.placement import place
from kv.errors import InvalidArgument
from kv.ids import META_GROUP, GroupId, NodeId, check_node_id
from kv.router.ring import HASH_SPACE, check_cover, initial_ranges
from kv.v1 import cluster_pb2

FIRST_EPOCH = 1
"""Epoch of the first map and of each partition's first configuration; 0 on the wire means none."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of the cluster: its name, where gRPC and HTTP (may be empty) are served, and its zone (may be empty)."""

    id: NodeId
    address: str
    http_address: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """A partition owns the hashes hash_start <= h < hash_end; `hash_end` may be 2^64 (on the wire 0).

    The first of `replicas` is where the leader is preferred; `epoch` is the configuration epoch of
    its Raft group.
    """

    id: GroupId
    hash_start: int
    hash_end: int
    replicas: tuple[NodeId, ...]
    epoch: int = FIRST_EPOCH


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """The nodes in the order of their ids and the partitions in the order of their hashes.

    `epoch` grows with each change. Raises `ValueError` that says what is wrong unless ids are
    unique, the ranges cover the hash space exactly once, and replicas are distinct, known nodes.
    """

    epoch: int
    cluster: str
    nodes: tuple[NodeInfo, ...]
    partitions: tuple[PartitionInfo, ...]
    replication_factor: int
    _node_by_id: Mapping[NodeId, NodeInfo] = field(init=False, repr=False, compare=False)
    _partition_by_id: Mapping[GroupId, PartitionInfo] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_head(self)
        _check_nodes(self.nodes)
        _check_partitions(self.partitions, {node.id for node in self.nodes})
        object.__setattr__(self, "_node_by_id", {node.id: node for node in self.nodes})
        object.__setattr__(self, "_partition_by_id", {part.id: part for part in self.partitions})

    def node(self, node_id: NodeId) -> NodeInfo | None:
        """Return the node of that name, or None."""
        return self._node_by_id.get(node_id)

    def partition(self, partition_id: GroupId) -> PartitionInfo | None:
        """Return the partition of that number, or None."""
        return self._partition_by_id.get(partition_id)

    def partitions_on(self, node_id: NodeId) -> tuple[PartitionInfo, ...]:
        """Return the partitions that have a replica on the node, in the order of their hashes."""
        return tuple(part for part in self.partitions if node_id in part.replicas)

    def to_proto(self) -> cluster_pb2.ClusterMap:
        """Return the map as it travels."""
        return cluster_pb2.ClusterMap(
            epoch=self.epoch,
            cluster=self.cluster,
            nodes=[_node_to_proto(node) for node in self.nodes],
            partitions=[_partition_to_proto(part) for part in self.partitions],
            replication_factor=self.replication_factor,
        )

    def encode(self) -> bytes:
        """Return the map as bytes; equal maps give equal bytes within one version of protobuf."""
        return self.to_proto().SerializeToString(deterministic=True)


def from_proto(proto: cluster_pb2.ClusterMap) -> ClusterMap:
    """Return the map that `proto` carries, in canonical order; raise `InvalidArgument` if it is not a valid one."""
    try:
        return ClusterMap(
            epoch=proto.epoch,
            cluster=proto.cluster,
            nodes=tuple(sorted(map(_node_from_proto, proto.nodes), key=lambda node: node.id)),
            partitions=tuple(sorted(map(_partition_from_proto, proto.partitions), key=_by_hash)),
            replication_factor=proto.replication_factor,
        )
    except ValueError as error:
        raise InvalidArgument(f"the cluster map is not valid: {error}") from error


def decode(data: bytes) -> ClusterMap:
    """Return the map that `encode` wrote; raise `InvalidArgument` if the bytes are no valid map."""
    try:
        return from_proto(cluster_pb2.ClusterMap.FromString(data))
    except DecodeError as error:
        raise InvalidArgument(f"the cluster map cannot be read: {error}") from error


def initial_map(
    cluster: str,
    nodes: Iterable[NodeInfo],
    *,
    partitions: int,
    replication_factor: int,
    virtual_nodes: int,
    load_factor: float,
) -> ClusterMap:
    """Return the first map: equal hash ranges, numbered from 1, placed on the nodes.

    Raises `ValueError` if the parameters do not fit together, as `place` and `initial_ranges` do.
    """
    ordered = tuple(sorted(nodes, key=lambda node: node.id))
    placed = place(
        range(META_GROUP + 1, META_GROUP + 1 + partitions),
        {node.id: node.zone for node in ordered},
        replication_factor=replication_factor,
        virtual_nodes=virtual_nodes,
        load_factor=load_factor,
    )
    parts = (
        PartitionInfo(id=number, hash_start=start, hash_end=end, replicas=placed[number])
        for number, (start, end) in enumerate(initial_ranges(partitions), META_GROUP + 1)
    )
    return ClusterMap(FIRST_EPOCH, cluster, ordered, tuple(parts), replication_factor)


def _by_hash(part: PartitionInfo) -> int:
    return part.hash_start


def _check_head(cluster_map: ClusterMap) -> None:
    if cluster_map.epoch < FIRST_EPOCH:
        raise ValueError(f"the map epoch {cluster_map.epoch} is below {FIRST_EPOCH}")
    if not cluster_map.cluster:
        raise ValueError("the cluster has no name")
    if cluster_map.replication_factor < 1:
        raise ValueError("replication_factor is below 1")


def _check_nodes(nodes: tuple[NodeInfo, ...]) -> None:
    ids = [node.id for node in nodes]
    if ids != sorted(set(ids)):
        raise ValueError("the nodes are not in the order of their ids, each once")
    for node in nodes:
        try:
            check_node_id(node.id)
        except InvalidArgument as error:
            raise ValueError(error.message) from error
        if not node.address:
            raise ValueError(f"node {node.id} has no address")


def _check_partitions(partitions: tuple[PartitionInfo, ...], known: set[NodeId]) -> None:
    check_cover(partitions)
    if len({part.id for part in partitions}) != len(partitions):
        raise ValueError("two partitions have the same id")
    for part in partitions:
        if part.id <= META_GROUP:
            raise ValueError(f"partition id {part.id} is not above {META_GROUP}, the meta group's")
        if part.epoch < FIRST_EPOCH:
            raise ValueError(f"partition {part.id} has epoch {part.epoch}, below {FIRST_EPOCH}")
        if not part.replicas or len(set(part.replicas)) != len(part.replicas):
            raise ValueError(f"partition {part.id} has no replicas, or one twice")
        if strangers := sorted(set(part.replicas) - known):
            raise ValueError(f"partition {part.id} has replicas on unknown nodes: {', '.join(strangers)}")


def _node_to_proto(node: NodeInfo) -> cluster_pb2.Node:
    return cluster_pb2.Node(id=node.id, address=node.address, http_address=node.http_address, zone=node.zone)


def _node_from_proto(proto: cluster_pb2.Node) -> NodeInfo:
    return NodeInfo(proto.id, proto.address, proto.http_address, proto.zone)


def _partition_to_proto(part: PartitionInfo) -> cluster_pb2.Partition:
    return cluster_pb2.Partition(
        id=part.id,
        hash_start=part.hash_start,
        hash_end=part.hash_end % HASH_SPACE,
        replicas=part.replicas,
        epoch=part.epoch,
    )


def _partition_from_proto(proto: cluster_pb2.Partition) -> PartitionInfo:
    hash_end = proto.hash_end or HASH_SPACE
    return PartitionInfo(proto.id, proto.hash_start, hash_end, tuple(proto.replicas), proto.epoch)
