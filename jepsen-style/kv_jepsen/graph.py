"""Directed graphs with labelled edges: strongly connected components, shortest cycles, reachability.

Pure and general: nodes are integers, labels are bits, and nothing here knows what either means. What
an edge says about two transactions lives in `kv_jepsen.elle`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

Adjacency: TypeAlias = Mapping[int, Sequence[int]]
"""Successors of each node; a node without an entry has none."""

SOURCES_PER_PASS: Final = 4096
"""Reachability is answered for this many sources at once: one bit for each, in one integer per node."""

STARTS_MAX: Final = 64
"""In a component larger than this the shortest cycle is sought from this many of its nodes or edges only.
That a cycle is found does not depend on it, how short it is does."""


@dataclass(slots=True)
class Graph:
    """A directed graph without loops; each edge has a mask of labels."""

    edges: dict[int, dict[int, int]] = field(default_factory=dict)

    def add(self, source: int, target: int, label: int) -> None:
        """Add an edge, or a label to an edge; an edge from a node to itself is left out."""
        if source != target:
            targets = self.edges.setdefault(source, {})
            targets[target] = targets.get(target, 0) | label

    def labels(self, source: int, target: int) -> int:
        """The mask of the edge, 0 if there is none."""
        return self.edges.get(source, {}).get(target, 0)

    def project(self, mask: int, nodes: Iterable[int] | None = None) -> dict[int, list[int]]:
        """Successors by edges that have a label of `mask`; inside `nodes` only, if given."""
        if nodes is None:
            return {a: [b for b, label in to.items() if label & mask] for a, to in self.edges.items()}
        inside = set(nodes)
        return {
            a: [b for b, label in self.edges.get(a, {}).items() if label & mask and b in inside]
            for a in inside_in_order(nodes, inside)
        }

    def __len__(self) -> int:
        """How many edges there are."""
        return sum(len(to) for to in self.edges.values())


def inside_in_order(nodes: Iterable[int], inside: set[int]) -> Iterator[int]:
    """The nodes in a fixed order, each once."""
    return iter(sorted(inside)) if isinstance(nodes, set | frozenset) else iter(dict.fromkeys(nodes))


def components(graph: Adjacency) -> list[list[int]]:
    """Strongly connected components of two nodes and more, each sorted.

    Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Comput. 1972; without recursion.
    """
    return [sorted(part) for part in _tarjan(graph) if len(part) > 1]


def reverse_topological(graph: Adjacency) -> list[int]:
    """The nodes of an acyclic graph, each after all its successors.

    Raises:
        ValueError: the graph has a cycle.
    """
    order: list[int] = []
    for part in _tarjan(graph):
        if len(part) > 1:
            raise ValueError(f"the graph has a cycle through {part[0]}: no topological order")
        order.append(part[0])
    return order


def _tarjan(graph: Adjacency) -> Iterator[list[int]]:
    """All components, successors first (Tarjan's order is a reverse topological one)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    for root in graph:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        work: list[tuple[int, Iterator[int]]] = [(root, iter(graph[root]))]
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(graph.get(successor, ()))))
                    break
                if successor in on_stack and index[successor] < low[node]:
                    low[node] = index[successor]
            else:
                work.pop()
                if work and low[node] < low[work[-1][0]]:
                    low[work[-1][0]] = low[node]
                if low[node] == index[node]:
                    yield _pop_component(stack, on_stack, node)


def _pop_component(stack: list[int], on_stack: set[int], root: int) -> list[int]:
    part: list[int] = []
    while True:
        node = stack.pop()
        on_stack.discard(node)
        part.append(node)
        if node == root:
            return part


def shortest_path(start: int, goal: int, graph: Adjacency) -> list[int] | None:
    """The nodes of a shortest path from `start` to `goal`, both included; of at least one edge.

    With `start == goal` it is a shortest cycle through that node. None if there is no path.
    """
    parent: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for successor in graph.get(node, ()):
            if successor == goal:
                return _unwind(parent, start, node, goal)
            if successor != start and successor not in parent:
                parent[successor] = node
                queue.append(successor)
    return None


def _unwind(parent: Mapping[int, int], start: int, last: int, goal: int) -> list[int]:
    path = [goal, last]
    while path[-1] != start:
        path.append(parent[path[-1]])
    path.reverse()
    return path


def shortest_cycle(component: Sequence[int], graph: Adjacency) -> list[int]:
    """A short cycle in a strongly connected component: its nodes, the first not repeated.

    The shortest one if the component has at most `STARTS_MAX` nodes.
    """
    best: list[int] | None = None
    for start in spread(component, STARTS_MAX):
        path = shortest_path(start, start, graph)
        assert path is not None, "each node of a component is on a cycle"
        if best is None or len(path) - 1 < len(best):
            best = path[:-1]
        if len(best) == 2:
            break
    assert best is not None
    return best


def spread(items: Sequence[T], count: int) -> Sequence[T]:
    """At most `count` of the items, evenly spread."""
    if len(items) <= count:
        return items
    return [items[i * len(items) // count] for i in range(count)]


def reachable_pairs(pairs: Sequence[tuple[int, int]], graph: Adjacency) -> list[tuple[int, int]]:
    """Those of `pairs` (source, target) for which the acyclic `graph` has a path from source to target.

    Exact for any number of pairs: bit sets of targets, united in reverse topological order, `SOURCES_PER_PASS`
    targets at a time, so that memory is bounded by that many bits for each node.
    """
    order = reverse_topological(graph)
    targets = list(dict.fromkeys(target for _, target in pairs))
    found: set[tuple[int, int]] = set()
    for first in range(0, len(targets), SOURCES_PER_PASS):
        bit = {target: 1 << i for i, target in enumerate(targets[first : first + SOURCES_PER_PASS])}
        reach = _reach(order, graph, bit)
        found.update(p for p in pairs if p[1] in bit and reach.get(p[0], 0) & bit[p[1]])
    return [pair for pair in pairs if pair in found]


def _reach(order: Sequence[int], graph: Adjacency, bit: Mapping[int, int]) -> dict[int, int]:
    """For each node the targets that a path of zero edges or more leads to, as bits."""
    reach: dict[int, int] = {}
    for node in order:
        bits = bit.get(node, 0)
        for successor in graph.get(node, ()):
            bits |= reach[successor]
        reach[node] = bits
    return reach


def product(
    graph: Graph, nodes: Iterable[int], mask: int, once: int, pair: Callable[[int, bool], int]
) -> dict[int, list[int]]:
    """The graph in which no two consecutive edges are `once` edges.

    Each node is there twice: reached by an edge of `mask` (False), or by one that has only the label `once` (True).
    `pair` names the two. A cycle of the product is a closed walk of the graph without two `once` edges in a row.
    """
    inside = set(nodes)
    out: dict[int, list[int]] = {}
    for node in inside_in_order(nodes, inside):
        edges = [(b, label) for b, label in graph.edges.get(node, {}).items() if b in inside]
        free = [pair(b, False) for b, label in edges if label & mask]
        out[pair(node, True)] = free
        out[pair(node, False)] = free + [pair(b, True) for b, label in edges if label & once]
    return out
