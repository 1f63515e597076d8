"""The graph of dependencies between transactions: ww, wr, rw, process and real-time edges.

Pure. Nodes are the transactions that happened: those that completed, and those of unknown outcome of which an
element was read. Edges follow Adya's direct serialization graph over the inferred version orders; the
real-time edges are its transitive reduction, made in one sweep over the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from kv_jepsen.elle.anomaly import Kind
from kv_jepsen.elle.orders import KeyOrder, Orders
from kv_jepsen.elle.txn import Element, Elements, Key, Txn
from kv_jepsen.graph import Graph
from kv_jepsen.history import Outcome

BIT: Final = {Kind.WW: 1, Kind.WR: 2, Kind.RW: 4, Kind.PROCESS: 8, Kind.REALTIME: 16}
"""The label of each kind in the graph."""

UNOBSERVED_MAX: Final = 64
"""Of one key's appends that happened and that no read shows, and of the reads that show all others, at most this many
give edges to each other: the appends that ended first and the reads that began last, where a cycle is likeliest."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why there is a data edge: the key, and the elements of both sides (None: nothing yet, the empty list)."""

    key: Key
    before: Element | None
    after: Element | None


@dataclass(slots=True)
class Dependencies:
    """The graph, and for each data edge the first evidence."""

    graph: Graph = field(default_factory=Graph)
    evidence: dict[tuple[int, int, Kind], Evidence] = field(default_factory=dict)

    def add(self, source: int, target: int, kind: Kind, evidence: Evidence | None = None) -> None:
        """Add an edge; one from a transaction to itself says nothing and is left out."""
        self.graph.add(source, target, BIT[kind])
        if evidence is not None and source != target:
            self.evidence.setdefault((source, target, kind), evidence)


@dataclass(frozen=True, slots=True)
class _Chain:
    """The elements of one key that committed transactions appended, with their places in the order."""

    places: list[int]
    elements: list[Element]
    writers: list[int]


def build(txns: Sequence[Txn], orders: Orders) -> Dependencies:
    """All edges between the transactions that happened."""
    found = Dependencies()
    happened = {txn.index for txn in happened_txns(txns, orders)}
    reads = _reads_by_key(txns)
    ordered = [txn for txn in txns if txn.index in happened]
    unread = _unread_appends(ordered, orders)
    for key in dict.fromkeys([*orders.keys, *unread]):
        order = orders.keys.get(key, KeyOrder((), complete=True))
        chain = _chain(key, order, orders, happened)
        _add_ww(found, key, chain)
        full = _add_reads(found, key, order, chain, orders, reads.get(key, ()), happened)
        if order.complete:
            _add_unread(found, key, chain, txns, full, unread.get(key, ()))
    _add_process(found, ordered)
    _add_realtime(found, ordered)
    return found


def happened_txns(txns: Sequence[Txn], orders: Orders) -> Iterator[Txn]:
    """Those that completed, and those of unknown outcome of which an element was read."""
    seen: set[int] = set()
    for key, order in orders.keys.items():
        for element in order.elements:
            writer = orders.writer(key, element)
            if writer is not None:
                seen.add(writer.txn)
    for txn in txns:
        if txn.ok or (txn.outcome is Outcome.UNKNOWN and txn.index in seen):
            yield txn


def _reads_by_key(txns: Sequence[Txn]) -> dict[Key, list[tuple[int, Elements]]]:
    reads: dict[Key, list[tuple[int, Elements]]] = {}
    for txn in txns:
        if txn.ok:
            for key, elements in txn.external_reads():
                reads.setdefault(key, []).append((txn.index, elements))
    return reads


def _unread_appends(txns: Sequence[Txn], orders: Orders) -> dict[Key, list[tuple[int, Element]]]:
    """Appends of transactions that happened, as a whole, whose elements are not in the order of their key."""
    known = {key: set(order.elements) for key, order in orders.keys.items()}
    unread: dict[Key, list[tuple[int, Element]]] = {}
    for txn in txns:
        for append in txn.appends():
            if append.element not in known.get(append.key, ()):
                unread.setdefault(append.key, []).append((txn.index, append.element))
    return unread


def _chain(key: Key, order: KeyOrder, orders: Orders, happened: set[int]) -> _Chain:
    chain = _Chain([], [], [])
    for place, element in enumerate(order.elements):
        writer = orders.writer(key, element)
        if writer is not None and writer.txn in happened:
            chain.places.append(place)
            chain.elements.append(element)
            chain.writers.append(writer.txn)
    return chain


def _add_ww(found: Dependencies, key: Key, chain: _Chain) -> None:
    for i in range(1, len(chain.writers)):
        evidence = Evidence(key, chain.elements[i - 1], chain.elements[i])
        found.add(chain.writers[i - 1], chain.writers[i], Kind.WW, evidence)


def _add_reads(
    found: Dependencies,
    key: Key,
    order: KeyOrder,
    chain: _Chain,
    orders: Orders,
    reads: Sequence[tuple[int, Elements]],
    happened: set[int],
) -> list[int]:
    """The wr and rw edges of a key's reads; returns who read all that is known of it."""
    following = _following(order, chain)
    full: list[int] = []
    for reader, elements in reads:
        last = elements[-1] if elements else None
        writer = orders.writer(key, last) if elements else None
        if writer is not None and writer.txn in happened:
            found.add(writer.txn, reader, Kind.WR, Evidence(key, last, last))
        if len(elements) <= len(order.elements) and order.elements[: len(elements)] == elements:
            after = following[len(elements)]
            if after is None:
                full.append(reader)
            else:
                found.add(reader, chain.writers[after], Kind.RW, Evidence(key, last, chain.elements[after]))
    return full


def _following(order: KeyOrder, chain: _Chain) -> list[int | None]:
    """For a read of each length: which link of the chain it did not see first."""
    following: list[int | None] = [None] * (len(order.elements) + 1)
    after: int | None = None
    place_of = dict(zip(chain.places, range(len(chain.places)), strict=True))
    for place in range(len(order.elements) - 1, -1, -1):
        after = place_of.get(place, after)
        following[place] = after
    return following


def _add_unread(
    found: Dependencies,
    key: Key,
    chain: _Chain,
    txns: Sequence[Txn],
    full: Sequence[int],
    unread: Sequence[tuple[int, Element]],
) -> None:
    """An append that happened and that no read shows came after all that reads show: lists only grow."""
    last = chain.elements[-1] if chain.elements else None
    if chain.writers:
        for writer, element in unread:
            found.add(chain.writers[-1], writer, Kind.WW, Evidence(key, last, element))
    by_end = sorted(unread, key=lambda append: txns[append[0]].end)[:UNOBSERVED_MAX]
    by_start = sorted(full, key=lambda index: txns[index].start)[-UNOBSERVED_MAX:]
    for reader in by_start:
        for writer, element in by_end:
            found.add(reader, writer, Kind.RW, Evidence(key, last, element))


def _add_process(found: Dependencies, txns: Sequence[Txn]) -> None:
    """One transaction of a process after another, once the first has completed."""
    previous: dict[object, int] = {}
    for txn in sorted(txns, key=lambda t: t.start):
        if txn.process in previous:
            found.add(previous[txn.process], txn.index, Kind.PROCESS)
        if txn.ok:
            previous[txn.process] = txn.index


def _add_realtime(found: Dependencies, txns: Sequence[Txn]) -> None:
    """From each transaction to those invoked after its completion, without what follows by transitivity.

    The frontier holds the completed transactions that no other completed one follows; a new one follows exactly
    those. So there are at most as many edges for each as there are processes.
    """
    events = sorted(
        [(txn.start, 0, txn.index) for txn in txns] + [(txn.end, 1, txn.index) for txn in txns if txn.ok]
    )
    frontier: dict[int, None] = {}
    before: dict[int, list[int]] = {}
    for _, is_end, index in events:
        if is_end:
            for earlier in before.pop(index):
                frontier.pop(earlier, None)
            frontier[index] = None
        else:
            before[index] = list(frontier)
            for earlier in frontier:
                found.add(earlier, index, Kind.REALTIME)
