"""Which nodes should hold which partition: consistent hashing with bounded loads.

Pure and deterministic: the same partitions, nodes and parameters give the same placement
everywhere, in whatever order they come. No state is kept and no present placement is looked at;
how a placement is reached, move by move, is decided elsewhere.

How it works. Nodes stand on a ring at `virtual_nodes` points each, partitions at one point. A
partition goes to the first nodes met clockwise that are not full and whose zone it does not have
yet (Karger et al. 1997; bounded loads: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with
Bounded Loads", SODA 2018). That paper places one copy of each ball; with several copies on
distinct nodes and zones a partition placed late can find too few nodes with room. Then the
shortest chain of moves that makes room is applied (an augmenting path, as in a maximum flow), so
the bounds always hold. Leaders are then chosen among the replicas in the same way, as evenly as
the replicas allow.

Bounds. Zones come first: a partition has at most `zone_quota` replicas in a zone, the least
number that the zones permit. Then each node's fair share is its part of all replicas, evened out
over the zones as far as that quota lets it, and no node holds more than load_factor times its fair
share, rounded up. With zones of equal size that is ceil(load_factor * replicas / nodes).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import count
from math import ceil

import xxhash

from kv.ids import GroupId, NodeId

Zone = tuple[str, str]
Replicas = tuple[NodeId, ...]


def place(
    partitions: Iterable[GroupId],
    nodes: Mapping[NodeId, str],
    *,
    replication_factor: int,
    virtual_nodes: int,
    load_factor: float,
) -> dict[GroupId, Replicas]:
    """Return for each partition its nodes, the preferred leader first.

    `nodes` maps each node to its zone; a node with the empty zone is a zone of its own. Raises
    `ValueError` if there are fewer nodes than replicas or a parameter is out of range.
    """
    ids = sorted(set(partitions))
    _check(len(nodes), replication_factor, virtual_nodes, load_factor)
    zones = _zones(nodes)
    quota = zone_quota(nodes, replication_factor)
    bounds = node_bounds(len(ids), nodes, replication_factor=replication_factor, load_factor=load_factor)

    def admits(_partition: GroupId, node: NodeId, others: Sequence[NodeId]) -> bool:
        in_zone = sum(zones[other] == zones[node] for other in others)
        return node not in others and in_zone < quota

    walk = _Walk(nodes, virtual_nodes)
    everywhere = sorted(nodes)
    table = _Table(bounds, admits, lambda _partition: everywhere)
    assigned = _assign(ids, table, walk.nodes_from, replication_factor)
    assert assigned is not None, "the bounds come from a fractional placement, so a whole one exists"
    leaders = _leaders(assigned, len(nodes))
    return {pid: (leaders[pid], *(n for n in held if n != leaders[pid])) for pid, held in assigned.items()}


def zone_quota(nodes: Mapping[NodeId, str], replication_factor: int) -> int:
    """Return the most replicas of one partition in one zone: 1 if there are as many zones as replicas."""
    sizes = Counter(_zones(nodes).values()).values()
    return next(k for k in count(1) if sum(min(size, k) for size in sizes) >= replication_factor)


def node_bounds(
    partitions: int, nodes: Mapping[NodeId, str], *, replication_factor: int, load_factor: float
) -> dict[NodeId, int]:
    """Return for each node the most replicas that it may hold: ceil(load_factor * its fair share)."""
    zones = _zones(nodes)
    shares = _fair_shares(Counter(zones.values()), partitions, replication_factor, nodes)
    factor = Fraction(str(load_factor))  # as written: the float 1.1 is a little more than 1.1
    return {node: min(partitions, ceil(factor * shares[zones[node]])) for node in nodes}


def _fair_shares(
    sizes: Mapping[Zone, int], partitions: int, replication_factor: int, nodes: Mapping[NodeId, str]
) -> dict[Zone, Fraction]:
    """Return the replicas for each node of a zone by water-filling: zones that are full first, the rest evenly."""
    quota = zone_quota(nodes, replication_factor)
    most = {zone: Fraction(partitions * min(size, quota), size) for zone, size in sizes.items()}
    replicas_left, nodes_left = Fraction(partitions * replication_factor), len(nodes)
    shares = {}
    for zone in sorted(sizes, key=lambda zone: (most[zone], zone)):
        shares[zone] = min(most[zone], replicas_left / nodes_left)
        replicas_left -= shares[zone] * sizes[zone]
        nodes_left -= sizes[zone]
    assert replicas_left == 0, "the zone quota leaves room for every replica"
    return shares


def _check(nodes: int, replication_factor: int, virtual_nodes: int, load_factor: float) -> None:
    if not 1 <= replication_factor <= nodes:
        raise ValueError(
            f"replication_factor {replication_factor} needs 1 to {nodes} (the number of nodes): add nodes or lower it"
        )
    if virtual_nodes < 1:
        raise ValueError(f"virtual_nodes {virtual_nodes} is below 1")
    if not load_factor >= 1.0:
        raise ValueError(f"load_factor {load_factor} is below 1.0: the nodes could not hold every replica")


def _zones(nodes: Mapping[NodeId, str]) -> dict[NodeId, Zone]:
    return {node: ("zone", zone) if zone else ("node", node) for node, zone in nodes.items()}


class _Walk:
    """The ring of virtual nodes, walked clockwise from a partition's point."""

    def __init__(self, nodes: Iterable[NodeId], virtual_nodes: int) -> None:
        points = ((_point(f"node/{node}/{i}"), node) for node in nodes for i in range(virtual_nodes))
        self._points = sorted(points)  # the node breaks a tie between equal hashes

    def nodes_from(self, partition: GroupId) -> Iterator[NodeId]:
        """Yield each node once, in the order in which the partition meets it."""
        start = _first_at_or_after(self._points, _point(f"partition/{partition}"))
        seen = set()
        for offset in range(len(self._points)):
            node = self._points[(start + offset) % len(self._points)][1]
            if node not in seen:
                seen.add(node)
                yield node


def _point(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())


def _first_at_or_after(points: Sequence[tuple[int, NodeId]], point: int) -> int:
    low, high = 0, len(points)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if points[middle][0] < point else (low, middle)
    return low


Admits = Callable[[GroupId, NodeId, Sequence[NodeId]], bool]
"""Whether a partition may take a node besides the others that it has."""

Choices = Callable[[GroupId], Iterable[NodeId]]
"""The nodes that come into question for a partition."""

_CameFrom = dict[NodeId, tuple[NodeId, GroupId] | None]
"""For each node reached by a search: the node before it and the partition that would move; None at a start."""


def _assign(
    partitions: Sequence[GroupId], table: _Table, preferred: Choices, copies: int
) -> dict[GroupId, list[NodeId]] | None:
    """Give each partition `copies` nodes, the preferred first; None if the bounds do not permit it."""
    for partition in partitions:
        held = table.held.setdefault(partition, [])
        for node in preferred(partition):
            if len(held) == copies:
                break
            if table.has_room(node) and table.may_take(partition, node):
                table.take(partition, node)
        while len(held) < copies:
            if not table.take_by_moves(partition):
                return None
    return table.held


class _Table:
    """An assignment in the making, within bounds per node."""

    def __init__(self, bounds: Mapping[NodeId, int], admits: Admits, candidates: Choices) -> None:
        self._bounds = bounds
        self._admits = admits
        self._candidates = candidates
        self._holders: dict[NodeId, list[GroupId]] = {node: [] for node in bounds}
        self.held: dict[GroupId, list[NodeId]] = {}

    def has_room(self, node: NodeId) -> bool:
        return len(self._holders[node]) < self._bounds[node]

    def may_take(self, partition: GroupId, node: NodeId, leaving: NodeId | None = None) -> bool:
        others = [other for other in self.held[partition] if other != leaving]
        return node not in self.held[partition] and self._admits(partition, node, others)

    def take(self, partition: GroupId, node: NodeId) -> None:
        assert self.has_room(node)
        self.held[partition].append(node)
        self._holders[node].append(partition)

    def take_by_moves(self, partition: GroupId) -> bool:
        """Make room by the shortest chain of moves and take it; False if there is no such chain.

        The search is breadth first from the full nodes that the partition may take. Being
        shortest, a chain never moves a partition in two ways that exclude each other.
        """
        starts = (node for node in self._candidates(partition) if self.may_take(partition, node))
        came_from: _CameFrom = dict.fromkeys(starts)
        queue = deque(came_from)
        while queue:
            node = queue.popleft()
            if self.has_room(node):
                self.take(partition, self._shift(node, came_from))
                return True
            for mover in self._holders[node]:
                for target in self._candidates(mover):
                    if target not in came_from and self.may_take(mover, target, leaving=node):
                        came_from[target] = (node, mover)
                        queue.append(target)
        return False

    def _shift(self, node: NodeId, came_from: _CameFrom) -> NodeId:
        """Move along the chain that ends at `node`, its end first, and return its start, which then has room."""
        while (step := came_from[node]) is not None:
            source, mover = step
            self._holders[source].remove(mover)
            self.held[mover].remove(source)
            self.take(mover, node)
            node = source
        return node


def _leaders(replicas: Mapping[GroupId, Sequence[NodeId]], nodes: int) -> dict[GroupId, NodeId]:
    """Choose one replica of each partition so that the most that a node leads is as low as can be.

    Hall's theorem bounds it: a node that holds at most b replicas leads at most ceil(b / replication_factor).
    """
    names = {node for held in replicas.values() for node in held}

    def admits(partition: GroupId, node: NodeId, others: Sequence[NodeId]) -> bool:
        return not others and node in replicas[partition]

    for bound in count(ceil(len(replicas) / nodes)):
        table = _Table(dict.fromkeys(names, bound), admits, replicas.__getitem__)
        chosen = _assign(sorted(replicas), table, replicas.__getitem__, 1)
        if chosen is not None:
            return {partition: held[0] for partition, held in chosen.items()}
    raise AssertionError("a bound of all partitions always suffices")
