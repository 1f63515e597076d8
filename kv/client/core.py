"""The core: joins calls into requests, sends them, and acts on `kv.client.retry`'s decisions.

Step 1 of the path of a write. Batching is natural, as everywhere in the system: what
is called in one turn of the event loop, or while a request of the same lane is under
way, becomes the next request; a lone call leaves at once and waits for no timer.

The life of a request: built from the calls of one lane -> an attempt is sent ->

- an answer: the calls get their results;
- a definite failure: it never happened; the calls wait in the lane again, and their
  next request has another composition and another sequence;
- an indefinite failure of a write (connection lost after sending, no answer in time):
  the identical request waits in `lane.resend` for its next attempt;
- the deadlines of all its calls pass: it is given up.

A sequence ends exactly where its request ends (`_finish`), never between attempts.

There is no I/O here, only a transport behind `kv.client.transport`, and no clock but
the event loop's, so that a simulator can run it in virtual time. Nothing awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from kv.client.calls import Call, OpenCall, fresh
from kv.client.directory import Directory
from kv.client.lane import Kind, Lane, Limits, Request
from kv.client.link import Link
from kv.client.retry import Action, Decision, deadline_error, decide, is_indefinite
from kv.client.session import SEQUENCE_SPAN_MAX, Session, SessionSlot
from kv.client.transport import Transport
from kv.client.types import Evidence, ReadLevel
from kv.errors import (
    DeadlineExceeded,
    Internal,
    KVError,
    NotLeader,
    Overloaded,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
    WrongPartition,
)
from kv.ids import GroupId
from kv.v1 import kv_pb2

TIMEOUT_MS_MAX: Final = 2**32 - 1
"""What the wire's uint32 holds."""
SERVER_SHARE: Final = 0.75
"""The part of an attempt's time that the node may use. The rest is for its answer to arrive before we count
the attempt as lost: a node that gives up itself can often say that nothing was applied, silence never can."""


_LEVELS: Final = frozenset(map(int, ReadLevel))


class Core:
    """Everything between a call and the transport. Belongs to one event loop."""

    def __init__(
        self,
        directory: Directory,
        transport: Transport,
        *,
        limits: Limits,
        open_timeout_s: float,
        jitter: Callable[[], float],
        refresh_map: Callable[[], object],
    ) -> None:
        """Make a core for the running event loop.

        Args:
            directory: shared with whoever installs maps.
            transport: the network.
            limits: how much to join, hold and wait.
            open_timeout_s: how long one try to open a session may take.
            jitter: returns uniform numbers in [0, 1).
            refresh_map: asked for a newer map after WRONG_PARTITION; must not block.
        """
        self._directory = directory
        self._transport = transport
        self._limits = limits
        self._open_timeout_s = open_timeout_s
        self._jitter = jitter
        self._refresh_map = refresh_map
        self._loop = asyncio.get_running_loop()
        self._lanes: tuple[dict[GroupId, Lane], ...] = tuple({} for _ in Kind)
        self._slots: dict[GroupId, SessionSlot] = {}
        self._links: dict[str, Link] = {}
        self._requests: dict[Request, None] = {}  # in order: the end of all must not depend on addresses
        self._due: list[Lane] = []
        self._closed = False

    # --- in -----------------------------------------------------------------------------------------

    def submit(self, kind: Kind, partition: GroupId, call: Call) -> None:
        """Take `call`; it is answered later, never from here. Raises `Overloaded` or `Unavailable`, definite."""
        if self._closed:
            raise Unavailable("the client is closed")
        lane = self._lanes[kind].get(partition)
        if lane is None:
            lane = self._lanes[kind][partition] = Lane(partition, kind)
        if lane.waiting_ops + call.count > self._limits.lane_waiting_ops_max and lane.waiting:
            raise Overloaded(
                f"{lane.waiting_ops} operations of this client wait for partition {partition} already",
                metadata={"lane_waiting_ops_max": self._limits.lane_waiting_ops_max},
            )
        lane.add(call)
        if not lane.scheduled:
            self._schedule(lane)

    def reroute(self) -> None:
        """Move what waits to where a newer map puts it."""
        for kind in (Kind.WRITE, Kind.READ, Kind.STALE):
            for lane in list(self._lanes[kind].values()):
                for call in lane.take_all():
                    self._route(kind, lane, call)

    def close(self) -> None:
        """Fail everything: what waits definitely, a write that was sent indefinitely."""
        self._closed = True
        for link in self._links.values():
            link.close()
        for request in list(self._requests):
            sent = request.lane.write and (request.on_wire or request.indefinite)
            error = UnknownOutcome("the client was closed") if sent else Unavailable("the client was closed")
            self._fail(request, error)
        for lanes in self._lanes:
            for lane in lanes.values():
                _fail_calls(lane.take_all(), Unavailable("the client was closed"))
                _cancel(lane)

    # --- lanes --------------------------------------------------------------------------------------

    def _schedule(self, lane: Lane) -> None:
        """Look at the lane at the end of this turn of the loop, when all that is ready has called."""
        if not lane.scheduled and not self._closed:
            lane.scheduled = True
            if not self._due:
                self._loop.call_soon(self._run_due)
            self._due.append(lane)

    def _run_due(self) -> None:
        due, self._due = self._due, []
        for lane in due:
            lane.scheduled = False
            if not self._closed:
                self._run(lane)

    def _run(self, lane: Lane) -> None:
        """Send what the lane may send now, and wake up for what it may not."""
        now = self._loop.time()
        if lane.not_before <= now:
            for request in tuple(lane.resend):
                lane.resend.remove(request)
                self._send(request, now) if request.waited_for else self._finish(request)
            while lane.waiting and self._may_send(lane):
                if not self._send_next(lane, now):
                    break
        if lane.waiting or lane.resend:
            self._arm(
                lane, min(lane.deadline_min, lane.not_before) if lane.not_before > now else lane.deadline_min
            )

    def _may_send(self, lane: Lane) -> bool:
        if lane.on_wire == 0:
            return True
        limits = self._limits
        return lane.on_wire < limits.lane_requests_max and lane.waiting_ops >= limits.pipeline_ops_min

    def _send_next(self, lane: Lane, now: float) -> bool:
        """Build one request and send it; return False if the lane has to wait for its session."""
        session = None
        if lane.write:
            session = self._session(lane)
            if session is None:
                return False
        ops_max = 1 if lane.kind is Kind.OPEN else self._limits.ops_per_request_max
        calls = lane.take(ops_max, self._limits.request_bytes_max)
        if calls:
            request = Request(lane, calls, session)
            self._requests[request] = None
            self._send(request, now)
        return True

    def _arm(self, lane: Lane, at: float) -> None:
        if lane.timer is not None:
            if lane.timer.when() <= at:
                return
            lane.timer.cancel()
        lane.timer = self._loop.call_at(at, self._on_lane_timer, lane) if at < float("inf") else None

    def _on_lane_timer(self, lane: Lane) -> None:
        _cancel(lane)
        for call in lane.take_expired(self._loop.time()):
            call.fail(deadline_error(write=lane.write, indefinite=False, cause=lane.cause))
        self._run(lane)

    def _route(self, kind: Kind, lane: Lane, call: Call) -> None:
        """Put a waiting call into the lane of its keys; its keys may have been parted by the new map."""
        partitions = {self._directory.partition_of(key) for key in call.keys} or {lane.partition}
        if len(partitions) > 1:
            call.fail(
                WrongPartition("the keys of the request were parted by a newer cluster map: send it again")
            )
            return
        try:
            self.submit(kind, partitions.pop(), call)
        except Overloaded as error:
            call.fail(error)

    # --- sessions -----------------------------------------------------------------------------------

    def _session(self, lane: Lane) -> Session | None:
        """Return the partition's session if it can take a request now; else see to it that one is opened."""
        slot = self._slots.get(lane.partition)
        if slot is None:
            slot = self._slots[lane.partition] = SessionSlot(
                requests_in_flight_max=self._limits.session_requests_max
            )
        if slot.current is not None and slot.current.span >= SEQUENCE_SPAN_MAX:
            slot.expired(slot.current.id)  # its requests in flight keep it; it is only not given out any more
        if slot.current is not None:
            return None if slot.current.full else slot.current
        if slot.start_opening():
            self._open_session(lane, slot)
        return None

    def _open_session(self, lane: Lane, slot: SessionSlot) -> None:
        def end(outcome: int | KVError) -> None:
            if isinstance(outcome, int):
                slot.opened(outcome)
            else:
                slot.open_failed()
                lane.cause = outcome
                # Those who wait have deadlines of their own. But what time does not cure is told at once.
                if not isinstance(outcome, DeadlineExceeded):
                    text = f"no session could be opened: {outcome.reason}: {outcome.message}"
                    _fail_calls(lane.take_all(), Unavailable(text, metadata={"cause": outcome.reason}))
            self._schedule(lane)

        call = OpenCall(self._loop.time() + self._open_timeout_s, end)
        self.submit(Kind.OPEN, lane.partition, call)

    # --- attempts -----------------------------------------------------------------------------------

    def _send(self, request: Request, now: float) -> None:
        """Start an attempt."""
        lane = request.lane
        address = self._directory.choose(
            lane.partition, now, any_replica=lane.kind is Kind.STALE, avoid=lane.avoid
        )
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = Link(address, self._transport, self._on_answer, self._on_broken)
        patience_s = self._limits.attempt_timeout_s * 2.0 ** min(request.attempts_made, 6)
        request.silent_after = now + patience_s
        request.attempts_made += 1
        timeout_ms = int(min(patience_s, request.deadline_max() - now) * SERVER_SHARE * 1000)
        attempt = link.send(request, max(1, min(timeout_ms, TIMEOUT_MS_MAX)))
        request.attempts.append((link, attempt))
        request.on_wire = True
        lane.on_wire += 1
        self._arm_request(request)

    def _arm_request(self, request: Request) -> None:
        if request.timer is not None:
            request.timer.cancel()
        at = min(request.deadline_min(), request.silent_after) if request.on_wire else request.deadline_min()
        request.timer = self._loop.call_at(at, self._on_request_timer, request) if at < float("inf") else None

    def _on_request_timer(self, request: Request) -> None:
        """Somebody's deadline has passed, or the present attempt has been silent for too long."""
        request.timer = None
        now = self._loop.time()
        if request.deadline_min() <= now and self._expire(request, now):
            return
        if request.on_wire and request.silent_after <= now:
            seconds = self._limits.attempt_timeout_s
            error = UnknownOutcome(
                f"no answer from {request.attempts[-1][0].address} within {seconds} s or more"
            )
            self._attempt_failed(request, error)
        else:
            self._arm_request(request)

    def _expire(self, request: Request, now: float) -> bool:
        """Fail the calls whose time is up; return True if that ended the request."""
        lane = request.lane
        if request.on_wire and not request.indefinite:
            link, attempt = request.attempts[-1]
            if link.withdraw(attempt):
                # It never left: those with time left may go elsewhere, and for the others it did not happen.
                error = Unavailable(f"there was no connection to {link.address} in time")
                self._attempt_failed(request, error)
                self._on_lane_timer(lane)
                return True
        for call in request.calls:
            if not call.done and call.deadline <= now:
                call.fail(deadline_error(write=lane.write, indefinite=True, cause=lane.cause))
        if request.waited_for:
            return False
        if request.on_wire:
            lane.avoid = request.attempts[-1][0].address
        self._finish(request)
        return True

    def _on_answer(
        self, link: Link, attempt: int, request: Request, outcome: kv_pb2.BatchResponse | KVError
    ) -> None:
        """An attempt ended."""
        if isinstance(outcome, kv_pb2.BatchResponse):
            self._directory.answered(link.address)
            self._succeeded(request, outcome)
            return
        present = request.on_wire and request.attempts[-1] == (link, attempt)
        request.attempts.remove((link, attempt))
        request.indefinite |= is_indefinite(outcome, write=request.lane.write)
        if present:
            self._attempt_failed(request, outcome, address=link.address)

    def _on_broken(self, link: Link) -> None:
        """A stream ended with attempts on it: leave the address alone for a moment."""
        self._directory.failed(link.address, self._loop.time())

    def _succeeded(self, request: Request, response: kv_pb2.BatchResponse) -> None:
        lane = request.lane
        self._finish(request)
        lane.failures, lane.avoid, lane.cause = 0, None, None
        if len(response.results) != request.count:
            text = f"{request.count} operations were answered by {len(response.results)} results"
            _fail_calls(request.calls, Internal(text))
            return
        evidence = self._evidence(lane, response)
        results = iter(response.results)
        for call in request.calls:
            call.resolve(results, evidence)

    def _evidence(self, lane: Lane, response: kv_pb2.BatchResponse) -> Evidence:
        """Return who served; a node that served what only a leader can is the leader."""
        if not response.evidence:
            return Evidence(lane.partition, 0, 0, 0, "", None)
        proof = response.evidence[0]
        if lane.kind is not Kind.STALE and self._directory.leader_of(lane.partition) != proof.node:
            self._directory.leader_is(lane.partition, proof.node)
        # A level that only a newer node knows is none that was asked for here.
        level = None if lane.kind is Kind.WRITE or proof.level not in _LEVELS else ReadLevel(proof.level)
        return Evidence(proof.partition, proof.map_epoch, proof.term, proof.index, proof.node, level)

    def _attempt_failed(self, request: Request, error: KVError, address: str | None = None) -> None:
        """The present attempt failed: let `retry.decide` say what becomes of the request."""
        lane = request.lane
        now = self._loop.time()
        self._off_wire(request)
        request.indefinite |= is_indefinite(error, write=lane.write)
        if now >= lane.not_before or lane.failures == 0:
            lane.failures += 1  # several requests that fail with one connection are one failure
        lane.cause = error
        lane.avoid = address or (request.attempts[-1][0].address if request.attempts else None)
        if isinstance(error, SessionExpired) and request.session is not None:
            self._slots[lane.partition].expired(request.session.id)
        decision = decide(
            error,
            write=lane.write,
            indefinite=request.indefinite,
            failures=lane.failures,
            jitter=self._jitter(),
        )
        if isinstance(error, NotLeader):
            self._directory.leader_is(lane.partition, decision.leader)
            if self._directory.leader_of(lane.partition) is not None:
                lane.avoid = None
        self._act(request, decision, now)

    def _act(self, request: Request, decision: Decision, now: float) -> None:
        lane = request.lane
        lane.not_before = max(lane.not_before, now + decision.delay_s)
        match decision.action:
            case Action.RESEND:
                lane.resend.append(request)
                self._arm_request(request)
            case Action.REQUEUE | Action.RENEW:
                self._requeue(request)
            case Action.FAIL:
                assert decision.error is not None, "a failure has a reason"
                self._fail(request, decision.error)
        if decision.refresh_map:
            self._refresh_map()
        self._schedule(lane)

    def _requeue(self, request: Request) -> None:
        """Nothing of it happened: its calls wait again, first in line, and its sequence is done with."""
        assert not (request.lane.write and request.indefinite), (
            "what may have been applied keeps its sequence"
        )
        self._finish(request)
        request.lane.put_back(request.calls)

    def _fail(self, request: Request, error: KVError) -> None:
        self._finish(request)
        _fail_calls(request.calls, error)

    # --- ends ---------------------------------------------------------------------------------------

    def _off_wire(self, request: Request) -> None:
        if request.on_wire:
            request.on_wire = False
            request.lane.on_wire -= 1

    def _finish(self, request: Request) -> None:
        """End the request: nothing of it is sent or heard any more, and its sequence is acknowledged."""
        self._requests.pop(request, None)
        self._off_wire(request)
        for link, attempt in request.attempts:
            link.forget(attempt)
        request.attempts.clear()
        if request.timer is not None:
            request.timer.cancel()
            request.timer = None
        lane = request.lane
        if request in lane.resend:
            lane.resend.remove(request)
        if request.session is not None:
            request.session.end(request.sequence)
        if lane.waiting:
            self._schedule(lane)


def _fail_calls(calls: Iterable[Call], error: KVError) -> None:
    for call in calls:
        if not call.done:
            call.fail(fresh(error))


def _cancel(lane: Lane) -> None:
    if lane.timer is not None:
        lane.timer.cancel()
        lane.timer = None
