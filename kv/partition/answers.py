"""How a request of one replica ends: its response with the evidence, its trace, or its error.

Here live the last steps of a request's way, among them that a write at level ALL is answered only when every
replica has it on its disk. What became of a request is decided elsewhere. Each request is answered once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from kv.errors import OUTCOME_KEY, KVError, UnknownOutcome
from kv.outcome import OutcomeToken
from kv.partition.acknowledgement import Acknowledgements, Held, not_proved
from kv.partition.evidence import Form, Witness, results_of, revision_of, state_of, wrote
from kv.partition.machine import Outcome, Repeated
from kv.partition.options import PLAIN
from kv.partition.queue import Request, RequestQueue
from kv.partition.trace import Traces
from kv.raft.api import GroupHandle
from kv.v1 import kv_pb2

_log = structlog.get_logger(__name__)


class Home(Protocol):
    """What answers need of their replica."""

    @property
    def partition_id(self) -> int:
        """The partition."""

    @property
    def raft(self) -> GroupHandle:
        """The group."""


class Answers:
    """The ends of all requests of one replica."""

    def __init__(
        self, home: Home, queue: RequestQueue, witness: Witness, node: str, all_write_timeout_s: float
    ) -> None:
        self._home = home
        self._queue = queue
        self._witness = witness
        self.held = Acknowledgements(all_write_timeout_s)
        """The answers to writes at level ALL that wait for the last replica."""
        self._traces = Traces(node, lambda: home.raft.now)

    def answer(self, request: Request, outcome: Outcome) -> None:
        """Answer an admitted request."""
        self._queue.answered(request)
        self.reply(request, outcome)

    def reply(self, request: Request, outcome: Outcome) -> None:
        """Answer a request that was not admitted."""
        if request.batch.options.trace:
            outcome = self._with_trace(request, outcome)
        try:
            request.reply(outcome)
        except Exception:  # noqa: BLE001 - whatever the caller's code does
            # the request is decided and the state is whole: one broken caller must not stop the others
            _log.exception("reply_failed", partition=self._home.partition_id)

    # --- writes ----------------------------------------------------------------------------------------

    def applied(
        self, requests: Sequence[Request], outcomes: Sequence[Outcome], index: int, term: int
    ) -> None:
        """Answer the requests of a command that was applied."""
        form = self._witness.form(term, index, kv_pb2.READ_LEVEL_UNSPECIFIED)
        evidence = form.part(index)
        for request, outcome in zip(requests, outcomes, strict=True):
            if type(outcome) is bytes and request.batch.options is PLAIN:
                self.answer(request, outcome + evidence)
            else:
                self._rare(request, outcome, form, index)

    def _rare(self, request: Request, outcome: Outcome, form: Form, index: int) -> None:
        """Answer a write that is not plain: refused, a repetition, at level ALL, traced, or without a revision.

        At level ALL what changed nothing is nowhere: it has not to wait for anyone, and is never said to stand.
        """
        options = request.batch.options
        if options.trace:
            self._traces.step((request,), "applied", f"index {index}")
        if not isinstance(outcome, bytes):
            self.answer(request, outcome)
            return
        written = revision_of(outcome)
        revision = written if isinstance(outcome, Repeated) or not options.tells_revision else index
        response = outcome + form.part(revision)
        if options.all_replicas and written and any(map(wrote, results_of(outcome))):
            self.held.hold(request, index, written, response, self._home.raft.now)
            self.release()
        else:
            self.answer(request, response)

    def release(self) -> None:
        """Answer the writes at level ALL that are on all disks, or can no longer be proved to be."""
        if self.held.waiting:
            raft = self._home.raft
            for held in self.held.take_proved(raft.all_durable_index):
                self.answer(held.request, held.response)
            if not raft.is_leader:
                self._give_up(self.held.take_all(), "this replica does not lead any more")

    def overdue(self, now: float) -> bool:
        """Whether `tick` would end the wait of a write at level ALL."""
        return self.held.overdue(now)

    def tick(self, now: float) -> None:
        """End what waited long enough. `now`: seconds, monotonic."""
        if self.held.waiting:
            self.release()
            self._give_up(self.held.take_overdue(now), "the time for it is over")

    def give_up(self) -> None:
        """Answer all writes at level ALL: this replica will not find out whether they are everywhere."""
        self._give_up(self.held.take_all(), "this replica cannot find out any more")

    def lost(self, requests: Sequence[Request], index: int) -> None:
        """Answer requests of a command whose fate is not known."""
        for request in requests:
            batch = request.batch
            token = OutcomeToken(self._home.partition_id, batch.session, batch.sequence)
            metadata = {OUTCOME_KEY: token} if batch.session else {}
            self.answer(
                request, UnknownOutcome(f"the fate of the entry {index} is not known", metadata=metadata)
            )

    def refused(self, requests: Sequence[Request], why: KVError) -> None:
        """Answer requests that did not happen and will not, for the same reason."""
        for request in requests:
            self.answer(request, why)

    def _give_up(self, taken: Sequence[Held], why: str) -> None:
        for held in taken:
            self.answer(held.request, not_proved(held, why, self._home.raft.behind(held.index)))

    # --- traces ----------------------------------------------------------------------------------------

    def begin(self, request: Request) -> None:
        """Take note of a request that came in, if it wants a trace."""
        if request.batch.options.trace:
            self._traces.begin(request, "leader" if self._home.raft.is_leader else "replica")
            self._home.raft.trace(self._traces)

    def appended(self, requests: Sequence[Request], index: int) -> None:
        """Take note that the requests became an entry of the log."""
        if self._traces:
            self._traces.appended(requests, index)

    def _with_trace(self, request: Request, outcome: Outcome) -> Outcome:
        steps = self._traces.end(request, state_of(outcome) if isinstance(outcome, bytes) else "")
        if not self._traces:
            self._home.raft.trace(None)
        return outcome + steps if isinstance(outcome, bytes) else outcome
