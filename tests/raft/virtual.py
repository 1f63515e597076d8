"""Engines in virtual time: a heap of callbacks instead of an event loop, threads and a network.

What lives here: `World` (time), and for each node its `Shell`, `Links`, disks, engine and groups. What must
not: expectations; a test runs the world and looks.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable, Sequence
from random import Random

from kv.config import RaftConfig
from kv.internal.v1 import raft_pb2
from kv.raft.api import ENTRY_PREFIX
from kv.raft.engine import Engine
from kv.raft.group import Group
from kv.raft.wal import Wal
from kv.sim.disk import MemoryFiles
from kv.telemetry import Metrics
from tests.raft.harness import CONFIG
from tests.raft.ledger import Ledger, LedgerDisk

SYNC_S = 0.001
LATENCY_S = 0.0005
Then = Callable[[BaseException | None], None]


class Disk(MemoryFiles):
    """A disk that can be full for as long as the test wants."""

    full = False

    def write(self, name: str, offset: int, buffers: Sequence[bytes]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, name)
        super().write(name, offset, buffers)


class World:
    """Virtual time, seconds; callbacks at the same instant run in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 1.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.nodes: dict[str, Node] = {}
        self.sent: list[tuple[str, str, raft_pb2.RaftMessage]] = []
        self.lost: Callable[[str, str, raft_pb2.RaftMessage], bool] = lambda *_: False
        """Which messages, by sender and receiver, get lost."""

    def at(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Run a callback later."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._count, callback))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, callback = heapq.heappop(self._heap)
            callback()
        self.now = end

    def wait(self, condition: Callable[[], bool], limit_s: float = 20.0) -> None:
        """Let time pass until something holds."""
        end = self.now + limit_s
        while not condition():
            assert self._heap, "nothing will happen any more"
            assert self._heap[0][0] <= end, "it does not come about"
            self.now, _, callback = heapq.heappop(self._heap)
            callback()


class Node:
    """One process: its engine, and the engine's `Shell` and `Links`."""

    def __init__(self, world: World, name: str, members: Sequence[str], groups: int = 1) -> None:
        self.world, self.name = world, name
        world.nodes[name] = self
        self.disk = Disk()
        self.fatal: list[BaseException] = []
        self.held: list[tuple[Callable[[], None], Then]] | None = None
        """Work of the log's lane, while it is held back."""
        self.engine = Engine(
            me=name,
            wal=Wal.open(self.disk, segment_bytes=CONFIG.segment_bytes),
            links=self,
            shell=self,
            config=CONFIG,
            metrics=Metrics.create(),
            rng=Random(name).random,
            fatal=self.fatal.append,
        )
        self.ledgers: dict[int, Ledger] = {}
        for number in range(1, groups + 1):
            self.add(number, members)
        self.engine.start()

    def add(self, number: int, members: Sequence[str], config: RaftConfig = CONFIG) -> Group:
        """Run a replica of a group."""
        journal = self.engine.wal.journal(number)
        journal.bootstrap()
        ledger = self.ledgers[number] = Ledger(LedgerDisk(), lambda _: None)
        group = Group(
            group_id=number,
            epoch=1,
            me=self.name,
            members=members,
            journal=journal,
            machine=ledger,
            config=config,
            host=self.engine,
            rng=Random(f"{self.name}/{number}").random,
            now=self.world.now,
        )
        self.engine.add(group)
        return group

    def group(self, number: int = 1) -> Group:
        """A group of this node."""
        return self.engine.groups[number]

    def propose(self, *texts: str, group: int = 1) -> None:
        """Hand commands to a group and wake it."""
        self.ledgers[group].waiting += [ENTRY_PREFIX + text.encode() for text in texts]
        self.group(group).wake()

    # ------------------------------------------------------------ Shell

    def now(self) -> float:
        return self.world.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.world.at(0.0, callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.world.at(delay_s, callback)

    def run_blocking(self, lane: str, work: Callable[[], None], then: Then) -> None:
        if lane == "log" and self.held is not None:
            self.held.append((work, then))
        else:
            self.world.at(SYNC_S, lambda: self._work(work, then))

    def hold(self) -> None:
        """The log's disk is slow from now on: what it is asked to do waits."""
        self.held = []

    def release(self) -> None:
        """The log's disk does what waits."""
        assert self.held is not None
        held, self.held = self.held, None
        for work, then in held:
            self._work(work, then)

    def _work(self, work: Callable[[], None], then: Then) -> None:
        error: BaseException | None = None
        try:
            work()
        except OSError as caught:
            error = caught
        then(error)

    # ------------------------------------------------------------ Links

    def send(self, peer: str, raws: Sequence[bytes], bulk: bool) -> None:
        messages = [raft_pb2.RaftMessage.FromString(raw) for raw in raws]
        self.world.sent += [(self.name, peer, message) for message in messages]
        raws = [
            raw for raw, one in zip(raws, messages, strict=True) if not self.world.lost(self.name, peer, one)
        ]
        self.world.at(LATENCY_S, lambda: self.world.nodes[peer].deliver(self.name, raws))

    def deliver(self, source: str, raws: Sequence[bytes]) -> None:
        """Messages arrive."""
        self.engine.deliver(source, [raft_pb2.RaftMessage.FromString(raw) for raw in raws])


def cluster(size: int = 3, groups: int = 1) -> World:
    """Connected nodes n1, n2, ..., each with a replica of all groups."""
    world = World()
    names = [f"n{i + 1}" for i in range(size)]
    for name in names:
        Node(world, name, names, groups)
    for name in names:
        for peer in names:
            if peer != name:
                world.nodes[name].engine.connection(peer, True)
    return world


def leader(world: World, group: int = 1, besides: Node | None = None) -> Node:
    """Let time pass until a node leads the group, other than `besides`."""
    found: list[Node] = []

    def look() -> bool:
        found[:] = [
            node for node in world.nodes.values() if node is not besides and node.group(group).is_leader
        ]
        return bool(found)

    world.wait(look)
    return found[0]
