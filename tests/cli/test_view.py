"""What is concluded from a map and the nodes' statuses."""

from __future__ import annotations

from kv.cli.view import ClusterView
from tests.cli.views import FOLLOWER, LEADER, STOPPED, replica, two_partitions


def test_of_two_claims_the_higher_term_leads() -> None:
    """A deposed leader that has not noticed is not shown as the leader."""
    view = two_partitions(n1=[replica(1, LEADER, term=3)], n2=[replica(1, LEADER, term=5)])
    assert view.leader(1) == "n2"
    assert view.leader(2) is None
    assert view.led_by("n2") == (1,)
    assert view.led_by("n1") == ()


def test_ready_means_that_each_partition_has_a_leader() -> None:
    """A cluster is ready when every partition is led, and says which is not."""
    view = two_partitions(n2=[replica(1, LEADER), replica(2, FOLLOWER)])
    assert view.unready() == "no leader in partition 2"
    assert two_partitions(n2=[replica(1, LEADER), replica(2, LEADER)]).unready() is None
    assert ClusterView(None, {}).unready() == "no node has a cluster map"


def test_behind_counts_what_a_node_lacks() -> None:
    """A node lacks entries where it has applied less than the target, all of them if it is silent."""
    view = two_partitions(
        n1=[replica(1, LEADER, commit=10)],
        n2=[replica(1, FOLLOWER, commit=9, applied=7), replica(2, LEADER, commit=20, applied=20)],
    )
    targets = view.commit_indexes()
    assert targets == {1: 10, 2: 20}
    assert view.behind("n2", targets) == {1: 3}
    assert view.behind("n3", targets) == {1: 10, 2: 20}
    assert view.behind("n1", targets) == {}  # not a replica of partition 2


def test_stopped_replicas_are_named_with_their_reason() -> None:
    """A replica that stopped itself is reported with what it said."""
    view = two_partitions(n1=[replica(1, STOPPED, failure="bad entry"), replica(2, STOPPED)])
    assert view.stopped() == {("n1", 1): "bad entry", ("n1", 2): "no reason given"}
