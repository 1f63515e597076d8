"""Components, cycles and reachability against their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen import graph
from kv_jepsen.graph import Graph

EDGES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2, 3])), max_size=30)


def build(edges: list[tuple[int, int, int]]) -> Graph:
    """The graph of these edges."""
    made = Graph()
    for source, target, label in edges:
        made.add(source, target, label)
    return made


def reaches(adjacency: graph.Adjacency, source: int, target: int) -> bool:
    """By definition: a path of one edge or more."""
    seen: set[int] = set()
    todo = list(adjacency.get(source, ()))
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(adjacency.get(node, ()))
    return target in seen


@given(EDGES)
def test_components_are_the_nodes_that_reach_each_other(edges: list[tuple[int, int, int]]) -> None:
    """Two nodes share a component exactly if each reaches the other."""
    adjacency = build(edges).project(~0)
    found = {frozenset(part) for part in graph.components(adjacency)}
    expected = {
        frozenset(b for b in range(10) if a == b or (reaches(adjacency, a, b) and reaches(adjacency, b, a)))
        for a in range(10)
    }
    assert found == {part for part in expected if len(part) > 1}


@given(EDGES)
def test_a_shortest_cycle_is_a_cycle_and_none_is_shorter(edges: list[tuple[int, int, int]]) -> None:
    """In each component the cycle found consists of edges, and no node has a shorter way back to itself."""
    adjacency = build(edges).project(~0)
    for part in graph.components(adjacency):
        cycle = graph.shortest_cycle(part, adjacency)
        assert all(b in adjacency[a] for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True))
        lengths = [len(path) - 1 for node in part if (path := graph.shortest_path(node, node, adjacency))]
        assert len(cycle) == min(lengths)


@given(EDGES)
def test_reachable_pairs_are_those_with_a_path(edges: list[tuple[int, int, int]]) -> None:
    """On an acyclic graph every pair is answered as a search for a path would."""
    adjacency = build([(min(a, b), max(a, b), label) for a, b, label in edges]).project(~0)
    pairs = [(a, b) for a in adjacency for b in range(10) if a != b]
    assert graph.reachable_pairs(pairs, adjacency) == [p for p in pairs if reaches(adjacency, *p)]


def test_reachable_pairs_of_more_targets_than_one_pass_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets beyond one pass are answered by the next."""
    monkeypatch.setattr(graph, "SOURCES_PER_PASS", 2)
    chain = {i: [i + 1] for i in range(7)}
    pairs = [(0, i) for i in range(1, 8)] + [(i, 0) for i in range(1, 7)]
    assert graph.reachable_pairs(pairs, chain) == [(0, i) for i in range(1, 8)]


def test_a_cyclic_graph_has_no_topological_order() -> None:
    """Asking for one is an error, not an endless loop."""
    with pytest.raises(ValueError, match="the graph has a cycle"):
        graph.reverse_topological({0: [1], 1: [0]})


@given(EDGES)
def test_cycles_of_the_product_never_take_two_marked_edges_in_a_row(
    edges: list[tuple[int, int, int]],
) -> None:
    """Each cycle of the product is a closed walk of the graph in which a free edge follows each marked one."""
    made = build(edges)
    twice = graph.product(made, range(10), 1, 2, lambda node, marked: 2 * node + marked)
    for part in graph.components(twice):
        inside = {node: [b for b in twice[node] if b in set(part)] for node in part}
        walk = graph.shortest_cycle(part, inside)
        for node, following in zip(walk, walk[1:] + walk[:1], strict=True):
            assert made.labels(node // 2, following // 2) & (2 if following % 2 else 1)
            assert not (node % 2 and following % 2)


def test_a_large_component_still_gives_a_cycle() -> None:
    """With more nodes than are tried as starts, a cycle is found, if not the shortest."""
    ring = {i: [(i + 1) % 500] for i in range(500)}
    assert len(graph.shortest_cycle(list(range(500)), ring)) == 500
    assert len(graph.spread(range(500), graph.STARTS_MAX)) == graph.STARTS_MAX


def test_a_long_chain_needs_no_recursion() -> None:
    """A path of a hundred thousand nodes is taken apart without a deep stack."""
    chain = {i: [i + 1] for i in range(100_000)}
    assert graph.components(chain) == []
    assert len(graph.reverse_topological(chain)) == 100_001
