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
import gc
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, Protocol

import grpc.aio
import structlog
import uvloop

from kv import collector
from kv.assembly import Assembly
from kv.cluster.map import ClusterMap, decode, from_proto
from kv.config import NodeConfig, parse_address
from kv.errors import KVError, Unavailable
from kv.identity import DataDirectory, write_durably
from kv.ids import GroupId, NodeId
from kv.internal.v1 import peer_pb2
from kv.partition import heap
from kv.partition.store import STORE_FILE, StoreError
from kv.partition.warm import memory_for_pages, warm_up
from kv.partition.writer import WriterThread
from kv.raft.files import OsFiles
from kv.raft.shell import AsyncioShell
from kv.raft.transport import PeerLinks
from kv.raft.wal import WalCorruption
from kv.router.api import Forwarder
from kv.router.direct import DirectListener
from kv.router.forward import Forwarders
from kv.router.listeners import Listeners
from kv.router.routing import check_batch
from kv.router.server import RouterServer
from kv.router.streams import parse, peer_channel_options, server_options
from kv.telemetry import configure_logging
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
    """One node of a cluster, as a process runs it."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        fatal: Callable[[BaseException], None],
        files: Callable[[str], OsFiles] = OsFiles,
        make_http: MakeHttpServer | None = None,
    ) -> None:
        """Must be called on the running loop. Raises what the disk says: `WalCorruption`, `ReplicaCorrupt`."""
        self.config = config
        self._loop = asyncio.get_running_loop()
        self._directory = DataDirectory(
            config.data_dir, config.node_id, config.cluster, secrets.randbits(63) | 1
        )
        self._links = PeerLinks(
            me=config.node_id,
            cluster=config.cluster,
            incarnation=self._directory.incarnation,
            listen=config.raft_listen,
            addresses=config.raft_peers,
            identities=self._directory,
        )
        self._shell = AsyncioShell(self._loop)
        self._writer = WriterThread(self._loop)
        rng = Random(secrets.randbits(64))
        self.parts = Assembly(
            config,
            files=files(str(self._directory.log_folder)),
            stores=stores_of(config),
            writer=self._writer,
            shell=self._shell,
            links=self._links,
            call_later=self._loop.call_later,
            forwarder=self._forwarder,
            fatal=fatal,
            rng=rng,
            wall_ms=_wall_ms,
        )
        router = self.parts.router
        self._forwarders = Forwarders(self._address_of, self._hello, router.config, rng)
        self._direct = DirectListener(*parse_address(config.direct_listen)) if config.offers_direct else None
        self._front = RouterServer(router, self._hello, self.parts.metrics, self._direct)
        self._listeners = Listeners(config.listen, server_options(router.config), self._front.add_to)
        self._make_http, self._fatal = make_http, fatal
        self._http: HttpServer | None = None
        self._watch: asyncio.Task[None] | None = None
        self._channels: dict[NodeId, grpc.aio.Channel] = {}

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Serves. Raises `Unavailable` if a port is taken."""
        self.parts.start_meta()
        self._load_map()
        if self._direct is not None:
            await self._direct.start()  # before the server: its streams offer the port
        await self._listeners.start()
        await self._front.start()
        self.parts.engine.start()
        try:
            await self._links.start(self.parts.engine)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {self.config.raft_listen} for Raft: is it in use?"
            ) from error
        self._watch = asyncio.create_task(self.parts.map_watch(self._ask_peers, self._learned).run())
        self._watch.add_done_callback(self._watch_ended)
        await self._start_http()
        log.info(
            "node serves", node=self.config.node_id, address=self.config.listen, http=self.config.http_listen
        )

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
            ready=self.parts.unready_reason,
            registry=self.parts.metrics.registry,
            timeout_s=self.config.request_timeout_ms / 1000,
            cluster=self.config.cluster,
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
        await self._listeners.stop(STOP_GRACE_S)
        if self._direct is not None:
            # Behind the servers: a client that loses its connection comes back at once, and gRPC complains of a call
            # that is cancelled as it begins.
            self._direct.close()
        self.parts.router.close()
        await self._forwarders.close()
        for channel in self._channels.values():
            await channel.close()
        await self._links.close()
        self.parts.engine.stop()
        self._shell.close()
        self.parts.close()
        self._writer.close()
        self._directory.close()
        log.info("node stopped", node=self.config.node_id)

    # ------------------------------------------------------------ the map

    def _load_map(self) -> None:
        path = self.config.data_dir / MAP_FILE
        if path.exists():
            self._use(decode(path.read_bytes()))

    def _learned(self, newer: ClusterMap) -> None:
        write_durably(self.config.data_dir / MAP_FILE, newer.encode())
        log.info("cluster map", epoch=newer.epoch, partitions=len(newer.partitions))
        self._use(newer)

    def _use(self, newer: ClusterMap) -> None:
        self.parts.use(newer)
        self._forwarders.follow(info.id for info in newer.nodes if info.id != self.config.node_id)

    async def _ask_peers(self) -> ClusterMap | None:
        best: ClusterMap | None = None
        for peer, address in sorted(self.config.peers.items()):
            if peer == self.config.node_id:
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

    # ------------------------------------------------------------ what the parts and the gateway ask

    async def execute(self, raw_batch: bytes, timeout_s: float, partition: GroupId = 0) -> bytes:
        """Carries a batch of the gateway through the router, by its keys or to the partition; raises its `KVError`."""
        batch = parse(kv_pb2.BatchRequest, raw_batch, len(raw_batch))
        check_batch(batch)
        deadline = self.parts.router.deadline(timeout_s * 1000)
        return await self.parts.router.request(batch, deadline, partition=partition)

    def _forwarder(self, node: NodeId) -> Forwarder:
        return self._forwarders.get(node)

    def _address_of(self, node: NodeId) -> str | None:
        info = None if self.parts.map is None else self.parts.map.node(node)
        return None if info is None else info.address

    def _hello(self) -> peer_pb2.Hello:
        return peer_pb2.Hello(
            cluster=self.config.cluster,
            node=self.config.node_id,
            map_epoch=0 if self.parts.map is None else self.parts.map.epoch,
            incarnation=self._directory.incarnation,
        )


def stores_of(config: NodeConfig) -> Path:
    """Return the folder of the stores, one folder for each replica."""
    return config.data_dir / "partitions"


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
    gc.disable()  # reading the log back makes much and drops little: walking it meanwhile costs half as much again
    try:
        return uvloop.run(_run(config, make_http))
    finally:
        gc.enable()


async def _warm_up(config: NodeConfig, stopping: asyncio.Event) -> None:
    """Reads the stores before anybody waits for this node: afterwards each cold key would hold up all others."""
    files = sorted(stores_of(config).glob(f"*/{STORE_FILE}"))
    if not config.warm_up_s or not files:
        return
    began = time.monotonic()
    try:
        warmed = await asyncio.to_thread(
            warm_up,
            files,
            seconds=config.warm_up_s,
            bytes_max=memory_for_pages(),
            stopped=stopping.is_set,
        )
    except OSError as error:  # whoever needs what cannot be read will say so
        log.warning("stores not read before serving", error=str(error))
        return
    took_s = round(time.monotonic() - began, 3)
    log.info("stores read", bytes=warmed.bytes, seconds=took_s, left=warmed.left or "nothing")


async def _run(config: NodeConfig, make_http: MakeHttpServer | None) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    heap.keep_blocks()
    await _warm_up(config, stopping)
    if stopping.is_set():
        return 0
    try:
        node = Node(config, fatal=partial(_die), make_http=make_http)
        await node.start()
    except (KVError, OSError, WalCorruption, StoreError) as error:
        log.critical("the node cannot start", error=str(error))
        return 1
    collector.calm()
    await stopping.wait()
    await node.stop()
    return 0
