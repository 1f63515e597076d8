"""The cluster map: a map that exists is valid, survives its encoding, and is agreed on without talking."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.cluster.map import ClusterMap, NodeInfo, PartitionInfo, decode, from_proto, initial_map
from kv.errors import InvalidArgument
from kv.router.ring import HASH_SPACE, Ring
from kv.v1 import cluster_pb2

NODES = (
    NodeInfo("n1", "127.0.0.1:7001", "127.0.0.1:8001", "a"),
    NodeInfo("n2", "127.0.0.1:7002", "", "b"),
    NodeInfo("n3", "127.0.0.1:7003"),
)
HALF = HASH_SPACE // 2
GOOD = ClusterMap(
    epoch=7,
    cluster="test",
    nodes=NODES,
    partitions=(
        PartitionInfo(2, 0, HALF, ("n2", "n1"), epoch=4),
        PartitionInfo(1, HALF, HASH_SPACE, ("n3",)),
    ),
    replication_factor=2,
)


def first_map(
    nodes: tuple[NodeInfo, ...] = NODES, partitions: int = 16, replication_factor: int = 3
) -> ClusterMap:
    """Return a first map with the default parameters."""
    return initial_map(
        "test",
        nodes,
        partitions=partitions,
        replication_factor=replication_factor,
        virtual_nodes=64,
        load_factor=1.25,
    )


def test_lookups() -> None:
    """Nodes and partitions are found by id, and a node's partitions in the order of their hashes."""
    assert GOOD.node("n2") == NODES[1]
    assert GOOD.node("n9") is None
    assert GOOD.partition(1) == GOOD.partitions[1]
    assert GOOD.partition(0) is None
    assert GOOD.partitions_on("n1") == (GOOD.partitions[0],)
    assert GOOD.partitions_on("n9") == ()


@given(st.integers(1, 64), st.integers(1, 3))
def test_encoding_round_trip(partitions: int, replication_factor: int) -> None:
    """A map is the same after it was encoded and decoded."""
    made = first_map(partitions=partitions, replication_factor=replication_factor)
    assert decode(made.encode()) == made


def test_round_trip_keeps_every_field() -> None:
    """Addresses, zones, epochs and the order of replicas survive the encoding."""
    assert decode(GOOD.encode()) == GOOD
    assert from_proto(GOOD.to_proto()) == GOOD


def test_end_of_the_space_on_the_wire() -> None:
    """2^64 does not fit into a uint64 and travels as 0, even when one partition owns everything."""
    assert [part.hash_end for part in GOOD.to_proto().partitions] == [HALF, 0]
    one = first_map(partitions=1)
    assert one.partitions[0].hash_end == HASH_SPACE
    assert decode(one.encode()) == one


def test_order_on_the_wire_does_not_matter() -> None:
    """Whoever wrote the map in whatever order, the reader has the canonical one."""
    proto = GOOD.to_proto()
    nodes, partitions = list(proto.nodes), list(proto.partitions)
    del proto.nodes[:], proto.partitions[:]
    proto.nodes.extend(reversed(nodes))
    proto.partitions.extend(reversed(partitions))
    assert from_proto(proto) == GOOD
    assert from_proto(proto).encode() == GOOD.encode()


PART = GOOD.partitions


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ({"epoch": 0}, "map epoch 0"),
        ({"cluster": ""}, "no name"),
        ({"replication_factor": 0}, "replication_factor"),
        ({"nodes": NODES[::-1]}, "order of their ids"),
        ({"nodes": (NODES[0], *NODES)}, "each once"),
        ({"nodes": (replace(NODES[0], id="n 1"), *NODES[1:])}, "node id 'n 1'"),
        ({"nodes": (replace(NODES[0], address=""), *NODES[1:])}, "node n1 has no address"),
        ({"partitions": ()}, "end at 0"),
        ({"partitions": PART[:1]}, "not at 2\\^64"),
        ({"partitions": PART[::-1]}, "gap"),
        ({"partitions": (PART[0], replace(PART[1], hash_start=HALF - 1))}, "partition 1 .* overlaps"),
        ({"partitions": (PART[0], replace(PART[1], hash_start=HALF + 1))}, "partition 1 .* gap"),
        ({"partitions": (PART[0], replace(PART[1], id=2))}, "same id"),
        ({"partitions": (PART[0], replace(PART[1], id=0))}, "the meta group's"),
        ({"partitions": (PART[0], replace(PART[1], epoch=0))}, "partition 1 has epoch 0"),
        ({"partitions": (PART[0], replace(PART[1], replicas=()))}, "partition 1 has no replicas"),
        ({"partitions": (PART[0], replace(PART[1], replicas=("n1", "n1")))}, "one twice"),
        ({"partitions": (PART[0], replace(PART[1], replicas=("n1", "n8")))}, "unknown nodes: n8"),
    ],
)
def test_bad_maps_do_not_exist(bad: dict[str, object], what: str) -> None:
    """A map that breaks a rule cannot be made, and the error names what is wrong."""
    with pytest.raises(ValueError, match=what):
        replace(GOOD, **bad)  # type: ignore[arg-type] # each case sets one field


def test_bad_maps_from_the_wire() -> None:
    """What a peer sends is refused with a definite error that says what is wrong."""
    proto = GOOD.to_proto()
    proto.partitions[0].replicas.append("n8")
    with pytest.raises(InvalidArgument, match="unknown nodes: n8") as caught:
        from_proto(proto)
    assert caught.value.definite
    with pytest.raises(InvalidArgument, match="cannot be read"):
        decode(b"\xff\xff\xff")
    with pytest.raises(InvalidArgument, match="map epoch 0"):
        decode(cluster_pb2.ClusterMap().SerializeToString())


@given(st.randoms(use_true_random=False))
def test_nodes_agree_on_the_first_map(random: Random) -> None:
    """Nodes that read the same configuration in any order make the same first map, byte by byte."""
    shuffled = list(NODES)
    random.shuffle(shuffled)
    assert first_map(tuple(shuffled)).encode() == first_map().encode()


def test_first_map() -> None:
    """The first map has epoch 1, partitions from 1 in equal ranges that make a ring, and every replica."""
    made = first_map()
    assert made.epoch == 1
    assert [part.id for part in made.partitions] == list(range(1, 17))
    assert {part.epoch for part in made.partitions} == {1}
    assert all(set(part.replicas) == {"n1", "n2", "n3"} for part in made.partitions)
    assert Ring(made.partitions).partition_of_hash(HALF) == 9


def test_first_map_needs_enough_nodes() -> None:
    """More replicas than nodes are refused with both numbers."""
    with pytest.raises(ValueError, match="replication_factor 4 needs 1 to 3"):
        first_map(replication_factor=4)
