"""Rows and fields of `kv status` and `kv ring`."""

from __future__ import annotations

import json

from kv.cli.cluster import (
    NODE_HEADERS,
    PARTITION_HEADERS,
    node_rows,
    partition_rows,
    placement,
    status_fields,
)
from kv.router.ring import key_hash
from tests.cli.views import FOLLOWER, LEADER, replica, two_partitions

VIEW = two_partitions(
    n1=[replica(1, LEADER, term=3)], n2=[replica(1, FOLLOWER), replica(2, FOLLOWER, term=2)]
)


def test_node_rows_show_silent_nodes_too() -> None:
    """Each node of the map has a row of full width, whether it answered or not."""
    rows = node_rows(VIEW)
    assert [row[0] for row in rows] == ["n1", "n2", "n3"]
    assert {len(row) for row in rows} == {len(NODE_HEADERS)}
    assert [row[3] for row in rows] == ["up", "up", "silent"]
    assert [row[5] for row in rows] == ["1", "0", "-"]


def test_partition_rows_show_the_leaders_figures() -> None:
    """A led partition shows term and indexes of its leader; one without says none."""
    first, second = partition_rows(VIEW)
    assert first == ("1", "0000000000000000-8000000000000000", "n1 n2 n3", "n1", "3", "10/10", "3")
    assert second == ("2", "8000000000000000-10000000000000000", "n2 n3", "none", "-", "-", "-")
    assert len(first) == len(PARTITION_HEADERS)


def test_placement_follows_the_ring_and_the_tag() -> None:
    """A key lives in the partition whose range holds its hash; keys of one tag live together."""
    whole, tagged, other = (placement(VIEW, key) for key in (b"user7", b"{user7}/name", b"{user7}/mail"))
    assert whole["hash"] == tagged["hash"] == other["hash"] == f"{key_hash(b'user7'):016x}"
    assert (whole["tag"], tagged["tag"]) == (None, "user7")
    expected = 1 if key_hash(b"user7") < 1 << 63 else 2
    assert whole["partition"] == tagged["partition"] == expected
    assert whole["leader"] == ("n1" if expected == 1 else None)


def test_status_as_json_has_numbers_as_numbers() -> None:
    """64-bit indexes are JSON numbers, zero fields are there, enums have their names."""
    fields = json.loads(json.dumps(status_fields(VIEW)))
    found = fields["nodes"]["n1"]["replicas"][0]
    assert (found["commit_index"], found["first_index"], found["role"]) == (10, 0, "REPLICA_ROLE_LEADER")
    assert fields["map"]["partitions"][1]["replicas"] == ["n2", "n3"]
    assert fields["leaders"] == {"1": "n1", "2": None}
    assert fields["silent"] == {"n3": "refused"}
