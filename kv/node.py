"""The composition root: builds a node from its configuration, starts and stops its parts in order.

Here, and only here, the floors meet: the data directory, the log, the engine and the links below;
the replicas; the router, the cluster map and the servers above. Nothing here decides anything
about keys or logs.

Start: directory, log, meta group, servers, links, engine, then the map; a partition's replica
starts as soon as the map names this node. Stop: the servers first (requests end), then links,
engine and log, the stores last. A node that is killed instead loses nothing that it
acknowledged: stopping in order is a courtesy to its clients.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Final, Protocol

import grpc.aio
import structlog
import uvloop

from kv import __version__
from kv.cluster.map import ClusterMap, NodeInfo, PartitionInfo, decode, from_proto, initial_map
from kv.cluster.meta import MapWatch, meta_members
from kv.config import NodeConfig
from kv.errors import KVError, Unavailable
from kv.identity import DataDirectory, write_durably
from kv.ids import META_GROUP, GroupId, NodeId
from kv.internal.v1 import peer_pb2
from kv.partition.partition import Replica
from kv.partition.store import ContentHash, ReplicaCorrupt, Store, StoreError
from kv.raft.engine import Engine
from kv.raft.files import OsFiles
from kv.raft.group import Group
from kv.raft.shell import AsyncioShell
from kv.raft.transport import PeerLinks
from kv.raft.wal import Wal, WalCorruption
from kv.router.api import Forwarder
from kv.router.dispatch import Router
from kv.router.forward import Forwarders
from kv.router.limits import RouterConfig
from kv.router.ring import key_hash
from kv.router.routing import check_batch
from kv.router.server import RouterServer
from kv.router.streams import parse, peer_channel_options, server_options
from kv.telemetry import Metrics, configure_logging
from kv.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2

EXIT_FATAL: Final = 70
"""Exit status of a process that ended itself because its disk or its log cannot be trusted."""
META_EPOCH: Final = 1
MAP_FILE: Final = "map.bin"
ASK_TIMEOUT_S: Final = 1.0
STOP_GRACE_S: Final = 1.0

log = structlog.get_logger(__name__)


class HttpServer(Protocol):
    """The HTTP side, which stands on a floor above."""

    async def start(self) -> None:
        """Bind and serve."""

    async def stop(self) -> None:
        """Finish and close."""


MakeHttpServer = Callable[..., HttpServer]


class Node:
    """One node; implements `kv.router.api.Cluster`."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        fatal: Callable[[BaseException], None],
        files: Callable[[str], OsFiles] = OsFiles,
        make_http: MakeHttpServer | None = None,
    ) -> None:
        """Must be called on the running loop. Raises what the disk says: `WalCorruption`, `ReplicaCorrupt`."""
        self.config, self.node_id = config, config.node_id
        self.map: ClusterMap | None = None
        self.rng = Random(secrets.randbits(64))
        self.metrics = Metrics.create()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._directory = DataDirectory(
            config.data_dir, config.node_id, config.cluster, secrets.randbits(63) | 1
        )
        self._shell = AsyncioShell(self._loop)
        wal_path = config.data_dir / "wal"
        wal_path.mkdir(exist_ok=True)
        self.wal = Wal.open(
            files(str(wal_path)),
            salt=secrets.randbits(64),
            segment_bytes=config.segment_bytes,
            cache_bytes_max=config.log_cache_bytes_max,
        )
        self._links = PeerLinks(
            me=config.node_id,
            cluster=config.cluster,
            incarnation=self._directory.incarnation,
            addresses=config.peers,
            identities=self._directory,
        )
        self.engine = Engine(
            wal=self.wal,
            links=self._links,
            shell=self._shell,
            config=config.raft,
            metrics=self.metrics,
            fatal=fatal,
        )
        self._replicas: dict[GroupId, Replica] = {}
        router_config = RouterConfig.of(config)
        self._forwarders = Forwarders(self._address_of, self._hello, router_config, self.rng)
        self.router = Router(self, router_config, self._loop.call_later)
        self._front = RouterServer(self.router, self._hello, self.metrics)
        self._server: grpc.aio.Server | None = None
        self._make_http, self._fatal = make_http, fatal
        self._http: HttpServer | None = None
        self._watch: asyncio.Task[None] | None = None
        self._channels: dict[NodeId, grpc.aio.Channel] = {}

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Serves. Raises `Unavailable` if a port is taken."""
        members = meta_members(list(self.config.peers))
        if self.node_id in members:
            self._start_replica(META_GROUP, META_EPOCH, members, _owns_any)
        self._load_map()
        self._server = grpc.aio.server(options=server_options(self.router.config))
        self._front.add_to(self._server)
        self._server.add_generic_rpc_handlers((self._links.handler(),))
        try:
            self._server.add_insecure_port(self.config.listen)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {self.config.listen}: is it in use?") from error
        await self._server.start()
        await self._front.start()
        self.engine.start()
        self._links.start(self.engine)
        self._watch = asyncio.create_task(self._map_watch().run())
        self._watch.add_done_callback(self._watch_ended)
        await self._start_http()
        log.info("node serves", node=self.node_id, address=self.config.listen, http=self.config.http_listen)

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        """The watch runs until it is cancelled: anything else means that this node cannot go on."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fatal(error)

    async def _start_http(self) -> None:
        if self._make_http is None or self.config.http_listen is None:
            return
        self._http = self._make_http(
            self.config.http_listen,
            self,
            ready=self.unready_reason,
            registry=self.metrics.registry,
            timeout_s=self.config.request_timeout_ms / 1000,
        )
        await self._http.start()

    async def stop(self) -> None:
        """Stops in order; see the module."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._http is not None:
            await self._http.stop()
        await self._front.stop()
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
        self.router.close()
        await self._forwarders.close()
        for channel in self._channels.values():
            await channel.close()
        await self._links.close()
        self.engine.stop()
        self._shell.close()
        for replica in self._replicas.values():
            replica.close()
        self.wal.close()
        self._directory.close()
        log.info("node stopped", node=self.node_id)

    # ------------------------------------------------------------ replicas

    def _start_replica(
        self, group_id: GroupId, epoch: int, members: tuple[NodeId, ...], owns: Callable[[bytes], bool]
    ) -> None:
        journal = self.wal.journal(group_id)
        if len(journal) == 0:
            journal.bootstrap()
        store = Store.open(
            self.config.data_dir / "partitions" / f"p{group_id:05d}",
            group_id,
            map_bytes_initial=self.config.map_bytes_initial,
            required_index=journal.base,
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
            wall_ms=_wall_ms,
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
            now=self._loop.time(),
        )
        self._replicas[group_id] = replica
        self.engine.add(group)

    def _start_partition(self, info: PartitionInfo) -> None:
        start, end = info.hash_start, info.hash_end
        self._start_replica(info.id, info.epoch, info.replicas, lambda key: start <= key_hash(key) < end)

    # ------------------------------------------------------------ the map

    def _map_watch(self) -> MapWatch:
        return MapWatch(
            replica=self._replicas.get(META_GROUP),
            first_map=self._first_map,
            ask_peers=self._ask_peers,
            learned=self._learned,
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

    def _load_map(self) -> None:
        path = self.config.data_dir / MAP_FILE
        if path.exists():
            self._use(decode(path.read_bytes()))

    def _learned(self, newer: ClusterMap) -> None:
        write_durably(self.config.data_dir / MAP_FILE, newer.encode())
        log.info("cluster map", epoch=newer.epoch, partitions=len(newer.partitions))
        self._use(newer)

    def _use(self, newer: ClusterMap) -> None:
        self.map = newer
        for info in newer.partitions:
            if self.node_id in info.replicas and info.id not in self._replicas:
                self._start_partition(info)

    async def _ask_peers(self) -> ClusterMap | None:
        best: ClusterMap | None = None
        for peer, address in sorted(self.config.peers.items()):
            if peer == self.node_id:
                continue
            if peer not in self._channels:
                self._channels[peer] = grpc.aio.insecure_channel(address, options=peer_channel_options())
            stub = cluster_pb2_grpc.ClusterServiceStub(self._channels[peer])
            try:
                reply = await stub.GetMap(cluster_pb2.GetMapRequest(), timeout=ASK_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                log.debug("no map from peer", peer=peer, error=error.details())
                continue
            if reply.HasField("map") and (best is None or reply.map.epoch > best.epoch):
                best = from_proto(reply.map)
        return best

    # ------------------------------------------------------------ what the router and the gateway ask

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds on the loop's clock."""
        return self._loop.time

    def replica(self, partition: GroupId) -> Replica | None:
        """This node's replica of a partition; the meta group is nobody's partition."""
        return None if partition == META_GROUP else self._replicas.get(partition)

    def forwarder(self, node: NodeId) -> Forwarder:
        """The way to another node."""
        return self._forwarders.get(node)

    def status(self) -> cluster_pb2.NodeStatus:
        """The state of this node."""
        return cluster_pb2.NodeStatus(
            id=self.node_id,
            version=__version__,
            cluster=self.config.cluster,
            map_epoch=0 if self.map is None else self.map.epoch,
            uptime_ms=int((self._loop.time() - self._began) * 1000),
            replicas=[replica.status() for _, replica in sorted(self._replicas.items())],
            connected_peers=self.engine.connected,
            log_bytes=self.wal.bytes_on_disk,
            log_segments=len(self.wal.segments),
            disk_full=self.engine.disk_full or any(r.store_full for r in self._replicas.values()),
        )

    def content_hash(self, partition: GroupId) -> Awaitable[cluster_pb2.GetContentHashResponse]:
        """Hashes a replica's content at a checkpoint that this makes."""
        replica = self._replicas.get(partition)
        if replica is None:
            raise Unavailable(f"node {self.node_id} has no replica of partition {partition}")
        return self._hash(replica.content_hasher())

    async def _hash(self, hasher: Callable[[], ContentHash]) -> cluster_pb2.GetContentHashResponse:
        content = await self._loop.run_in_executor(None, hasher)
        return cluster_pb2.GetContentHashResponse(
            index=content.index,
            hash=content.hash,
            keys=content.keys,
        )

    def unready_reason(self) -> str | None:
        """Why this node cannot serve now; None if it can."""
        if self.map is None:
            return "the node has no cluster map yet: is a majority of the nodes up?"
        for group_id, replica in sorted(self._replicas.items()):
            if not replica.is_leader and replica.leader is None:
                return f"partition {group_id} has no leader that this node knows"
        return None

    async def execute(self, raw_batch: bytes, timeout_s: float) -> bytes:
        """Carries a batch of the gateway through the router; raises its `KVError`."""
        batch = parse(kv_pb2.BatchRequest, raw_batch, len(raw_batch))
        check_batch(batch)
        return await self.router.request(batch, self.router.deadline(timeout_s * 1000))

    def _address_of(self, node: NodeId) -> str | None:
        info = None if self.map is None else self.map.node(node)
        return None if info is None else info.address

    def _hello(self) -> peer_pb2.Hello:
        return peer_pb2.Hello(
            cluster=self.config.cluster,
            node=self.node_id,
            map_epoch=0 if self.map is None else self.map.epoch,
            incarnation=self._directory.incarnation,
        )


def _owns_any(_: bytes) -> bool:
    """The meta group's keys are not hashed."""
    return True


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _die(error: BaseException) -> None:
    """Ends the process at once: no courtesy may make durable, send or answer anything any more."""
    log.critical("the process ends itself", error=repr(error), exit_status=EXIT_FATAL)
    os._exit(EXIT_FATAL)


def run(config: NodeConfig, make_http: MakeHttpServer | None = None) -> int:
    """Runs a node until SIGTERM or SIGINT; returns the exit status."""
    configure_logging(config.log_level, config.log_format, sys.stderr)
    for advice in config.advice():
        log.warning("configuration", advice=advice)
    return uvloop.run(_run(config, make_http))


async def _run(config: NodeConfig, make_http: MakeHttpServer | None) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    try:
        node = Node(config, fatal=partial(_die), make_http=make_http)
        await node.start()
    except (KVError, OSError, WalCorruption, StoreError) as error:
        log.critical("the node cannot start", error=str(error))
        return 1
    await stopping.wait()
    await node.stop()
    return 0
