"""One simulated node: the production `Assembly` on a simulated disk, network and clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

from kv.assembly import Assembly
from kv.cluster.map import ClusterMap
from kv.config import NodeConfig
from kv.internal.v1 import raft_pb2
from kv.partition.store import Store, StoreError, StoreFull
from kv.raft.group import Group
from kv.raft.guard import Rules
from kv.raft.journal import Journal
from kv.raft.wal import WalCorruption
from kv.router.api import Forwarder
from kv.router.dispatch import Router
from kv.sim.crashpoints import Points, watch_group, watch_process
from kv.sim.disk import Killed, MemoryFiles
from kv.sim.inside import inside, put_inside
from kv.sim.loop import VirtualLoop
from kv.sim.network import Network
from kv.sim.process import Clock, Life, LifeWriter, ProcessDied
from kv.sim.wire import RaftLinks, SimForwarder

WALL_START_MS = 1_700_000_000_000


def full_when(full: Callable[[], bool], store: Store) -> None:
    """A full disk takes no checkpoint: LMDB's files are not behind the file layer of the log."""
    run_commit = inside(store, "_run_commit")

    def on_disk(commit: Any) -> None:  # noqa: ANN401 - production's, and private
        if not full():
            run_commit(commit)
            return
        commit.txn.abort()
        commit.error = StoreFull("the disk is full", map_full=False)
        commit.ended = True

    put_inside(store, "_run_commit", on_disk)


class Watcher(Protocol):
    """Who is told what a node does."""

    def started(self, node: SimNode) -> None:
        """A process is composed; it has not taken part in anything yet."""

    def group_started(self, node: SimNode, group: Group) -> None:
        """A replica of it was started."""

    def died(self, node: SimNode, why: str) -> None:
        """The process ends now; its disk is as it was when it died."""

    def refused(self, node: SimNode, error: Exception) -> None:
        """The process ended itself while it started."""

    def ended_itself(self, node: SimNode, error: BaseException) -> None:
        """The process ended itself while it ran."""


class SimNode:
    """A host with a disk, and a process on it that comes and goes."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        loop: VirtualLoop,
        network: Network,
        rng: Random,
        stores: Path,
        peers: Callable[[], Sequence[SimNode]],
        lossy: bool,
        rules: Rules,
        watcher: Watcher,
    ) -> None:
        self.name = config.node_id
        self.config = config
        self.disk = MemoryFiles()
        self.clock = Clock(loop, WALL_START_MS)
        self.starts = 0
        self.damaged = self.expects_death = self.gone = False
        self.sync_extra_s = 0.0
        self.points: dict[str, tuple[int, bool]] = {}
        """Where the process will be killed: (times left, whether the power fails)."""
        self._died_at: tuple[str, bool] | None = None
        self._loop, self._network, self._rng, self._stores = loop, network, rng, stores
        self._peers, self._lossy, self._rules, self._watcher = peers, lossy, rules, watcher
        self._map: ClusterMap | None = None  # what the map file of a real node holds
        self._descriptors: list[object] = []
        self.cluster: Assembly
        self.life = self._new_life()
        self.enter = self.life.enter
        """See `Host`: that of the present life, a call less for each message."""
        self.raft: Callable[[str, Sequence[raft_pb2.RaftMessage]], None]
        """Raft messages arrived from a peer: the running engine's own method, a call less for each."""
        self.life.end()

    # ------------------------------------------------------------ life

    @property
    def up(self) -> bool:
        """Whether the process runs."""
        return self.life.alive

    @property
    def journals(self) -> dict[int, Journal]:
        """The logs of the running process, or of the last one that ran."""
        if not self.starts:
            return {}
        found: dict[int, Journal] = inside(self.cluster.wal, "_journals")
        return found

    def _new_life(self) -> Life:
        life = Life(self._loop, self.clock, self._rng, self._sync_delay)
        life.died = self._killed
        return life

    def _sync_delay(self) -> float:
        return self._rng.uniform(0.0002, 0.003) + self.sync_extra_s

    def start(self) -> None:
        """Start the process from what the disk holds; a process that refuses its disk is not `up` afterwards."""
        assert not self.up, "it runs already"
        self.points.clear()
        life = self.life = self._new_life()
        self.enter = life.enter
        self._forwarders: dict[str, SimForwarder] = {}
        self.links = RaftLinks(self._network, self, self._peers, self._lossy)
        try:
            self._compose(life)
        except (WalCorruption, StoreError, OSError) as error:
            life.end()
            self._watcher.refused(self, error)
            return
        self.cluster.engine.start()
        self.links.start()
        watch = self.cluster.map_watch(self._ask_peers, self._learned)
        life.task(asyncio.ensure_future(watch.run(), loop=self._loop))

    def _compose(self, life: Life) -> None:
        for name in ("sync", "remove"):
            with contextlib.suppress(AttributeError):
                delattr(self.disk, name)  # the wrapper of the former process
        self.cluster = Assembly(
            self.config,
            files=self.disk,
            stores=self._stores / self.name,
            writer=LifeWriter(life),
            shell=life,
            links=self.links,
            call_later=life.call_later,
            forwarder=self._forwarder,
            fatal=self._fatal,
            rng=Random(self._rng.getrandbits(64)),
            wall_ms=life.wall_ms,
            rules=self._rules,
        )
        self.raft = self.cluster.engine.deliver
        self.starts += 1
        watch_process(Points(self.points, self._reach), self.disk, self.links)
        add = self.cluster.engine.add

        def watched_add(group: Group) -> None:
            self._watch_group(group)
            add(group)

        put_inside(self.cluster.engine, "add", watched_add)
        self._watcher.started(self)
        try:
            self.cluster.start_meta()
            if self._map is not None:
                self.cluster.use(self._map)
        except BaseException:
            self._let_go()
            raise

    def _watch_group(self, group: Group) -> None:
        replica = self.cluster.replicas[group.group_id]
        watch_group(Points(self.points, self._reach), group)
        self._watch_descriptors(replica)
        full_when(lambda: self.disk.full, inside(replica, "_store"))
        self._watcher.group_started(self, group)

    def _watch_descriptors(self, replica: object) -> None:
        """Files that a dead process leaves open must be closed: all nodes share this process."""
        for name in ("snapshot_source", "snapshot_sink"):
            make = getattr(replica, name)

            def watched(*args: object, make: Callable[..., object] = make) -> object:
                made = make(*args)
                self._descriptors.append(made)
                return made

            put_inside(replica, name, watched)

    def crash(self, *, power: bool, why: str = "crash") -> None:
        """End the process at once; a power loss also takes a part of what was not synced."""
        self.points.clear()
        self._interrupt_workers()
        self.life.end()
        self.cluster.engine.stop()
        self._watcher.died(self, why)
        self._let_go()
        if power:
            self.disk.power_loss(self._rng)
        self._network.reset_all(self.name)

    def abandon(self) -> None:
        """The run is over: let go of everything, without a word to anyone."""
        self.points.clear()
        self.life.end()
        self.cluster.engine.stop()
        self._let_go()

    def _let_go(self) -> None:
        for replica in self.cluster.replicas.values():
            replica.abandon()
        for file in self._descriptors:
            descriptor = inside(file, "_descriptor")
            if descriptor is not None:
                os.close(descriptor)
                put_inside(file, "_descriptor", None)
        self._descriptors.clear()

    def _interrupt_workers(self) -> None:
        """What a worker thread was doing may have been done in part."""
        for lane in self.life.in_worker.values():
            if lane and self._rng.random() < 0.7:
                self.disk.calls_left = self._rng.randint(0, 4)
                with contextlib.suppress(Killed, OSError, AssertionError, ValueError):
                    lane[0]()
                self.disk.calls_left = None

    def _reach(self, point: str) -> None:
        """A point was reached: die here if that was wanted."""
        if not self.points or point not in self.points or self.life.depth == 0 or not self.up:
            return
        left, power = self.points[point]
        if left > 1:
            self.points[point] = (left - 1, power)
            return
        del self.points[point]
        self._died_at = (point, power)
        raise ProcessDied(point)

    def _killed(self) -> None:
        assert self._died_at is not None
        (point, power), self._died_at = self._died_at, None
        if self.up:
            self.crash(power=power, why=f"killed at {point}")

    def _fatal(self, error: BaseException) -> None:
        """The process ends itself, as `kv.node` does: nothing else may happen in it."""
        self._watcher.ended_itself(self, error)
        self.crash(power=False, why=f"ended itself: {error}")

    # ------------------------------------------------------------ what the wires and the router ask

    @property
    def router(self) -> Router:
        """The router of the running process."""
        return self.cluster.router

    def raft_connection(self, peer: str, up: bool) -> None:
        """A connection came or went."""
        self.cluster.engine.connection(peer, up)

    def _forwarder(self, name: str) -> Forwarder:
        forwarder = self._forwarders.get(name)
        if forwarder is None:
            target = next(node for node in self._peers() if node.name == name)
            forwarder = SimForwarder(self._network, self, target, self.cluster.router.config)
            self._forwarders[name] = forwarder
        return forwarder

    async def _ask_peers(self) -> ClusterMap | None:
        await asyncio.sleep(self._network.delay((self.name, self.name)))
        known = [node.cluster.map for node in self._peers() if node.up]
        return max((found for found in known if found is not None), key=lambda m: m.epoch, default=None)

    def _learned(self, newer: ClusterMap) -> None:
        self._map = newer
        self.cluster.use(newer)
