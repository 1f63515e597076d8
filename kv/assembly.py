"""The parts of a node between its disk and its servers: log, engine, replicas, router, map.

Here the floors meet without any I/O of their own: files, worker threads, connections, clocks
and randomness come as arguments. `kv.node` gives the real ones, the simulator gives its own,
so that what it runs is this very composition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final

import structlog

from kv import __version__
from kv.cluster.map import ClusterMap, NodeInfo, PartitionInfo, initial_map
from kv.cluster.meta import MapWatch, meta_members
from kv.config import NodeConfig
from kv.errors import Unavailable
from kv.ids import META_GROUP, GroupId, NodeId
from kv.partition.partition import Replica
from kv.partition.policy import ReplayBudget
from kv.partition.store import ContentHash, ReplicaCorrupt, Store
from kv.partition.writer import Writer
from kv.raft.api import BOOTSTRAP_INDEX
from kv.raft.engine import Engine, Links, Shell
from kv.raft.files import Files
from kv.raft.group import Group
from kv.raft.guard import Rules
from kv.raft.wal import Wal
from kv.router.api import Forwarder
from kv.router.dispatch import Router
from kv.router.limits import RouterConfig
from kv.router.ring import owner_of
from kv.router.timers import CallLater
from kv.telemetry import Metrics
from kv.v1 import cluster_pb2

META_EPOCH: Final = 1
_COMMITS: Final = 0
"""The place of the commits among what is counted."""

log = structlog.get_logger(__name__)


class Assembly:
    """Implements `kv.router.api.Cluster`. Every call is on the loop's thread."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        files: Files,
        stores: Path,
        writer: Writer,
        shell: Shell,
        links: Links,
        call_later: CallLater,
        forwarder: Callable[[NodeId], Forwarder],
        fatal: Callable[[BaseException], None],
        rng: Random,
        wall_ms: Callable[[], int],
        rules: Rules | None = None,
    ) -> None:
        """Reads the log back (blocking). `stores` is the folder of the replicas' stores, `writer` whose thread commits them.

        Raises `WalCorruption`. `rules` is for the simulator's mutants only.
        """
        self.config, self.node_id, self.rng = config, config.node_id, rng
        self.map: ClusterMap | None = None
        self.metrics = Metrics.create()
        self.replicas: dict[GroupId, Replica] = {}
        self._stores, self._writer = stores, writer
        self._shell, self._wall_ms, self._rules = shell, wall_ms, rules
        self._began = shell.now()
        self.wal = Wal.open(
            files,
            salt=rng.getrandbits(64),
            segment_bytes=config.segment_bytes,
            cache_bytes_max=config.log_cache_bytes_max,
            cache_total_bytes_max=config.log_cache_total_bytes_max,
        )
        self.engine = Engine(
            me=config.node_id,
            wal=self.wal,
            links=links,
            shell=shell,
            config=config.raft,
            metrics=self.metrics,
            rng=rng.random,
            fatal=fatal,
            maintained=self._count,
        )
        metrics = self.metrics
        self._counters = (
            metrics.commits,  # at `_COMMITS`
            metrics.applied_ops,
            metrics.elections,
            metrics.snapshots.labels("out"),
            metrics.snapshots.labels("in"),
            metrics.checkpoints,
        )
        self._counted = [0] * len(self._counters)
        self._replay_budget = ReplayBudget(config.replay_ops_max)
        self.forwarder = forwarder
        self.router = Router(self, RouterConfig.of(config), call_later)

    # ------------------------------------------------------------ replicas

    def start_meta(self) -> None:
        """Starts this node's replica of the meta group, if it is a member."""
        members = meta_members(list(self.config.peers))
        if self.node_id in members:
            self._start_replica(META_GROUP, META_EPOCH, members, _owns_any)

    def use(self, newer: ClusterMap) -> None:
        """Goes by this map from now on: starts the replicas that it names this node for."""
        self.map = newer
        for info in newer.partitions:
            if self.node_id in info.replicas and info.id not in self.replicas:
                self._start_partition(info)

    def _start_partition(self, info: PartitionInfo) -> None:
        owns = owner_of(info.hash_start, info.hash_end)
        self._start_replica(info.id, info.epoch, info.replicas, owns)

    def _start_replica(
        self, group_id: GroupId, epoch: int, members: tuple[NodeId, ...], owns: Callable[[bytes], bool]
    ) -> None:
        journal = self.wal.journal(group_id)
        if len(journal) == 0:
            journal.bootstrap()
        store = Store.open(
            self._stores / f"p{group_id:05d}",
            group_id,
            map_bytes_initial=self.config.map_bytes_initial,
            required_index=journal.base,
            writer=self._writer,
        )
        if store.last.applied_index > journal.last:
            raise ReplicaCorrupt(
                store.directory,
                f"the state stands at {store.last.applied_index}, its log ends at {journal.last}",
            )
        replica = Replica(
            store,
            node=self.node_id,
            config=self.config.partition,
            log_retain_entries=self.config.log_retain_entries,
            log_retain_bytes=self.config.log_retain_bytes,
            owns=owns,
            map_epoch=lambda: 0 if self.map is None else self.map.epoch,
            wall_ms=self._wall_ms,
            budget=self._replay_budget,
        )
        group = Group(
            group_id=group_id,
            epoch=epoch,
            me=self.node_id,
            members=members,
            journal=journal,
            machine=replica,
            config=self.config.raft,
            host=self.engine,
            rng=self.rng.random,
            now=self._shell.now(),
            rules=self._rules,
        )
        self._counted[_COMMITS] += group.commit_index - BOOTSTRAP_INDEX  # of an earlier process
        self.replicas[group_id] = replica
        self.engine.add(group)

    def close(self) -> None:
        """Closes stores and log (blocking); the engine has stopped and nothing runs in its threads. The writer is needed yet."""
        for replica in self.replicas.values():
            replica.close()
        self.wal.close()

    # ------------------------------------------------------------ the map

    def map_watch(
        self,
        ask_peers: Callable[[], Awaitable[ClusterMap | None]],
        learned: Callable[[ClusterMap], None],
    ) -> MapWatch:
        """What keeps this node's map; see `MapWatch`."""
        return MapWatch(
            replica=self.replicas.get(META_GROUP),
            first_map=self._first_map,
            ask_peers=ask_peers,
            learned=learned,
            known=self.map,
        )

    def _first_map(self) -> ClusterMap:
        config = self.config
        nodes = [
            NodeInfo(name, address, zone=config.zones.get(name, ""))
            for name, address in sorted(config.peers.items())
        ]
        return initial_map(
            config.cluster,
            nodes,
            partitions=config.partitions,
            replication_factor=config.replication_factor,
            virtual_nodes=config.virtual_nodes,
            load_factor=config.load_factor,
        )

    # ------------------------------------------------------------ what the router asks

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds on the loop's clock."""
        return self._shell.now

    def replica(self, partition: GroupId) -> Replica | None:
        """This node's replica of a partition; the meta group is nobody's partition."""
        return None if partition == META_GROUP else self.replicas.get(partition)

    def status(self) -> cluster_pb2.NodeStatus:
        """The state of this node."""
        return cluster_pb2.NodeStatus(
            id=self.node_id,
            version=__version__,
            cluster=self.config.cluster,
            map_epoch=0 if self.map is None else self.map.epoch,
            uptime_ms=int((self._shell.now() - self._began) * 1000),
            replicas=[replica.status() for _, replica in sorted(self.replicas.items())],
            connected_peers=self.engine.connected,
            log_bytes=self.wal.bytes_on_disk,
            log_segments=len(self.wal.segments),
            disk_full=self.engine.disk_full or any(r.store_full for r in self.replicas.values()),
            http_address=self.config.http_listen or "",
        )

    def content_hash(self, partition: GroupId) -> Awaitable[cluster_pb2.GetContentHashResponse]:
        """Hashes a replica's content at a checkpoint that this makes."""
        replica = self.replicas.get(partition)
        if replica is None:
            raise Unavailable(f"node {self.node_id} has no replica of partition {partition}")
        return self._hash(replica.content_hasher())

    async def _hash(self, hasher: Callable[[], ContentHash]) -> cluster_pb2.GetContentHashResponse:
        content = await asyncio.get_running_loop().run_in_executor(None, hasher)
        return cluster_pb2.GetContentHashResponse(index=content.index, hash=content.hash, keys=content.keys)

    def _count(self) -> None:
        """Brings the metrics up to what replicas and groups counted since the last time."""
        groups, replicas = self.engine.groups.values(), self.replicas.values()
        totals = [
            sum([group.commit_index - BOOTSTRAP_INDEX for group in groups]),
            sum([replica.operations_applied for replica in replicas]),
            sum([group.campaign.elections for group in groups]),
            sum([group.transfers.sent for group in groups]),
            sum([group.install.snapshots_installed for group in groups]),
            sum([replica.checkpoints_made for replica in replicas]),
        ]
        before, self._counted = self._counted, totals
        if totals == before:
            return
        for counter, total, known in zip(self._counters, totals, before, strict=True):
            counter.inc(max(total - known, 0))  # a group that went took its counts with it

    def unready_reason(self) -> str | None:
        """Why this node cannot serve now; None if it can."""
        if self.map is None:
            return "the node has no cluster map yet: is a majority of the nodes up?"
        for group_id, replica in sorted(self.replicas.items()):
            if not replica.is_leader and replica.leader is None:
                return f"partition {group_id} has no leader that this node knows"
        return None


def _owns_any(_: bytes) -> bool:
    """The meta group's keys are not hashed."""
    return True
