"""The router: takes a batch, finds its leader, and stays with it to its end (steps 2 and 3 of a write).

Here lives the bookkeeping of requests in flight: attempts, deadlines, the router's own sessions.
What to do next is decided in `kv.router.retry` and `kv.router.routing`; gRPC is in
`kv.router.server` and `kv.router.forward`. A request costs no task and no timer of its own.

Everything runs on the loop thread. `submit` and `execute` never raise: they call `reply` exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from kv.client.session import SequencedId, Session
from kv.cluster.map import ClusterMap, PartitionInfo
from kv.errors import KVError, Overloaded, Unavailable, UnknownOutcome, WrongPartition
from kv.ids import GroupId, NodeId, check_request_bytes
from kv.router import retry
from kv.router.api import Cluster, Forwarder, Reply
from kv.router.limits import RouterConfig
from kv.router.retry import Fail, Kind, Progress, Reopen, Retry, RetryPolicy
from kv.router.ring import Ring
from kv.router.routing import Part, Plan, Traits, merge, no_map, split, traits_of_raw, with_request_id
from kv.router.sessions import OPEN_SESSION, OPENS_SESSION, SessionDesks
from kv.router.timers import CallLater, Cancellable, DeadlineWheel
from kv.v1 import kv_pb2

_NO_PROGRESS = Progress()


class _Call:
    """One batch for one partition, from its arrival to its reply."""

    __slots__ = (
        "armed",
        "attempt",
        "attempt_open",
        "bare",
        "deadline",
        "delayed",
        "done",
        "info",
        "kind",
        "lost",
        "map_epoch",
        "node",
        "progress",
        "raw",
        "reply",
        "sequence",
        "session",
        "stale",
        "tickets",
    )

    def __init__(
        self, raw: bytes, info: PartitionInfo, map_epoch: int, deadline: float, reply: Reply
    ) -> None:
        self.bare = raw  # as it came; `raw` is what is sent, with our request id
        self.raw = raw
        self.info = info
        self.map_epoch = map_epoch
        self.deadline = deadline
        self.reply = reply
        self.kind: Kind | None = None  # None: nobody has decoded it, and nobody does unless an attempt fails
        self.stale = False
        self.progress = _NO_PROGRESS
        self.node: NodeId = ""
        self.attempt = 0
        self.attempt_open = False
        self.lost = 0  # attempts given up without an answer
        self.tickets: list[tuple[Forwarder, int]] = []
        self.session: Session | None = None
        self.sequence = 0
        self.armed = 0
        self.delayed: Cancellable | None = None
        self.done = False


class Router:
    """Routes batches to the leaders of their partitions, wherever they are."""

    def __init__(self, cluster: Cluster, config: RouterConfig, call_later: CallLater) -> None:
        self.cluster = cluster
        self.config = config
        self._clock = cluster.clock
        self._call_later = call_later
        self._policy = RetryPolicy(config.backoff_ms / 1000, config.backoff_max_ms / 1000)
        self._wheel: DeadlineWheel[_Call] = DeadlineWheel(
            self._clock, call_later, config.deadline_tick_ms / 1000, self._due
        )
        self._calls: dict[_Call, None] = {}  # in order: the end of all must not depend on addresses
        self._leaders: dict[GroupId, NodeId] = {}
        self._desks: SessionDesks[_Call] = SessionDesks(
            requests_in_flight_max=config.session_requests_in_flight_max,
            waiting_max=config.session_waiting_max,
            begin=self._begin,
            refuse=self._finish,
            open_session=self._open_session,
        )
        self._ring: tuple[ClusterMap, Ring] | None = None
        self._closed = False

    # --- the way in -------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests that have no reply yet; the parts of a split batch count each."""
        return len(self._calls)

    def deadline(self, timeout_ms: float) -> float:
        """Return the deadline of a request that arrives now; `timeout_ms` <= 0: the default timeout."""
        limit = self.config.request_timeout_max_ms
        wanted = timeout_ms if timeout_ms > 0 else self.config.request_timeout_ms
        return self._clock() + min(wanted, limit) / 1000

    def ring(self) -> tuple[ClusterMap, Ring]:
        """Return the newest map and its ring. Raises `Unavailable` before the first map."""
        newest = self.cluster.map
        if newest is None:
            raise no_map()
        if self._ring is None or self._ring[0] is not newest:
            self._ring = (newest, Ring(newest.partitions))
        return self._ring

    def submit(self, raw: bytes, partition: GroupId, deadline: float, reply: Reply) -> None:
        """Route a serialized batch to the partition that the client named; it is passed on undecoded."""
        try:
            check_request_bytes(len(raw))
            cluster_map, _ = self.ring()
            call = self._call(raw, cluster_map, partition, deadline, reply)
        except KVError as error:
            reply(error)
            return
        self._attempt(call, self._first_node(call))

    def execute(self, batch: kv_pb2.BatchRequest, raw: bytes, deadline: float, reply: Reply) -> None:
        """Route a checked batch (`routing.check_batch`) by its keys; `raw` is its serialized form."""
        try:
            check_request_bytes(len(raw))
            cluster_map, ring = self.ring()
            plan = split(batch, raw, ring)
        except KVError as error:
            reply(error)
            return
        if plan.whole is not None:
            self._start(plan.whole, cluster_map, deadline, reply)
            return
        gather = _Gather(plan, reply)
        for number, part in enumerate(plan.parts):
            self._start(part, cluster_map, deadline, partial(gather.take, number))

    async def request(self, batch: kv_pb2.BatchRequest, deadline: float) -> bytes:
        """Route a checked batch and wait for its end. Raises its `KVError`."""
        raw = batch.SerializeToString()
        return await self._wait(lambda reply: self.execute(batch, raw, deadline, reply))

    async def read_partition(
        self, batch: kv_pb2.BatchRequest, partition: GroupId, deadline: float
    ) -> kv_pb2.BatchResponse:
        """Send a batch of reads to one partition and wait for its end. Raises its `KVError`."""
        part = Part(partition, batch.SerializeToString(), (), _read_traits(batch))
        cluster_map, _ = self.ring()
        raw = await self._wait(lambda reply: self._start(part, cluster_map, deadline, reply))
        return kv_pb2.BatchResponse.FromString(raw)

    def close(self) -> None:
        """End every request in flight; what arrives later is refused. The node calls it when it stops."""
        self._closed = True
        for call in list(self._calls):
            if not call.done:  # the end of one may have ended another
                self._finish(call, self._stopping(call))
        self._wheel.close()

    async def _wait(self, start: Callable[[Reply], None]) -> bytes:
        future: asyncio.Future[bytes | KVError] = asyncio.get_running_loop().create_future()
        start(partial(_resolve, future))
        outcome = await future
        if isinstance(outcome, KVError):
            raise outcome
        return outcome

    # --- a call -----------------------------------------------------------------------------------

    def _start(self, part: Part, cluster_map: ClusterMap, deadline: float, reply: Reply) -> None:
        try:
            call = self._call(part.raw, cluster_map, part.partition, deadline, reply)
        except KVError as error:
            reply(error)
            return
        traits = part.traits
        call.stale = traits.stale
        if traits.repeatable:
            call.kind = Kind(is_read=traits.is_read, repeatable=True)
            self._attempt(call, self._first_node(call))
        else:
            call.kind = Kind(is_read=False, repeatable=True, owned_session=True)
            self._desks.attach(call.info.id, call)

    def _call(
        self, raw: bytes, cluster_map: ClusterMap, partition: GroupId, deadline: float, reply: Reply
    ) -> _Call:
        if self._closed:
            raise Unavailable("this node is stopping")
        info = cluster_map.partition(partition)
        if info is None:
            raise WrongPartition(
                f"there is no partition {partition}",
                metadata={"partition": partition, "map_epoch": cluster_map.epoch},
            )
        if len(self._calls) >= self.config.requests_in_flight_max:
            raise Overloaded(
                f"this node has {len(self._calls)} requests in flight",
                metadata={"requests_in_flight_max": self.config.requests_in_flight_max},
            )
        call = _Call(raw, info, cluster_map.epoch, deadline, reply)
        self._calls[call] = None
        call.armed = self._wheel.arm(call, deadline)
        return call

    def _finish(self, call: _Call, outcome: bytes | KVError) -> None:
        assert not call.done, "a request ends once"
        call.done = True
        self._calls.pop(call, None)
        self._wheel.disarm(call, call.armed)
        if call.delayed is not None:
            call.delayed.cancel()
        for forwarder, ticket in call.tickets:
            forwarder.cancel(ticket)
        self._desks.release(call.info.id, call)
        call.reply(outcome)

    # --- attempts ---------------------------------------------------------------------------------

    def _first_node(self, call: _Call) -> NodeId:
        """Return where to try first: here if it may be answered here, else where the leader seems to be."""
        replica = self.cluster.replica(call.info.id)
        if replica is not None:
            # Nobody has decoded a call without a kind: it may be a stale read, which a replica here
            # answers; if it is not, the replica refuses it with the leader's name, at no cost of a hop.
            if replica.is_leader or call.stale or call.kind is None:
                return self.cluster.node_id
            if replica.leader:
                return replica.leader
        return self._leaders.get(call.info.id) or call.info.replicas[0]

    def _attempt(self, call: _Call, node: NodeId) -> None:
        call.attempt += 1
        call.node = node
        call.attempt_open = True
        self._arm(call)
        number = call.attempt
        reply = partial(self._answered, call, number, node)
        if node == self.cluster.node_id:
            self._submit_here(call, reply)
            return
        forwarder = self.cluster.forwarder(node)
        timeout_ms = max(1, int((call.deadline - self._clock()) * 1000))
        ticket = forwarder.send(call.info.id, call.map_epoch, timeout_ms, call.raw, reply)
        if call.attempt == number and call.attempt_open and not call.done:
            call.tickets.append((forwarder, ticket))

    def _submit_here(self, call: _Call, reply: Reply) -> None:
        replica = self.cluster.replica(call.info.id)
        if replica is None:
            reply(Unavailable(f"this node has no replica of partition {call.info.id} yet"))
        else:
            replica.submit(call.raw, reply)

    def _answered(self, call: _Call, number: int, node: NodeId, outcome: bytes | KVError) -> None:
        """Take the end of one attempt.

        A late success of an attempt that was given up counts: it is the same request. A late error
        of one says nothing new: it was counted as maybe applied.
        """
        if call.done:
            return
        if not isinstance(outcome, KVError):
            if not call.stale:
                self._leaders[call.info.id] = node
            self._finish(call, outcome)
        elif number == call.attempt and call.attempt_open:
            call.attempt_open = False
            call.tickets = [pair for pair in call.tickets if call.lost]
            self._failed(call, outcome)

    def _failed(self, call: _Call, error: KVError) -> None:
        if self._leaders.get(call.info.id) == call.node:
            del self._leaders[call.info.id]
        if error.reason == "SESSION_EXPIRED" and call.session is not None:
            self._desks.expired(call.info.id, call.session)
        step = retry.next_step(
            error,
            self._kind(call),
            call.progress,
            tried=call.node,
            replicas=call.info.replicas,
            hint=self._known_leader(call),
            now=self._clock(),
            deadline=call.deadline,
            jitter=self.cluster.rng.random(),
            policy=self._policy,
        )
        match step:
            case Fail(final):
                self._finish(call, final)
            case Reopen(progress):
                call.progress = progress
                self._desks.release(call.info.id, call)
                self._desks.attach(call.info.id, call)
            case Retry(node, delay_s, progress):
                call.progress = progress
                self._retry(call, node, delay_s)

    def _retry(self, call: _Call, node: NodeId, delay_s: float) -> None:
        if delay_s <= 0:
            self._attempt(call, node)
        else:
            call.delayed = self._call_later(delay_s, partial(self._after_pause, call, node))

    def _after_pause(self, call: _Call, node: NodeId) -> None:
        call.delayed = None
        assert not call.done, "the end of a request cancels its pause"
        self._attempt(call, self._known_leader(call) or node)

    def _kind(self, call: _Call) -> Kind:
        """Return what the request is; for one that was passed on undecoded, look now."""
        if call.kind is None:
            traits = traits_of_raw(call.raw)
            call.stale = traits.stale
            call.kind = Kind(is_read=traits.is_read, repeatable=traits.repeatable)
        return call.kind

    def _known_leader(self, call: _Call) -> NodeId | None:
        replica = self.cluster.replica(call.info.id)
        if replica is None:
            return None
        return self.cluster.node_id if replica.is_leader else replica.leader

    # --- time -------------------------------------------------------------------------------------

    def _arm(self, call: _Call) -> None:
        """Set the timer to the deadline, or to the end of this attempt's patience if that is earlier."""
        self._wheel.disarm(call, call.armed)
        when = call.deadline
        if len(call.info.replicas) > 1 and (call.kind is None or call.kind.repeatable):
            patience_s = self.config.attempt_timeout_ms / 1000 * 2.0 ** min(call.lost, 30)
            when = min(when, self._clock() + patience_s)
        call.armed = self._wheel.arm(call, when)

    def _due(self, call: _Call) -> None:
        if self._clock() >= call.deadline:
            self._finish(call, self._too_late(call))
        elif not call.attempt_open or not self._kind(call).repeatable:
            call.armed = self._wheel.arm(call, call.deadline)
        else:
            self._give_up_attempt(call)

    def _give_up_attempt(self, call: _Call) -> None:
        """Send a repeatable request elsewhere, unless this node still takes the same one for the leader.

        A leader that was cut off keeps what it proposed until it is heard of again, while its
        successor could answer at once.
        """
        leader = self._known_leader(call)
        call.lost += 1
        if leader == call.node:
            self._arm(call)
            return
        call.progress = retry.lost_attempt(self._kind(call), call.progress)
        replicas = call.info.replicas
        after = replicas.index(call.node) + 1 if call.node in replicas else 0
        self._attempt(call, leader or replicas[after % len(replicas)])

    def _too_late(self, call: _Call) -> KVError:
        outstanding = call.attempt_open
        if outstanding and call.tickets and call.node != self.cluster.node_id:
            forwarder, ticket = call.tickets[-1]
            outstanding = not forwarder.cancel(ticket)  # still waiting to be sent: it never will be
        return retry.deadline_error(self._kind(call), call.progress, outstanding=outstanding)

    def _stopping(self, call: _Call) -> KVError:
        kind = self._kind(call)
        if not kind.is_read and (call.attempt_open or call.progress.maybe_applied):
            return UnknownOutcome("this node stopped before the request had its answer")
        return Unavailable("this node is stopping")

    # --- the router's own sessions ----------------------------------------------------------------

    def _begin(self, call: _Call, identity: SequencedId) -> None:
        call.raw = with_request_id(call.bare, identity.session, identity.sequence, identity.acknowledged)
        self._attempt(call, self._first_node(call))

    def _open_session(self, partition: GroupId, reply: Reply) -> None:
        try:
            cluster_map, _ = self.ring()
        except KVError as error:
            reply(error)
            return
        part = Part(partition, OPEN_SESSION, (0,), OPENS_SESSION)
        self._start(part, cluster_map, self.deadline(0), reply)


class _Gather:
    """Collects the outcomes of a split batch."""

    __slots__ = ("_left", "_outcomes", "_plan", "_reply")

    def __init__(self, plan: Plan, reply: Reply) -> None:
        self._plan = plan
        self._reply = reply
        self._outcomes: list[bytes | KVError] = [b""] * len(plan.parts)
        self._left = len(plan.parts)
        if not self._left:
            reply(merge(plan, ()))

    def take(self, number: int, outcome: bytes | KVError) -> None:
        """Take the outcome of one part; the last one completes the batch."""
        self._outcomes[number] = outcome
        self._left -= 1
        if self._left == 0:
            self._reply(merge(self._plan, self._outcomes))


def _resolve(future: asyncio.Future[bytes | KVError], outcome: bytes | KVError) -> None:
    if not future.done():  # the client may have cancelled its call
        future.set_result(outcome)


def _read_traits(batch: kv_pb2.BatchRequest) -> Traits:
    return Traits(is_read=True, stale=batch.level == kv_pb2.READ_LEVEL_STALE)
