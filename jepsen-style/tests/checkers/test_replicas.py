"""Replicas: equal content at equal index is accepted; a difference or a replica left behind is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen.checkers import ReplicaState, replicas_equal

LOOKS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 2), st.integers(0, 3), st.integers(0, 1)), max_size=8
)


@given(LOOKS)
def test_content_differs_exactly_if_two_looks_at_one_index_differ(
    looks: list[tuple[str, int, int, int]],
) -> None:
    """The verdict is that of comparing all pairs of the same partition and index."""
    states = [
        ReplicaState(node, partition, index, f"h{content}") for node, partition, index, content in looks
    ]
    differ = any(a[1:3] == b[1:3] and a[3] != b[3] for a in looks for b in looks)
    assert (replicas_equal(states, settled=False).valid is False) == differ


def test_a_replica_behind_is_found_when_all_is_quiet() -> None:
    """After heal every replica must reach the same index; while writes go on it need not."""
    states = [ReplicaState("a", 1, 9, "x"), ReplicaState("b", 1, 9, "x"), ReplicaState("c", 1, 7, "y")]
    (finding,) = replicas_equal(states).findings
    assert finding.sentence == "Partition 1: c has applied 7 when all was quiet, and others 9."
    assert replicas_equal(states, settled=False).valid is True


def test_nothing_to_compare_is_no_pass() -> None:
    """One replica alone, or none at the same index, tells nothing."""
    assert replicas_equal([]).valid == "unknown"
    assert replicas_equal([ReplicaState("a", 1, 9, "x")]).valid == "unknown"
