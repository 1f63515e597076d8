"""Which replica a request goes to first, for each level and preference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.router.options import ANYWHERE
from kv.router.target import Wish, preferred_order, wish_of
from kv.v1 import kv_pb2

REPLICAS = ("n1", "n2", "n3")
LEADER = kv_pb2.REPLICA_PREFERENCE_LEADER
LOCAL = kv_pb2.REPLICA_PREFERENCE_LOCAL
NAMES = st.sampled_from([*REPLICAS, "stranger"])


def order(level: kv_pb2.ReadLevel.ValueType, *, here: str | None = "n2", **fields: object) -> str:
    """Return the preferred order, in short, where n3 is taken for the leader."""
    wish = wish_of(level, kv_pb2.ReadOptions(**fields))  # type: ignore[arg-type]
    return " ".join(preferred_order(wish, REPLICAS, here=here, leader="n3"))


@given(
    st.builds(Wish, st.booleans(), st.booleans(), st.sampled_from(["", *REPLICAS, "stranger"])),
    st.lists(NAMES, unique=True, min_size=1),
    st.none() | NAMES,
    st.none() | NAMES,
)
def test_an_order_is_a_permutation_of_the_replicas(
    wish: Wish, replicas: list[str], here: str | None, leader: str | None
) -> None:
    """Whatever is known or wished, each replica is asked in turn, and nobody else."""
    found = preferred_order(wish, replicas, here=here, leader=leader)
    assert sorted(found) == sorted(replicas)


def test_linearizable_reads_go_to_the_leader_unless_a_replica_is_named() -> None:
    """LOCAL and a node come first, then the leader, whose read index every replica needs."""
    level = kv_pb2.READ_LEVEL_LINEARIZABLE
    assert order(level) == "n3 n1 n2"
    assert order(level, preference=LEADER) == "n3 n1 n2"
    assert order(level, preference=LOCAL) == "n2 n3 n1"
    assert order(level, node="n1") == "n1 n3 n2"
    assert order(level, preference=LOCAL, here=None) == "n3 n1 n2"


def test_a_lease_read_goes_to_the_leader_whatever_is_preferred() -> None:
    """No other replica has the lease."""
    assert wish_of(kv_pb2.READ_LEVEL_LEASE, kv_pb2.ReadOptions(node="n1", preference=LOCAL)).at_leader


@pytest.mark.parametrize("level", sorted(ANYWHERE))
def test_reads_that_any_replica_serves_begin_here(level: kv_pb2.ReadLevel.ValueType) -> None:
    """The own replica first, then the others in their turn; LEADER and a node change that."""
    assert order(level) == "n2 n1 n3"
    assert order(level, preference=LOCAL) == "n2 n1 n3"
    assert order(level, here=None) == "n1 n2 n3"
    assert order(level, preference=LEADER) == "n3 n1 n2"
    assert order(level, node="n3") == "n3 n2 n1"
    assert order(level, node="stranger") == "n2 n1 n3"
