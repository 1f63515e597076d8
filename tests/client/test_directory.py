"""Properties of the directory: whom to ask."""

from __future__ import annotations

import dataclasses

import pytest

from kv.client.directory import DOWN_MAX_S, DOWN_MIN_S, Directory
from kv.errors import WrongCluster
from tests.client.fakes import FakeCluster


def make() -> tuple[Directory, FakeCluster]:
    """Return a directory with the map of a fake cluster."""
    cluster = FakeCluster()
    directory = Directory(["entry:1"])
    assert directory.install(cluster.map)
    return directory, cluster


def test_without_a_map_the_endpoints_are_asked() -> None:
    """Before the first map there is nobody but the endpoints."""
    directory = Directory(["a:1", "b:1"])
    assert directory.known_addresses(0.0) == ["a:1", "b:1"]
    assert directory.choose(1, 0.0, any_replica=False, avoid=None) == "a:1"
    assert directory.choose(1, 0.0, any_replica=False, avoid="a:1") == "b:1"


def test_only_a_newer_map_is_taken() -> None:
    """The map's epoch never goes back, and a map of another cluster is refused."""
    directory, cluster = make()
    newer = dataclasses.replace(cluster.map, epoch=2)
    assert not directory.install(cluster.map)
    assert directory.install(newer)
    assert not directory.install(cluster.map)
    assert directory.map is newer
    with pytest.raises(WrongCluster):
        directory.install(dataclasses.replace(cluster.map, epoch=3, cluster="other"))


def test_the_leader_is_asked_first() -> None:
    """The guess is the first replica, then whoever is known to lead, then whoever is left."""
    directory, cluster = make()
    first, second, third = (f"{node}:7001" for node in cluster.map.partitions[0].replicas)
    partition = cluster.map.partitions[0].id
    assert directory.choose(partition, 0.0, any_replica=False, avoid=None) == first
    directory.leader_is(partition, second.removesuffix(":7001"))
    assert directory.choose(partition, 0.0, any_replica=False, avoid=None) == second
    assert directory.choose(partition, 0.0, any_replica=False, avoid=second) == first
    directory.failed(first, 0.0)
    assert directory.choose(partition, 0.0, any_replica=False, avoid=second) == third
    directory.leader_is(partition, "stranger")
    assert directory.leader_of(partition) is None


def test_failed_addresses_rest_and_come_back() -> None:
    """An address that failed is passed over for a time that doubles up to DOWN_MAX_S, until it answers."""
    directory, cluster = make()
    partition = cluster.map.partitions[0].id
    first = directory.choose(partition, 0.0, any_replica=False, avoid=None)
    directory.failed(first, 0.0)
    assert directory.choose(partition, DOWN_MIN_S * 0.9, any_replica=False, avoid=None) != first
    assert directory.choose(partition, DOWN_MIN_S, any_replica=False, avoid=None) == first
    for _ in range(20):
        directory.failed(first, 0.0)
    assert directory.choose(partition, DOWN_MAX_S * 0.99, any_replica=False, avoid=None) != first
    assert directory.choose(partition, DOWN_MAX_S, any_replica=False, avoid=None) == first
    directory.answered(first)
    assert directory.choose(partition, 0.0, any_replica=False, avoid=None) == first


def test_when_all_failed_the_first_to_rest_enough_is_asked() -> None:
    """There is always an address to ask, even if every one failed."""
    directory, _ = make()
    for second, address in enumerate(directory.known_addresses(0.0)):
        directory.failed(address, float(second))
    assert directory.choose(1, 0.0, any_replica=False, avoid="entry:1") == "entry:1"
    assert directory.known_addresses(1.5)[0] == "entry:1"


def test_stale_reads_go_round_the_replicas() -> None:
    """Stale reads are spread over the replicas of the partition."""
    directory, cluster = make()
    part = cluster.map.partitions[0]
    asked = [directory.choose(part.id, 0.0, any_replica=True, avoid=None) for _ in range(6)]
    assert sorted(asked) == sorted([f"{node}:7001" for node in part.replicas] * 2)
