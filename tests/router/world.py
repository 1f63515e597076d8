"""A small cluster for the router's tests: real state machines, scripted leadership, time in our hands.

`Group` is the one truth of a partition: a dict, a session table and the log of what was applied.
`FakeReplica` is one node's face of it, with the leader, the hints and the lost replies that a test
asks for. `VirtualTime` is a clock and a `call_later` that move when told to.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from random import Random
from typing import cast

import grpc

from kv.cluster.map import ClusterMap, NodeInfo, initial_map
from kv.errors import (
    BehindSession,
    KVError,
    LeaseRefused,
    NotLeader,
    SnapshotGone,
    TooStale,
    Unavailable,
    UnknownOutcome,
    WrongPartition,
)
from kv.ids import GroupId, NodeId
from kv.internal.v1 import peer_pb2
from kv.partition.batch import decode_batch
from kv.partition.machine import apply_command
from kv.partition.read import PageLimits, read_batch
from kv.partition.session import SessionLimits, SessionTable
from kv.router.api import Forwarder, Reply
from kv.router.dispatch import Router
from kv.router.forward import Forwarders
from kv.router.limits import RouterConfig
from kv.router.ring import Ring
from kv.router.server import RouterServer
from kv.router.streams import server_options
from kv.router.timers import CallLater
from kv.v1 import cluster_pb2, kv_pb2

CLUSTER = "test"


class VirtualTime:
    """A clock in seconds, and timers that fire when `advance` passes them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._made = 0

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> _Timer:
        self._made += 1
        timer = _Timer(callback)
        heapq.heappush(self._timers, (self.now + max(0.0, delay), self._made, timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock on and fire what falls due, in order."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            timer.fire()
        self.now = end


class _Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()


class State(dict[bytes, bytes]):
    """The keys of a partition, as the state machine and the reads see them."""

    def put(self, key: bytes, record: bytes, is_new: bool) -> None:
        assert is_new == (key not in self)
        self[key] = record

    def delete(self, key: bytes) -> None:
        del self[key]

    def range(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self):
            if key >= start and (not end or key < end):
                yield key, self[key]


class Group:
    """One partition, shared by its replicas."""

    def __init__(self, partition: GroupId, leader: NodeId | None) -> None:
        self.partition = partition
        self.leader = leader
        self.term = 1
        self.index = 2
        self.state = State()
        self.sessions = SessionTable(
            SessionLimits(
                sessions_max=100, session_results_max=1024, session_result_bytes_max=1 << 23, ttl_ms=10**9
            )
        )
        self.page_limits = PageLimits(scan_page_items=1000, scan_page_bytes=1 << 18)
        self.writes_applied = 0
        """Commands that changed a key (a repetition that was answered from the table does not count)."""
        self.submitted: list[tuple[NodeId, bytes]] = []
        self.lose_replies = 0
        """The next so many writes are applied and their replies lost (UNKNOWN_OUTCOME)."""
        self.hold_replies = False
        """The leader's replies are kept in `held` instead of given."""
        self.held: list[Callable[[], None]] = []
        self.refusals: list[KVError] = []
        """The next requests are refused with these, in order."""

    async def holding(self, count: int) -> None:
        """Wait until that many requests have arrived and their replies are held."""
        async with asyncio.timeout(5):
            while len(self.held) < count:  # noqa: ASYNC110 - a scripted replica has no event to await
                await asyncio.sleep(0.005)

    def expire_sessions(self) -> None:
        self.sessions.load([])

    def release(self) -> None:
        held, self.held = self.held, []
        for give in held:
            give()

    def apply(self, raw: bytes, node: NodeId, map_epoch: int) -> bytes | KVError:
        batch = decode_batch(raw)
        self.index += 1
        before = dict(self.state)
        [outcome] = apply_command(self.state, self.sessions, self.index, self.index, [batch])
        self.writes_applied += before != self.state
        if isinstance(outcome, KVError):
            return outcome
        return outcome + self.evidence(node, map_epoch, kv_pb2.READ_LEVEL_UNSPECIFIED)

    def evidence(
        self, node: NodeId, map_epoch: int, level: kv_pb2.ReadLevel.ValueType, index: int | None = None
    ) -> bytes:
        evidence = kv_pb2.Evidence(
            partition=self.partition,
            map_epoch=map_epoch,
            term=self.term,
            index=self.index if index is None else index,
            node=node,
            level=level,
        )
        return kv_pb2.BatchResponse(evidence=[evidence]).SerializeToString()


class FakeReplica:
    """One node's copy of a group."""

    def __init__(self, group: Group, node: NodeId, cluster_map: ClusterMap) -> None:
        self.group = group
        self.node = node
        self.map = cluster_map
        self.ring = Ring(cluster_map.partitions)
        self.believes: NodeId | None = None
        """Whom this replica names as the leader instead of the true one."""
        self.fallen_behind: tuple[State, int] | None = None
        """What it has applied, if that is not all: a state and its index."""
        self.age_ms: int | None = 0
        """How old a BOUNDED read here would be; None: nobody can tell."""
        self.lease_allowed = True
        self.keeps_snapshots = True
        self.snapshots: dict[int, tuple[State, int]] = {}

    def fall_behind(self) -> None:
        """Apply nothing more from now on."""
        state = State()
        state.update(self.group.state)
        self.fallen_behind = (state, self.group.index)

    @property
    def applied(self) -> tuple[State, int]:
        """What it has applied, with the index."""
        return self.fallen_behind or (self.group.state, self.group.index)

    @property
    def is_leader(self) -> bool:
        return self.group.leader == self.node

    @property
    def leader(self) -> NodeId | None:
        return self.believes or self.group.leader

    def submit(self, raw: bytes, reply: Reply) -> None:
        group = self.group
        group.submitted.append((self.node, raw))
        outcome = self._outcome(raw)
        if group.hold_replies and self.is_leader:
            group.held.append(lambda: reply(outcome))
        else:
            reply(outcome)

    def _outcome(self, raw: bytes) -> bytes | KVError:  # noqa: PLR0911 - a list of refusals, read from the top
        group = self.group
        if group.refusals:
            return group.refusals.pop(0)
        try:
            batch = decode_batch(raw)
        except KVError as error:
            return error
        keys = batch.keys()
        if any(self.ring.partition_of(key) != group.partition for key in keys):
            return WrongPartition("not here", metadata={"map_epoch": self.map.epoch})
        request = kv_pb2.BatchRequest.FromString(raw)
        if batch.writes:
            if not self.is_leader:
                return self._not_leader()
            outcome = group.apply(raw, self.node, self.map.epoch)
            if group.lose_replies:
                group.lose_replies -= 1
                return UnknownOutcome("the reply was lost")
            return outcome + _step(self.node) if request.trace and isinstance(outcome, bytes) else outcome
        if len(request.operations) == 1 and request.operations[0].range.snapshot:
            return self._next_page(request)
        return self._refusal(request) or self._read(request)

    def _not_leader(self) -> KVError:
        named = self.leader if self.leader != self.node else ""
        return NotLeader("not here", metadata={"leader": named or "", "partition": self.group.partition})

    def _refusal(self, request: kv_pb2.BatchRequest) -> KVError | None:
        """Return why this replica does not serve a read of that level."""
        read, (_, index) = request.read, self.applied
        match request.level:
            case kv_pb2.READ_LEVEL_LINEARIZABLE | kv_pb2.READ_LEVEL_UNSPECIFIED:
                asked = read.node == self.node or read.preference == kv_pb2.REPLICA_PREFERENCE_LOCAL
                if not self.is_leader and not (asked and self.group.leader):
                    return self._not_leader()
            case kv_pb2.READ_LEVEL_LEASE:
                if not self.is_leader:
                    return self._not_leader()
                return None if self.lease_allowed else LeaseRefused("no lease")
            case kv_pb2.READ_LEVEL_SESSION:
                seen = {pair.partition: pair.index for pair in read.after}
                if index < seen.get(self.group.partition, 0):
                    return BehindSession("behind", metadata={"applied_index": index})
            case kv_pb2.READ_LEVEL_BOUNDED:
                if self.age_ms is None or self.age_ms > read.max_age_ms:
                    return TooStale("too old", metadata={"max_age_ms": read.max_age_ms})
            case _:
                pass
        return None

    def _read(self, request: kv_pb2.BatchRequest) -> bytes:
        state, index = self.applied
        results = self._results(state, request)
        for operation in request.operations:
            if operation.range.keep_snapshot:
                results = self._keep(results, state, index)
        level = request.level or kv_pb2.READ_LEVEL_LINEARIZABLE
        trace = _step(self.node) if request.trace else b""
        return results + self.group.evidence(self.node, self.map.epoch, level, index) + trace

    def _results(self, state: State, request: kv_pb2.BatchRequest) -> bytes:
        plain = kv_pb2.BatchRequest()
        plain.CopyFrom(request)
        for operation in plain.operations:
            if operation.HasField("range"):
                operation.range.keep_snapshot, operation.range.snapshot = False, 0
        return read_batch(state, decode_batch(plain.SerializeToString()), self.group.page_limits)

    def _keep(self, results: bytes, state: State, index: int) -> bytes:
        """Keep the state for the pages that follow, if there are any."""
        response = kv_pb2.BatchResponse.FromString(results)
        page = response.results[0].range
        if page.more and self.keeps_snapshots:
            page.snapshot = len(self.snapshots) + 1
            kept = State()
            kept.update(state)
            self.snapshots[page.snapshot] = (kept, index)
        return response.SerializeToString()

    def _next_page(self, request: kv_pb2.BatchRequest) -> bytes | KVError:
        [operation] = request.operations
        found = self.snapshots.get(operation.range.snapshot)
        if found is None:
            return SnapshotGone("gone", metadata={"cause": "idle"})
        state, index = found
        level = request.level or kv_pb2.READ_LEVEL_LINEARIZABLE
        return self._results(state, request) + self.group.evidence(self.node, self.map.epoch, level, index)


def _step(node: NodeId) -> bytes:
    """Return what a replica adds for a request that asked for its trace."""
    step = kv_pb2.TraceStep(component="replica", node=node, step="served")
    return kv_pb2.BatchResponse(trace=[step]).SerializeToString()


class DirectForwarder:
    """Carries requests to another node's replicas without a wire, until the test cuts it."""

    def __init__(self, target: VirtualNode) -> None:
        self._target = target
        self.mode = "up"
        """up; down: refused, definite; lossy: delivered, reply lost; stuck: delivered, never answered;
        waiting: never sent."""
        self._live: dict[int, Reply] = {}
        self._unsent: set[int] = set()
        self._tickets = 0
        self.sent = 0

    @property
    def live(self) -> int:
        return len(self._live)

    def send(self, partition: GroupId, map_epoch: int, timeout_ms: int, raw: bytes, reply: Reply) -> int:
        if self.mode == "down":
            reply(Unavailable("no connection"))
            return 0
        self._tickets += 1
        ticket = self._tickets
        self._live[ticket] = reply
        if self.mode == "waiting":
            self._unsent.add(ticket)
            return ticket
        self.sent += 1
        mode = self.mode

        def answer(outcome: bytes | KVError) -> None:
            taker = self._live.pop(ticket, None) if mode != "stuck" else None
            if taker is not None:
                taker(UnknownOutcome("the stream ended") if mode == "lossy" else outcome)

        replica = self._target.replica(partition)
        if replica is None:
            answer(WrongPartition("no replica here"))
        else:
            replica.submit(raw, answer)
        return ticket

    def cancel(self, ticket: int) -> bool:
        self._live.pop(ticket, None)
        return ticket in self._unsent


class VirtualNode:
    """A node without a wire, in virtual time: what the router sees as its cluster."""

    def __init__(self, node_id: NodeId, world: VirtualWorld) -> None:
        self.node_id = node_id
        self._world = world
        self.rng = Random(7)
        self.replicas = {
            partition.id: FakeReplica(world.groups[partition.id], node_id, world.map)
            for partition in world.map.partitions
            if node_id in partition.replicas
        }
        self.map: ClusterMap | None = world.map
        self.forwarders: dict[NodeId, DirectForwarder] = {}

    @property
    def clock(self) -> Callable[[], float]:
        return self._world.time.clock

    def replica(self, partition: GroupId) -> FakeReplica | None:
        return self.replicas.get(partition)

    def forwarder(self, node: NodeId) -> Forwarder:
        if node not in self.forwarders:
            self.forwarders[node] = DirectForwarder(self._world.nodes[node])
        return self.forwarders[node]

    def status(self) -> cluster_pb2.NodeStatus:
        return cluster_pb2.NodeStatus(id=self.node_id)

    async def content_hash(self, partition: GroupId) -> cluster_pb2.GetContentHashResponse:
        raise Unavailable("not in this world")


class VirtualWorld:
    """Nodes n1, n2, ... in virtual time, each with a router."""

    def __init__(
        self,
        *,
        nodes: int = 3,
        partitions: int = 4,
        replication_factor: int = 3,
        config: RouterConfig | None = None,
    ) -> None:
        self.time = VirtualTime()
        self.config = config or RouterConfig()
        infos = [NodeInfo(f"n{i}", f"127.0.0.1:{i}") for i in range(1, nodes + 1)]
        self.map = make_map(infos, partitions, replication_factor)
        self.groups = {p.id: Group(p.id, p.replicas[0]) for p in self.map.partitions}
        self.nodes: dict[NodeId, VirtualNode] = {}
        for info in infos:
            self.nodes[info.id] = VirtualNode(info.id, self)
        self.ring = Ring(self.map.partitions)
        self.routers = {
            name: Router(node, self.config, self.time.call_later) for name, node in self.nodes.items()
        }

    def lead(self, node: NodeId | None) -> None:
        """Make `node` the leader of every partition."""
        for group in self.groups.values():
            group.leader = node
            group.term += 1

    def group_of(self, key: bytes) -> Group:
        return self.groups[self.ring.partition_of(key)]


def make_map(infos: list[NodeInfo], partitions: int, replication_factor: int) -> ClusterMap:
    """Return the map of a new cluster."""
    return initial_map(
        CLUSTER,
        infos,
        partitions=partitions,
        replication_factor=replication_factor,
        virtual_nodes=16,
        load_factor=1.25,
    )


class Inbox:
    """Collects the reply of one request, and fails if there are two."""

    def __init__(self) -> None:
        self.outcomes: list[bytes | KVError] = []

    def __call__(self, outcome: bytes | KVError) -> None:
        assert not self.outcomes, "a reply comes once"
        self.outcomes.append(outcome)

    @property
    def empty(self) -> bool:
        return not self.outcomes

    @property
    def ok(self) -> bool:
        return len(self.outcomes) == 1 and isinstance(self.outcomes[0], bytes)

    @property
    def error(self) -> KVError:
        [outcome] = self.outcomes
        assert isinstance(outcome, KVError), f"expected an error, got {outcome!r}"
        return outcome

    @property
    def response(self) -> kv_pb2.BatchResponse:
        [outcome] = self.outcomes
        assert isinstance(outcome, bytes), f"expected a response, got {outcome!r}"
        return kv_pb2.BatchResponse.FromString(outcome)


def put(key: bytes, value: bytes = b"v") -> kv_pb2.Operation:
    """Return a put."""
    return kv_pb2.Operation(put=kv_pb2.PutOperation(key=key, value=value))


def get(key: bytes) -> kv_pb2.Operation:
    """Return a get."""
    return kv_pb2.Operation(get=kv_pb2.GetOperation(key=key))


def batch(
    *operations: kv_pb2.Operation,
    level: int = kv_pb2.READ_LEVEL_UNSPECIFIED,
    request_id: kv_pb2.RequestId | None = None,
    read: kv_pb2.ReadOptions | None = None,
    trace: bool = False,
) -> kv_pb2.BatchRequest:
    """Return a batch; `level` may be one that does not exist."""
    return kv_pb2.BatchRequest(
        operations=operations,
        level=cast(kv_pb2.ReadLevel.ValueType, level),
        request_id=request_id,
        read=read,
        trace=trace,
    )


def keys_of_distinct_partitions(ring: Ring, count: int) -> list[bytes]:
    """Return one key for each of `count` partitions."""
    found: dict[GroupId, bytes] = {}
    number = 0
    while len(found) < count:
        key = b"k%d" % number
        found.setdefault(ring.partition_of(key), key)
        number += 1
    return list(found.values())


class WireNode:
    """A node with a real gRPC server on a loopback port."""

    def __init__(self, node_id: NodeId, config: RouterConfig, cluster: str) -> None:
        self.node_id = node_id
        self.config = config
        self.cluster = cluster
        self.rng = Random(11)
        self.map: ClusterMap | None = None
        self.replicas: dict[GroupId, FakeReplica] = {}
        self.server = grpc.aio.server(options=server_options(config))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self.forwarders: Forwarders
        self.router: Router
        self.service: RouterServer

    @property
    def clock(self) -> Callable[[], float]:
        return self._clock

    def hello(self) -> peer_pb2.Hello:
        return peer_pb2.Hello(cluster=self.cluster, node=self.node_id, incarnation=1)

    def replica(self, partition: GroupId) -> FakeReplica | None:
        return self.replicas.get(partition)

    def forwarder(self, node: NodeId) -> Forwarder:
        return self.forwarders.get(node)

    def status(self) -> cluster_pb2.NodeStatus:
        return cluster_pb2.NodeStatus(id=self.node_id, connected_peers=self.forwarders.connected())

    async def content_hash(self, partition: GroupId) -> cluster_pb2.GetContentHashResponse:
        replica = self.replicas.get(partition)
        if replica is None:
            raise WrongPartition("no replica here", metadata={"partition": partition})
        return cluster_pb2.GetContentHashResponse(index=replica.group.index, keys=len(replica.group.state))

    def _address_of(self, node: NodeId) -> str | None:
        info = self.map.node(node) if self.map is not None else None
        return None if info is None else info.address

    async def start(self, call_later: CallLater, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.forwarders = Forwarders(self._address_of, self.hello, self.config, self.rng)
        self.router = Router(self, self.config, call_later)
        self.service = RouterServer(self.router, self.hello)
        self.service.add_to(self.server)
        await self.service.start()
        await self.server.start()

    async def stop(self) -> None:
        await self.service.stop()
        await self.server.stop(None)
        self.router.close()
        await self.forwarders.close()
