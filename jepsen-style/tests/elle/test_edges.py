"""The dependency graph: real time by its reduction, and the bound on what unread appends add."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen import graph
from kv_jepsen.elle import Append, Kind, Read, Txn, check
from kv_jepsen.elle.edges import BIT, UNOBSERVED_MAX, build
from kv_jepsen.elle.orders import infer
from kv_jepsen.elle.txn import SHOWN_MAX, Mop, shorten
from kv_jepsen.history import Outcome


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=14))
def test_the_reduction_says_exactly_who_came_before_whom(spans: list[tuple[int, int]]) -> None:
    """Paths of real-time edges join exactly the pairs of which the first ended before the second began."""
    txns = [
        Txn(i, i, Outcome.OK, (Append("x", i),), start * 100 + i, (start + length) * 100 + i)
        for i, (start, length) in enumerate(spans)
    ]
    edges = build(txns, infer(txns)).graph.project(BIT[Kind.REALTIME])
    pairs = [(a.index, b.index) for a in txns for b in txns if a is not b]
    before = {(a.index, b.index) for a in txns for b in txns if a.end < b.start}
    assert set(graph.reachable_pairs(pairs, edges)) == before


def test_real_time_edges_grow_with_the_processes_and_not_with_the_square() -> None:
    """A serial history has one real-time edge for each transaction after the first."""
    txns = [Txn(i, i, Outcome.OK, (Append("x", i),), 2 * i, 2 * i + 1) for i in range(1000)]
    edges = build(txns, infer(txns)).graph.project(BIT[Kind.REALTIME])
    assert sum(map(len, edges.values())) == 999


def lost(appends: int, reads: int) -> list[Txn]:
    """So many acknowledged appends, then so many reads that show none of them."""
    mops: list[Mop] = [*(Append("x", i) for i in range(appends)), *[Read("x", ())] * reads]
    return [Txn(i, i, Outcome.OK, (mop,), 2 * i, 2 * i + 1) for i, mop in enumerate(mops)]


def test_unread_appends_add_a_bounded_number_of_edges() -> None:
    """Up to the bound each append that no read shows is joined with each read, beyond it only the likeliest are."""
    for appends, joined in ((UNOBSERVED_MAX, UNOBSERVED_MAX), (UNOBSERVED_MAX + 1, UNOBSERVED_MAX)):
        txns = lost(appends, UNOBSERVED_MAX + 1)
        edges = build(txns, infer(txns)).graph.project(BIT[Kind.RW])
        assert sum(map(len, edges.values())) == joined * UNOBSERVED_MAX
        assert check(txns).valid is False


def test_a_long_list_is_shown_by_its_end() -> None:
    """Lists of up to the limit are shown whole; of longer ones it is told how much is hidden."""
    assert shorten(tuple(range(SHOWN_MAX))) == "[0, 1, 2, 3, 4, 5, 6, 7]"
    assert shorten(tuple(range(SHOWN_MAX + 1))) == "[(1 more), 1, 2, 3, 4, 5, 6, 7, 8]"
