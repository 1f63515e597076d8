"""The router: takes a batch, finds its leader, and stays with it to its end (steps 2 and 3 of a write).

Here live the attempts of requests in flight, their deadlines and ends. Where to try and what to do next is
decided in `kv.router.target`, `kv.router.retry` and `kv.router.routing`, reads of several replicas are in
`kv.router.quorum`; gRPC is in `kv.router.server` and `kv.router.forward`. A request costs no task and no timer.

Everything runs on the loop thread. `submit` and `execute` never raise: they call `reply` exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from kv.client.session import SequencedId
from kv.cluster.map import ClusterMap
from kv.errors import InvalidArgument, KVError, Overloaded, Unavailable, UnknownOutcome
from kv.ids import GroupId, NodeId, check_request_bytes
from kv.outcome import OutcomeToken
from kv.router import retry
from kv.router.api import Cluster, Reply
from kv.router.call import Call, End, Gather, no_partition
from kv.router.limits import RouterConfig
from kv.router.options import check_reach, replicas_wanted
from kv.router.quorum import FanOut, Poll
from kv.router.retry import Fail, Kind, Reopen, Retry, RetryPolicy
from kv.router.ring import Ring
from kv.router.routing import (
    Part,
    Traits,
    decode_batch,
    is_plain,
    named_part,
    no_map,
    split,
    traits_of_raw,
    with_request_id,
    with_token,
)
from kv.router.sessions import OPEN_SESSION, OPENS_SESSION, SessionDesks
from kv.router.target import preferred_order
from kv.router.timers import CallLater, DeadlineWheel
from kv.router.trace import Trail
from kv.v1 import kv_pb2


class Router:
    """Routes batches to the leaders of their partitions, wherever they are."""

    def __init__(self, cluster: Cluster, config: RouterConfig, call_later: CallLater) -> None:
        self.cluster = cluster
        self.config = config
        self._clock = cluster.clock
        self._call_later = call_later
        self._patience_s = config.attempt_timeout_ms / 1000
        self._policy = RetryPolicy(config.backoff_ms / 1000, config.backoff_max_ms / 1000)
        self._wheel: DeadlineWheel[Call] = DeadlineWheel(
            self._clock, call_later, config.deadline_tick_ms / 1000, self._due
        )
        self._calls: dict[Call, None] = {}  # in order: the end of all must not depend on addresses
        self._leaders: dict[GroupId, NodeId] = {}
        self._desks: SessionDesks[Call] = SessionDesks(
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
        """Route a serialized batch to the partition that the client named.

        One that asks for the defaults is passed on undecoded; nobody but its replica looks into it.
        """
        try:
            check_request_bytes(len(raw))
            cluster_map, _ = self.ring()
            if not is_plain(raw):
                self._submit_decoded(raw, partition, cluster_map, deadline, reply)
                return
            call = self._call(raw, cluster_map, partition, deadline, reply)
        except KVError as error:
            reply(error)
            return
        self._attempt(call, self._first_node(call))

    def _submit_decoded(
        self, raw: bytes, partition: GroupId, cluster_map: ClusterMap, deadline: float, reply: Reply
    ) -> None:
        batch = decode_batch(raw)
        check_reach(batch.level, batch.read, cluster_map.replication_factor)
        self._start(named_part(batch, raw, partition), cluster_map, deadline, reply, lend_session=False)

    def execute(
        self,
        batch: kv_pb2.BatchRequest,
        raw: bytes,
        deadline: float,
        reply: Reply,
        *,
        partition: GroupId = 0,
        node: NodeId = "",
    ) -> None:
        """Route a checked batch (`routing.check_batch`); `raw` is its serialized form.

        Its keys say where it goes, or `partition` (0: the keys), and there only the replica of `node`, if given.
        """
        try:
            check_request_bytes(len(raw))
            cluster_map, ring = self.ring()
            if batch.level:
                check_reach(batch.level, batch.read, cluster_map.replication_factor)
            if partition:
                part = named_part(batch, raw, partition)
                self._start(part, cluster_map, deadline, reply, node=node)
                return
            plan = split(batch, raw, ring)
        except KVError as error:
            reply(error)
            return
        if plan.whole is not None:
            self._start(plan.whole, cluster_map, deadline, reply)
            return
        gather = Gather(plan, reply)
        for number, part in enumerate(plan.parts):
            self._start(part, cluster_map, deadline, partial(gather.take, number))

    def execute_one(self, key: bytes, traits: Traits, raw: bytes, deadline: float, reply: Reply) -> None:
        """Route a serialized batch of one operation on `key`, of which the caller knows what kind it is.

        It goes the way of `execute` without being decoded: `traits` must be of a request that one replica serves.
        """
        assert not traits.fans_out, "a read of several replicas is decoded"
        try:
            check_request_bytes(len(raw))
            cluster_map, ring = self.ring()
            call = self._call(raw, cluster_map, ring.partition_of(key), deadline, reply)
        except KVError as error:
            reply(error)
            return
        self._begin_call(call, traits, pinned=False, lend_session=True)

    async def request(
        self, batch: kv_pb2.BatchRequest, deadline: float, *, partition: GroupId = 0, node: NodeId = ""
    ) -> bytes:
        """Route a checked batch as `execute` does and wait for its end. Raises its `KVError`."""
        end = End()
        raw = batch.SerializeToString()
        self.execute(batch, raw, deadline, end.resolve, partition=partition, node=node)
        return await end.response()

    def close(self) -> None:
        """End every request in flight; what arrives later is refused. The node calls it when it stops."""
        self._closed = True
        for call in list(self._calls):
            if not call.done:  # the end of one may have ended another
                self._finish(call, self._stopping(call))
        self._wheel.close()

    # --- a call -----------------------------------------------------------------------------------

    def _start(
        self,
        part: Part,
        cluster_map: ClusterMap,
        deadline: float,
        reply: Reply,
        *,
        node: NodeId = "",
        lend_session: bool = True,
    ) -> None:
        """Begin a decoded share of a batch, at `node` alone if given.

        A write without a session gets one of this router's, unless it is the business of its sender.
        """
        traits = part.traits
        begin: Callable[[], None]
        try:
            if traits.fans_out and not node:
                begin = self._fan_out(part, cluster_map, deadline, reply).start
            else:
                call = self._call(part.raw, cluster_map, part.partition, deadline, reply, node)
                begin = partial(self._begin_call, call, traits, pinned=bool(node), lend_session=lend_session)
        except KVError as error:
            reply(error)
            return
        begin()

    def _begin_call(self, call: Call, traits: Traits, *, pinned: bool, lend_session: bool) -> None:
        kind = call.describe(traits, owned=lend_session and not traits.repeatable, pinned=pinned)
        if traits.trace and not traits.fans_out:
            call.trail = self._trail(call.info.id)
        if not kind.owned_session:
            self._attempt(call, self._first_node(call))
            return
        self._desks.attach(call.info.id, call)
        if not call.attempt and not call.done:  # it waits for a session; an attempt would have set the timer
            call.armed = self._wheel.arm(call, call.deadline)

    def _fan_out(self, part: Part, cluster_map: ClusterMap, deadline: float, reply: Reply) -> FanOut:
        """Read from several replicas at once; each is asked by a call of its own, which is for it alone."""
        info = cluster_map.partition(part.partition)
        if info is None:
            raise no_partition(part.partition, cluster_map)
        wanted = replicas_wanted(part.traits.level, part.traits.replicas, len(info.replicas))
        if wanted > len(info.replicas):
            raise InvalidArgument(f"partition {info.id} has {len(info.replicas)} replicas, not {wanted}")
        trail = self._trail(info.id) if part.traits.trace else None
        order = preferred_order(part.traits.wish, info.replicas, here=self._here(info.id), leader=None)

        def ask(node: NodeId, has_spare: bool, take: Reply) -> None:
            until = min(deadline, self._clock() + self._patience_s) if has_spare else deadline
            self._start(part, cluster_map, until, take, node=node)

        def note(step: str, detail: str) -> None:
            if trail is not None:
                trail.note(step, self._clock(), detail)

        def give(outcome: bytes | KVError) -> None:
            if trail is not None and not isinstance(outcome, KVError):
                outcome += trail.encoded()
            reply(outcome)

        return FanOut(info.id, Poll(order, wanted), ask=ask, note=note, reply=give)

    def _trail(self, partition: GroupId) -> Trail:
        trail = Trail(self.cluster.node_id, self._clock())
        leader = self._leader(partition) or "not known"
        trail.note("routed", self._clock(), f"partition {partition}, leader {leader}")
        return trail

    def _note(self, call: Call, step: str, detail: str) -> None:
        if call.trail is not None:
            call.trail.note(step, self._clock(), detail)

    def _call(
        self,
        raw: bytes,
        cluster_map: ClusterMap,
        partition: GroupId,
        deadline: float,
        reply: Reply,
        node: NodeId = "",
    ) -> Call:
        if self._closed:
            raise Unavailable("this node is stopping")
        info = cluster_map.partition(partition)
        if info is None:
            raise no_partition(partition, cluster_map)
        if node:
            info = replace(info, replicas=(node,))
        if len(self._calls) >= self.config.requests_in_flight_max:
            raise Overloaded(
                f"this node has {len(self._calls)} requests in flight",
                metadata={"requests_in_flight_max": self.config.requests_in_flight_max},
            )
        call = Call(raw, info, cluster_map.epoch, deadline, reply)
        self._calls[call] = None
        return call

    def _finish(self, call: Call, outcome: bytes | KVError) -> None:
        assert not call.done, "a request ends once"
        call.done = True
        self._calls.pop(call, None)
        self._wheel.disarm(call, call.armed)
        if call.delayed is not None:
            call.delayed.cancel()
        for forwarder, ticket in call.tickets:
            forwarder.cancel(ticket)
        if isinstance(outcome, KVError):
            outcome = self._failure(call, outcome)
        elif call.trail is not None:
            outcome += call.trail.encoded()
        self._desks.release(call.info.id, call)  # harmless for one that was set aside
        call.reply(outcome)

    def _failure(self, call: Call, error: KVError) -> KVError:
        """Return the error as the caller gets it: with a token if the write's outcome is unknown and can be asked for."""
        if error.definite or error.applied or self._kind(call).is_read:
            return error
        if call.session is not None:
            token = OutcomeToken(call.info.id, call.session.id, call.sequence)
            self._desks.set_aside(call.info.id, call)
            return with_token(error, token)
        traits = call.traits
        if traits is None or not (traits.session and traits.sequence):
            return error
        return with_token(error, OutcomeToken(call.info.id, traits.session, traits.sequence))

    # --- attempts ---------------------------------------------------------------------------------

    def _first_node(self, call: Call) -> NodeId:
        """Return where to try first: as its wish says, else where the leader seems to be."""
        here = self._here(call.info.id)
        if call.traits is None and here is not None:
            return here  # nobody has decoded it: the replica refuses it with the leader's name, at no cost of a hop
        leader = self._leader(call.info.id)
        if call.traits is None:
            return leader or call.info.replicas[0]
        if call.shows_leader and leader:
            return leader
        return preferred_order(call.traits.wish, call.info.replicas, here=here, leader=leader)[0]

    def _here(self, partition: GroupId) -> NodeId | None:
        return None if self.cluster.replica(partition) is None else self.cluster.node_id

    def _leader(self, partition: GroupId) -> NodeId | None:
        """Return the leader as the replica here knows it, else as the last answers showed it."""
        return self._known_leader(partition) or self._leaders.get(partition)

    def _attempt(self, call: Call, node: NodeId) -> None:
        call.attempt += 1
        call.node = node
        call.attempt_open = True
        self._arm(call)
        if call.trail is not None:
            self._note(call, "sent", node)
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

    def _submit_here(self, call: Call, reply: Reply) -> None:
        replica = self.cluster.replica(call.info.id)
        if replica is None:
            reply(Unavailable(f"this node has no replica of partition {call.info.id} yet"))
        else:
            replica.submit(call.raw, reply)

    def _answered(self, call: Call, number: int, node: NodeId, outcome: bytes | KVError) -> None:
        """Take the end of one attempt.

        A late success of an attempt that was given up counts: it is the same request. A late error
        of one says nothing new: it was counted as maybe applied.
        """
        if call.done:
            return
        if not isinstance(outcome, KVError):
            if call.shows_leader:
                self._leaders[call.info.id] = node
            if call.trail is not None:
                self._note(call, "answered", node)
            self._finish(call, outcome)
        elif number == call.attempt and call.attempt_open:
            call.attempt_open = False
            call.tickets = [pair for pair in call.tickets if call.lost]
            self._failed(call, outcome)

    def _failed(self, call: Call, error: KVError) -> None:
        if call.trail is not None:
            self._note(call, "refused", f"{call.node}: {error.reason}")
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
            hint=self._hint(call),
            now=self._clock(),
            deadline=call.deadline,
            jitter=self.cluster.rng.random(),
            policy=self._policy,
        )
        match step:
            case Retry(node, delay_s, progress):
                call.progress = progress
                self._retry(call, node, delay_s)
            case Fail(final):
                self._finish(call, final)
            case Reopen(progress):
                call.progress = progress
                self._desks.release(call.info.id, call)
                self._desks.attach(call.info.id, call)

    def _retry(self, call: Call, node: NodeId, delay_s: float) -> None:
        if delay_s <= 0:
            self._attempt(call, node)
        else:
            call.delayed = self._call_later(delay_s, partial(self._after_pause, call, node))

    def _after_pause(self, call: Call, node: NodeId) -> None:
        call.delayed = None
        assert not call.done, "the end of a request cancels its pause"
        anywhere = call.kind is not None and (call.kind.any_replica or call.kind.pinned)
        self._attempt(call, node if anywhere else self._known_leader(call.info.id) or node)

    def _kind(self, call: Call) -> Kind:
        """Return what the request is; for one that was passed on undecoded, look now."""
        if call.kind is not None:
            return call.kind
        return call.describe(traits_of_raw(call.raw))

    def _hint(self, call: Call) -> NodeId | None:
        """Return the leader to try next: what other answers showed counts only for who may do without it."""
        partition = call.info.id
        return self._leader(partition) if self._kind(call).any_replica else self._known_leader(partition)

    def _known_leader(self, partition: GroupId) -> NodeId | None:
        replica = self.cluster.replica(partition)
        if replica is None:
            return None
        return self.cluster.node_id if replica.is_leader else replica.leader

    # --- time -------------------------------------------------------------------------------------

    def _arm(self, call: Call) -> None:
        """Set the timer to the deadline, or to the end of this attempt's patience if that is earlier."""
        if call.armed:
            self._wheel.disarm(call, call.armed)
        when = call.deadline
        if len(call.info.replicas) > 1 and (call.kind is None or call.kind.repeatable):
            patience_s = self._patience_s * 2.0 ** min(call.lost, 30) if call.lost else self._patience_s
            when = min(when, self._clock() + patience_s)
        call.armed = self._wheel.arm(call, when)

    def _due(self, call: Call) -> None:
        if self._clock() >= call.deadline:
            self._finish(call, self._too_late(call))
        elif not call.attempt_open or not self._kind(call).repeatable:
            call.armed = self._wheel.arm(call, call.deadline)
        else:
            self._give_up_attempt(call)

    def _give_up_attempt(self, call: Call) -> None:
        """Send a repeatable request elsewhere, unless it needs the leader and this node still takes the same one for it.

        A leader that was cut off keeps what it proposed until it is heard of again, while its
        successor could answer at once.
        """
        kind, leader, replicas = self._kind(call), self._hint(call), call.info.replicas
        call.lost += 1
        if leader == call.node and not kind.any_replica:
            self._arm(call)
            return
        self._note(call, "given up", call.node)
        call.progress = retry.lost_attempt(kind, call.progress, call.node, replicas)
        self._attempt(call, retry.next_replica(kind, call.progress, call.node, replicas, leader))

    def _too_late(self, call: Call) -> KVError:
        outstanding = call.attempt_open
        if outstanding and call.tickets and call.node != self.cluster.node_id:
            forwarder, ticket = call.tickets[-1]
            outstanding = not forwarder.cancel(ticket)  # still waiting to be sent: it never will be
        return retry.deadline_error(self._kind(call), call.progress, outstanding=outstanding)

    def _stopping(self, call: Call) -> KVError:
        kind = self._kind(call)
        if not kind.is_read and (call.attempt_open or call.progress.maybe_applied):
            return UnknownOutcome("this node stopped before the request had its answer")
        return Unavailable("this node is stopping")

    # --- the router's own sessions ----------------------------------------------------------------

    def _begin(self, call: Call, identity: SequencedId) -> None:
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
