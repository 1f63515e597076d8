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
import math
from collections.abc import Callable

from kv.client.admission import Admission
from kv.client.answers import not_before, proofs_of
from kv.client.calls import Call, OpenCall
from kv.client.directory import Directory
from kv.client.lane import Lane
from kv.client.lanes import Lanes
from kv.client.limits import Limits
from kv.client.link import Link
from kv.client.replicas import ReplicaChooser
from kv.client.request import SERVER_SHARE, TIMEOUT_MS_MAX, Request, request_of
from kv.client.resolve import fail_all, resolve
from kv.client.retry import Action, Decision, deadline_error, decide, is_indefinite
from kv.client.route import Kind, Route
from kv.client.session_token import Seen
from kv.client.sessions import Sessions
from kv.client.transport import Transport
from kv.client.types import Evidence
from kv.errors import (
    DeadlineExceeded,
    KVError,
    NotLeader,
    NotOnAllReplicas,
    Overloaded,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
    WrongPartition,
)
from kv.ids import GroupId
from kv.v1 import kv_pb2


class Core:
    """Everything between a call and the transport. Belongs to one event loop."""

    def __init__(
        self,
        directory: Directory,
        transport: Transport,
        lanes: Lanes,
        *,
        seen: Seen,
        limits: Limits,
        open_timeout_s: float,
        jitter: Callable[[], float],
        refresh_map: Callable[[], object],
    ) -> None:
        """Make a core for the running event loop.

        Args:
            directory: shared with whoever installs maps.
            transport: the network.
            lanes: what waits, by route and partition.
            seen: is told how far answers prove, and asked by SESSION reads.
            limits: how much to join, hold and wait.
            open_timeout_s: how long one try to open a session may take.
            jitter: returns uniform numbers in [0, 1).
            refresh_map: asked for a newer map after WRONG_PARTITION; must not block.
        """
        self._directory = directory
        self._transport = transport
        self._lanes = lanes
        self._seen = seen
        self._chooser = ReplicaChooser(directory, self._in_flight)
        self._limits = limits
        self._admission = Admission(limits)
        self._open_timeout_s = open_timeout_s
        self._jitter = jitter
        self._refresh_map = refresh_map
        self._loop = asyncio.get_running_loop()
        self._sessions = Sessions(limits.session_requests_max, self._open_session)
        self._links: dict[str, Link] = {}
        self._requests: dict[Request, None] = {}  # in order: the end of all must not depend on addresses
        self._due: list[Lane] = []
        self._sent_on: dict[Link, None] = {}
        """Links on which something was sent that has not left."""
        self._next_after_answers: dict[Lane, None] = {}
        """Lanes that go on when the answers that came with theirs have been dealt with, in order."""
        self._request_ops_min = limits.pipeline_ops_min
        self._turn = 0
        """Counts the turns in which lanes are looked at; see `kv.client.gate`."""
        self._closed = False

    # --- in -----------------------------------------------------------------------------------------

    def submit(self, route: Route, partition: GroupId, call: Call) -> None:
        """Take `call`; it is answered later, never from here. Raises `Overloaded` or `Unavailable`, definite."""
        if self._closed:
            raise Unavailable("the client is closed")
        lane = route.lanes.get(partition)
        if lane is None:
            lane = self._lanes.lane(route, partition)
        admission = self._admission
        crowded = lane.waiting_ops + lane.on_wire_ops + call.count > lane.crowd_ops
        if (crowded or lane.waiting_bytes + call.size > admission.crowd_bytes) and lane.waiting:
            admission.check(lane, call, self._loop.time())
        lane.add(call)
        if not lane.scheduled:
            self._schedule(lane)
        elif (
            lane.waiting_ops >= self._request_ops_min
            and lane.waiting_ops >= lane.on_wire_ops
            and lane.on_wire
        ):
            self._run_at_once(lane)

    def reroute(self) -> None:
        """Move what waits to where a newer map puts it."""
        for lane in self._lanes:
            if lane.route.kind is not Kind.ALONE:
                for call in lane.take_all():
                    self._move(lane, call)

    def close(self) -> None:
        """Fail everything: what waits definitely, a write that was sent indefinitely."""
        self._closed = True
        for link in self._links.values():
            link.close()
        for request in list(self._requests):
            sent = request.lane.write and (request.on_wire or request.indefinite)
            error = UnknownOutcome("the client was closed") if sent else Unavailable("the client was closed")
            self._fail(request, error)
        for lane in self._lanes:
            fail_all(lane.take_all(), Unavailable("the client was closed"))
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
        self._turn += 1
        for lane in due:
            lane.scheduled = False
            if not self._closed:
                self._run(lane)
        self._flush()

    def _run_at_once(self, lane: Lane) -> None:
        """As much waits as is under way: this half leaves now, not after all that is ready has called as well."""
        if self._may_send(lane):
            self._turn += 1
            self._run(lane)
            self._flush()

    def _flush(self) -> None:
        """Let what was sent leave: not when the loop comes to it, which may have the answers to a whole request to deal with."""
        for link in self._sent_on:
            link.flush()
        self._sent_on.clear()

    def _run(self, lane: Lane) -> None:
        """Send what the lane may send now, and wake up for what it may not."""
        now = self._loop.time()
        if lane.not_before <= now:
            for request in tuple(lane.resend):
                lane.resend.remove(request)
                self._send(request, now) if request.waited_for else self._finish(request)
            if lane.waiting and self._may_send(lane):
                link = self._link(lane, now)
                sent = not self._held_by(link, lane, now) and self._send_next(lane, link, now)
                if sent and lane.waiting and self._may_send(lane):
                    # In the loop's next pass, when this request has left: see `ops_joined_max`.
                    self._schedule(lane)
        if lane.waiting or lane.resend:
            self._arm(
                lane, min(lane.deadline_min, lane.not_before) if lane.not_before > now else lane.deadline_min
            )

    def _may_send(self, lane: Lane) -> bool:
        if lane.on_wire == 0:
            return True
        limits = self._limits
        if lane.on_wire >= limits.lane_requests_max or not lane.fills_request(limits):
            return False
        return lane.on_wire < limits.lane_requests_min or lane.on_wire_s() <= limits.lane_on_wire_s

    def _held_by(self, link: Link, lane: Lane, now: float) -> bool:
        """Return whether the lane has to wait for the answers to what is under way to the same node."""
        if lane.route.kind is Kind.ALONE or lane.fills_request(self._limits):
            lane.held_until = math.inf
            return False
        # Waves that leave meanwhile do not put it off: requests that are full do not wait for answers.
        opens_at = min(link.gate.opens_at(self._turn, now), lane.held_until)
        if opens_at <= now:
            lane.held_until = math.inf
            return False
        lane.held_until = opens_at
        link.held[lane] = None
        if link.timer is None:
            link.timer = self._loop.call_at(opens_at, self._on_open, link)
        return True

    def _on_open(self, link: Link) -> None:
        """Enough was answered by the node, or it has taken too long: let those that were held look again."""
        if link.timer is not None:
            link.timer.cancel()
            link.timer = None
        held, link.held = link.held, {}
        for lane in held:
            self._schedule(lane)

    def _send_next(self, lane: Lane, link: Link, now: float) -> bool:
        """Build one request and send it; return False if the lane has to wait for its session."""
        session = None
        if lane.write:
            session = self._sessions.of(lane)
            if session is None:
                return False
        limits = self._limits
        ops_max = 1
        if lane.route.kind is not Kind.ALONE:
            ops_max = min(limits.ops_per_request_max, limits.ops_joined_max)
            if limits.lane_requests_max > 1:
                half = (lane.waiting_ops + lane.on_wire_ops + 1) // 2
                ops_max = min(ops_max, max(half, limits.pipeline_ops_min))
        calls = lane.take(ops_max, limits.request_bytes_max)
        if calls:
            request = request_of(
                lane, calls, session, seen=self._seen, attempt_timeout_s=limits.attempt_timeout_s, now=now
            )
            self._requests[request] = None
            self._send(request, now, link)
        return True

    def _arm(self, lane: Lane, at: float) -> None:
        if lane.timer is not None:
            if lane.timer_at <= at:
                return
            lane.timer.cancel()
        lane.timer_at = at
        lane.timer = self._loop.call_at(at, self._on_lane_timer, lane) if at < float("inf") else None

    def _on_lane_timer(self, lane: Lane) -> None:
        _cancel(lane)
        for call in lane.take_expired(self._loop.time()):
            call.fail(deadline_error(write=lane.write, indefinite=False, cause=lane.cause))
        self._run(lane)
        self._flush()

    def _move(self, lane: Lane, call: Call) -> None:
        """Put a waiting call into the lane of its keys; its keys may have been parted by the new map."""
        partitions = {self._directory.partition_of(key) for key in call.keys} or {lane.partition}
        if len(partitions) > 1:
            call.fail(
                WrongPartition("the keys of the request were parted by a newer cluster map: send it again")
            )
            return
        try:
            self.submit(lane.route, partitions.pop(), call)
        except Overloaded as error:
            call.fail(error)

    def _open_session(self, lane: Lane, end: Callable[[int | KVError], None]) -> None:
        """Ask the lane's partition for a session; `end` is told its id or the failure."""

        def ended(outcome: int | KVError) -> None:
            end(outcome)
            if not isinstance(outcome, int):
                lane.cause = outcome
                # Those who wait have deadlines of their own. But what time does not cure is told at once.
                if not isinstance(outcome, DeadlineExceeded):
                    text = f"no session could be opened: {outcome.reason}: {outcome.message}"
                    fail_all(lane.take_all(), Unavailable(text, metadata={"cause": outcome.reason}))
            self._schedule(lane)

        call = OpenCall(self._loop.time() + self._open_timeout_s, ended)
        self.submit(self._lanes.alone, lane.partition, call)

    # --- attempts -----------------------------------------------------------------------------------

    def _link(self, lane: Lane, now: float) -> Link:
        """Return the way to whom the lane's next attempt goes."""
        address = self._address(lane, now)
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = Link(
                address,
                self._transport,
                self._on_answer,
                self._on_dealt,
                self._on_broken,
                self._on_open,
                self._loop.time,
            )
        return link

    def _send(self, request: Request, now: float, link: Link | None = None) -> None:
        """Start an attempt, over `link` if it was chosen already."""
        lane = request.lane
        link = link or self._link(lane, now)
        patience_s = self._limits.attempt_timeout_s * 2.0 ** min(request.attempts_made, 6)
        request.sent_at = now
        request.silent_after = now + patience_s
        request.attempts_made += 1
        timeout_ms = int(min(patience_s, request.deadlines_max - now) * SERVER_SHARE * 1000)
        attempt = link.send(request, max(1, min(timeout_ms, TIMEOUT_MS_MAX)), self._turn, now)
        request.attempts.append((link, attempt))
        self._sent_on[link] = None
        request.on_wire = True
        lane.on_wire += 1
        lane.on_wire_ops += request.count
        # Somebody may have stopped waiting meanwhile: then the timer finds nothing to do and is set anew.
        self._set_timer(request, min(request.deadlines_min, request.silent_after))

    def _address(self, lane: Lane, now: float) -> str:
        """Return whom to ask."""
        route, partition, avoid = lane.route, lane.partition, lane.avoid
        if route.preference is None:
            return self._directory.choose(partition, now, any_replica=route.any_replica, avoid=avoid)
        first = self._chooser.rank(route, partition)
        return self._directory.choose(partition, now, any_replica=False, avoid=avoid, first=first)

    def _in_flight(self, address: str) -> int:
        link = self._links.get(address)
        return 0 if link is None else link.in_flight

    def _arm_request(self, request: Request) -> None:
        at = min(request.deadline_min(), request.silent_after) if request.on_wire else request.deadline_min()
        self._set_timer(request, at)

    def _set_timer(self, request: Request, at: float) -> None:
        if request.timer is not None:
            request.timer.cancel()
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
        request.fail(deadline_error(write=lane.write, indefinite=True, cause=lane.cause), until=now)
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
        if request.after_index and isinstance(outcome, kv_pb2.BatchResponse):
            outcome = not_before(outcome, request.after_index)
        if isinstance(outcome, kv_pb2.BatchResponse):
            self._directory.answered(link.address)
            if request.lane.route.preference is not None and request.attempts[-1] == (link, attempt):
                self._chooser.answered(request.lane.route, link.address, self._loop.time() - request.sent_at)
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
        lane.served(request.count, self._loop.time())
        self._end(request)
        if lane.fills_request(self._limits):
            self._schedule(lane)
        else:
            # Not before the answers are dealt with: whom they wake calls again at once, and would wait for what left before
            # them, as those would for them. A few callers part into two such groups, and stay parted.
            self._next_after_answers[lane] = None
        lane.failures, lane.avoid, lane.cause = 0, None, None
        proofs = proofs_of(response, lane.partition, write=lane.write)
        self._learn(lane, proofs[0])
        unanswered = resolve(request, response.results, proofs)
        if unanswered:
            lane.put_back(unanswered)
            self._schedule(lane)

    def _learn(self, lane: Lane, evidence: Evidence) -> None:
        """Take what an answer tells beside its results: how far it proves, and who leads."""
        self._seen.note(evidence.partition, evidence.index)
        if lane.route.to_leader and self._directory.leader_of(lane.partition) != evidence.node:
            self._directory.leader_is(lane.partition, evidence.node)

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
        if lane.avoid is not None:
            self._chooser.failed(lane.route, lane.avoid)
        if isinstance(error, NotOnAllReplicas) and request.session is not None and request.not_on_all is None:
            self._ask_for_results(request, error)
            return
        if isinstance(error, SessionExpired) and request.session is not None:
            self._sessions.expired(lane.partition, request.session)
        decision = decide(
            error,
            write=lane.write,
            indefinite=request.indefinite,
            failures=lane.failures,
            jitter=self._jitter(),
        )
        if isinstance(error, NotLeader):
            self._directory.leader_is(lane.partition, decision.leader)
            if lane.route.to_leader and self._directory.leader_of(lane.partition) is not None:
                lane.avoid = None
        self._act(request, decision, now)

    def _ask_for_results(self, request: Request, error: NotOnAllReplicas) -> None:
        """A write at level ALL stands, short of that level: learn what became of each of its operations."""
        request.ask_for_results(error)
        request.lane.resend.append(request)
        self._arm_request(request)
        self._schedule(request.lane)

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
        request.fail(error)  # before its end, which depends on whether somebody may ask for its outcome
        self._finish(request)

    # --- ends ---------------------------------------------------------------------------------------

    def _off_wire(self, request: Request) -> None:
        if request.on_wire:
            request.on_wire = False
            lane = request.lane
            lane.on_wire -= 1
            lane.on_wire_ops -= request.count
            if not (lane.on_wire or lane.waiting):
                lane.crowded_at = math.inf

    def _on_dealt(self) -> None:
        """All answers of a message were dealt with: those whom they woke call before the lanes are looked at."""
        lanes, self._next_after_answers = self._next_after_answers, {}
        for lane in lanes:
            if lane.waiting:
                self._schedule(lane)

    def _finish(self, request: Request) -> None:
        """End the request, and let the lane go on."""
        self._end(request)
        if request.lane.waiting:
            self._schedule(request.lane)

    def _end(self, request: Request) -> None:
        """Nothing of the request is sent or heard any more, and its sequence is acknowledged or set aside."""
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
        if request.session is not None and request.token_given:
            self._sessions.set_aside(lane.partition, request.session, request.sequence)
        elif request.session is not None:
            request.session.end(request.sequence)


def _cancel(lane: Lane) -> None:
    if lane.timer is not None:
        lane.timer.cancel()
        lane.timer = None
