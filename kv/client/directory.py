"""The directory: which partition owns a key, and at which address to ask for it.

Pure: time is an argument. It holds the newest cluster map, a guess of each partition's
leader, and which addresses failed lately. A wrong guess costs a hop, never correctness:
every node forwards to the leader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn

from kv.cluster.map import ClusterMap
from kv.errors import WrongCluster
from kv.ids import GroupId, NodeId
from kv.router.ring import Ring

DOWN_MIN_S: Final = 0.05
DOWN_MAX_S: Final = 1.0
"""An address whose connection failed is left alone for so long, doubling with each failure in a row."""


def _no_map(_: object) -> NoReturn:
    raise AssertionError("a key is routed only after a map was installed")


class Directory:
    """What the client believes about the cluster."""

    def __init__(self, endpoints: Iterable[str]) -> None:
        """Start from the addresses that the user gave; there is no map yet."""
        self.endpoints = tuple(endpoints)
        self.map: ClusterMap | None = None
        self.partition_of: Callable[[bytes], GroupId] = _no_map
        """Returns the partition that owns a key. There must be a map. The ring's own: a call less for each key."""
        self.partitions_of: Callable[[Iterable[bytes]], list[GroupId]] = _no_map
        """The same for each of the keys."""
        self._leaders: dict[GroupId, NodeId] = {}
        self._candidates: dict[GroupId, tuple[str, ...]] = {}
        self._down_until: dict[str, float] = {}
        self._down_count: dict[str, int] = {}
        self._turn = 0

    def install(self, cluster_map: ClusterMap) -> bool:
        """Take the map if it is newer and return whether it was; raise `WrongCluster` if it is another cluster's."""
        if self.map is not None:
            if cluster_map.cluster != self.map.cluster:
                raise WrongCluster(
                    f"the map is of cluster {cluster_map.cluster!r}, this client is of {self.map.cluster!r}",
                    metadata={"cluster": cluster_map.cluster},
                )
            if cluster_map.epoch <= self.map.epoch:
                return False
        self.map = cluster_map
        ring = Ring(cluster_map.partitions)
        self.partition_of, self.partitions_of = ring.partition_of, ring.partitions_of
        self._candidates.clear()
        self._leaders = {
            partition: leader
            for partition, leader in self._leaders.items()
            if cluster_map.node(leader) is not None and cluster_map.partition(partition) is not None
        }
        return True

    # --- leaders and failures -----------------------------------------------------------------------

    def leader_is(self, partition: GroupId, node: NodeId | None) -> None:
        """Note who leads the partition; None or an unknown node: nobody that we know."""
        if node and self.map is not None and self.map.node(node) is not None:
            self._leaders[partition] = node
        else:
            self._leaders.pop(partition, None)

    def leader_of(self, partition: GroupId) -> NodeId | None:
        """Return who led the partition when we last heard, or None."""
        return self._leaders.get(partition)

    def failed(self, address: str, now: float) -> None:
        """Note that the connection to `address` broke or could not be made."""
        count = self._down_count.get(address, 0) + 1
        self._down_count[address] = count
        self._down_until[address] = now + min(DOWN_MAX_S, DOWN_MIN_S * 2.0 ** min(count - 1, 16))

    def answered(self, address: str) -> None:
        """Note that `address` works."""
        if self._down_count:
            self._down_count.pop(address, None)
            self._down_until.pop(address, None)

    # --- choosing -----------------------------------------------------------------------------------

    def choose(
        self,
        partition: GroupId,
        now: float,
        *,
        any_replica: bool,
        avoid: str | None,
        first: Sequence[str] = (),
    ) -> str:
        """Return the address for the next attempt.

        Those of `first`, then the leader's if it is known, or with `any_replica` the replicas' in
        turn, then the other nodes', then the endpoints'. Passed over are `avoid` (where the last
        attempt failed) and addresses that failed lately; if nothing else is left, the one whose
        time is up first.
        """
        addresses = self._ordered(partition, any_replica=any_replica)
        if first:
            addresses = tuple(dict.fromkeys((*first, *addresses)))
        down_until = self._down_until
        if not down_until and addresses[0] != avoid:
            return addresses[0]
        usable = [address for address in addresses if down_until.get(address, 0.0) <= now]
        for address in usable:
            if address != avoid:
                return address
        if usable:
            return usable[0]
        return min(addresses, key=lambda address: down_until[address])

    def address_of(self, node: NodeId) -> str | None:
        """Return the node's address, or None if the map does not have it."""
        info = self.map.node(node) if self.map is not None else None
        return info.address if info is not None else None

    def replicas(self, partition: GroupId) -> tuple[str, ...]:
        """Return the addresses of the partition's replicas; none before the first map."""
        found = self.map.partition(partition) if self.map is not None else None
        if found is None:
            return ()
        return self._list_candidates(partition)[: len(found.replicas)]

    def known_addresses(self, now: float) -> list[str]:
        """Return every known address, endpoints first, those that failed lately last."""
        nodes = [node.address for node in self.map.nodes] if self.map is not None else []
        addresses = list(dict.fromkeys((*self.endpoints, *nodes)))
        return sorted(addresses, key=lambda address: self._down_until.get(address, 0.0) > now)

    def _ordered(self, partition: GroupId, *, any_replica: bool) -> tuple[str, ...]:
        candidates = self._candidates.get(partition)
        if candidates is None:
            candidates = self._candidates[partition] = self._list_candidates(partition)
        if any_replica:
            self._turn += 1
            found = self.map.partition(partition) if self.map is not None else None
            replicas = max(1, len(found.replicas) if found is not None else 1)
            turn = self._turn % replicas
            return (*candidates[turn:replicas], *candidates[:turn], *candidates[replicas:])
        leader = self._leaders.get(partition)
        if leader is None:
            return candidates
        address = self.address_of(leader)
        if address is None or address == candidates[0]:
            return candidates
        return (address, *candidates)

    def _list_candidates(self, partition: GroupId) -> tuple[str, ...]:
        if self.map is None:
            return self.endpoints
        found = self.map.partition(partition)
        replicas = [self.address_of(node) for node in found.replicas] if found is not None else []
        others = [node.address for node in self.map.nodes]
        ordered = [address for address in (*replicas, *others, *self.endpoints) if address is not None]
        return tuple(dict.fromkeys(ordered))
