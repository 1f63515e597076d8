"""Cycles in the dependency graph, found and classified.

Pure. The classes are Adya's, by what the cycle consists of: G0 of ww edges only; G1c of ww and wr; G-single has one
rw edge; G-nonadjacent has several and no two in a row; G2-item is any other. A cycle that needs a process or a
real-time edge bears that in its name. In each strongly connected component the strongest classes are
sought first, and one cycle is reported for each component unless a reported one already rules out as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kv_jepsen import graph
from kv_jepsen.elle.anomaly import Anomaly, Kind, Step
from kv_jepsen.elle.consistency import ruled_out
from kv_jepsen.elle.edges import BIT, Dependencies
from kv_jepsen.elle.explain import because, tell

_WW: Final = BIT[Kind.WW]
_WR: Final = BIT[Kind.WR]
_RW: Final = BIT[Kind.RW]
_EXTRA: Final = {"": 0, "-process": BIT[Kind.PROCESS], "-realtime": BIT[Kind.PROCESS] | BIT[Kind.REALTIME]}
"""The further edges of each level."""

_PREFERENCE: Final = (Kind.WW, Kind.WR, Kind.PROCESS, Kind.REALTIME, Kind.RW)
"""Of several reasons for one edge the one that makes the cycle the stronger class."""

Finder = Callable[[graph.Graph, Sequence[int], int], "list[int] | None"]


@dataclass(frozen=True, slots=True)
class _Search:
    """One class of cycles: its name, the edges that count, and how to find one in a component of these."""

    name: str
    mask: int
    find: Finder


def find(dependencies: Dependencies, ends: Sequence[tuple[int, int]]) -> list[Anomaly]:
    """Cycles of every class; `ends` holds start and end of each transaction, for the words on real time."""
    whole = graph.components(dependencies.graph.project(~0))
    found: list[tuple[Anomaly, frozenset[str]]] = []
    for suffix, extra in _EXTRA.items():
        for search in _SEARCHES:
            for nodes in whole:
                for cycle in _in_components(dependencies.graph, nodes, search, suffix, extra, found):
                    anomaly = classify(cycle, search.mask | extra, dependencies, ends)
                    found.append((anomaly, ruled_out([anomaly.name])))
    return [anomaly for anomaly, _ in found]


def _in_components(
    edges: graph.Graph,
    nodes: Sequence[int],
    search: _Search,
    suffix: str,
    extra: int,
    found: list[tuple[Anomaly, frozenset[str]]],
) -> Iterator[list[int]]:
    """A cycle of the class in each component that has one and none that rules out as much."""
    implied = ruled_out([search.name + suffix])
    covering = [anomaly.txns for anomaly, out in found if out >= implied]
    mask = search.mask | extra
    for part in graph.components(edges.project(mask, nodes)):
        inside = set(part)
        if not any(inside.issuperset(txns) for txns in covering):
            cycle = search.find(edges, part, mask)
            if cycle is not None:
                yield cycle


def _any_cycle(edges: graph.Graph, part: Sequence[int], mask: int) -> list[int]:
    return graph.shortest_cycle(part, edges.project(mask, part))


def _one_rw(edges: graph.Graph, part: Sequence[int], mask: int) -> list[int] | None:
    """A cycle with exactly one rw edge: the rest of the component's edges are acyclic, or a stronger class was found."""
    rest = edges.project(mask & ~_RW, part)
    anti = [(b, a) for a, targets in edges.project(_RW, part).items() for b in targets]
    back = graph.reachable_pairs(anti, rest)
    best: list[int] | None = None
    for b, a in graph.spread(back, graph.STARTS_MAX):
        path = graph.shortest_path(b, a, rest)
        assert path is not None, "reachability found this pair"
        if best is None or len(path) < len(best):
            best = path
    return best


def _nonadjacent(edges: graph.Graph, part: Sequence[int], mask: int) -> list[int] | None:
    """A closed walk without two rw edges in a row."""
    twice = graph.product(edges, part, mask & ~_RW, _RW, lambda node, after_rw: 2 * node + after_rw)
    for component in graph.components(twice):
        inside = set(component)
        within = {node: [b for b in twice[node] if b in inside] for node in component}
        return [node // 2 for node in graph.shortest_cycle(component, within)]
    return None


_SEARCHES: Final = (
    _Search("G0", _WW, _any_cycle),
    _Search("G1c", _WW | _WR, _any_cycle),
    _Search("G-single", _WW | _WR | _RW, _one_rw),
    _Search("G-nonadjacent", _WW | _WR | _RW, _nonadjacent),
    _Search("G2-item", _WW | _WR | _RW, _any_cycle),
)


def classify(
    cycle: Sequence[int], mask: int, dependencies: Dependencies, ends: Sequence[tuple[int, int]]
) -> Anomaly:
    """The anomaly that a closed walk is, by the edges of `mask` on it."""
    labels = dependencies.graph.labels
    kinds = _shorten([(a, _preferred(labels(a, b) & mask), b) for a, b in _around(cycle)])
    steps = tuple(Step(a, b, kind, because(dependencies, ends, a, kind, b)) for a, kind, b in kinds)
    name = _class_of([step.kind for step in steps])
    return Anomaly(name, tuple(step.source for step in steps), tell(name, steps), steps)


def _around(cycle: Sequence[int]) -> Iterator[tuple[int, int]]:
    for i, node in enumerate(cycle):
        yield node, cycle[(i + 1) % len(cycle)]


def _preferred(labels: int) -> Kind:
    return next(kind for kind in _PREFERENCE if labels & BIT[kind])


def _shorten(steps: list[tuple[int, Kind, int]]) -> list[tuple[int, Kind, int]]:
    """Join consecutive process and real-time edges: each says that one ended before the next began."""
    timely = (Kind.PROCESS, Kind.REALTIME)
    if all(kind in timely for _, kind, _ in steps):
        raise AssertionError(f"time itself runs in a circle: {steps}")
    while steps[-1][1] in timely:  # so that no run of such edges goes across the end
        steps = steps[-1:] + steps[:-1]
    out: list[tuple[int, Kind, int]] = []
    for a, kind, b in steps:
        if out and kind in timely and out[-1][1] in timely:
            joined = Kind.PROCESS if kind is out[-1][1] is Kind.PROCESS else Kind.REALTIME
            out[-1] = (out[-1][0], joined, b)
        else:
            out.append((a, kind, b))
    return out


def _class_of(kinds: Sequence[Kind]) -> str:
    anti = [i for i, kind in enumerate(kinds) if kind is Kind.RW]
    if not anti:
        name = "G1c" if Kind.WR in kinds else "G0"
    elif len(anti) == 1:
        name = "G-single"
    else:
        adjacent = any((i + 1) % len(kinds) in anti for i in anti)
        name = "G2-item" if adjacent else "G-nonadjacent"
    if Kind.REALTIME in kinds:
        return name + "-realtime"
    return name + ("-process" if Kind.PROCESS in kinds else "")
