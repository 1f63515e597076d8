"""QUORUM and ALL reads: ask several replicas, answer with the newest of what they have.

Here live `Poll`, which decides whom to ask and when it is enough (pure), and `FanOut`, one such read. Each
replica answers from what it has applied; the response of the highest log index is the answer, with the
evidence of all. This is the read of a leaderless store (R of N, Gifford 1979) over a replicated log. It is not
linearizable: an entry is acknowledged when a majority has it on disk, and any replica may not yet have applied it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError

from kv.errors import KVError, TooFewReplicas
from kv.ids import GroupId, NodeId
from kv.router.api import Reply
from kv.router.retry import ELSEWHERE
from kv.v1 import kv_pb2

ASKED_MAX: Final = 2
"""A replica that did not answer is asked so often in all, the last time until the deadline."""

REPLACED: Final = ELSEWHERE | {"OVERLOADED", "DEADLINE_EXCEEDED"}
"""Reasons for which another replica is asked. Any other would be the answer of all: it ends the read."""

Ask = Callable[[NodeId, bool, Reply], None]
"""Asks a node's replica; the flag says that another could take its place, so that it need not be waited for long."""


class Poll:
    """Who was asked, who answered, who is next."""

    def __init__(self, order: Sequence[NodeId], wanted: int) -> None:
        """Take the replicas in the order in which to ask them, and how many answers are wanted."""
        assert 1 <= wanted <= len(set(order)), "the door lets no other number in"
        self.wanted = wanted
        self._left = deque(order)
        self._asked: dict[NodeId, int] = {}
        self._pending: dict[NodeId, None] = {}
        self._answers: dict[NodeId, tuple[int, bytes]] = {}

    @property
    def answered(self) -> int:
        """How many replicas have answered."""
        return len(self._answers)

    @property
    def enough(self) -> bool:
        """Whether as many answered as are wanted."""
        return self.answered >= self.wanted

    @property
    def hopeless(self) -> bool:
        """Whether so many failed that it never can be enough."""
        return self.answered + len(self._pending) + len(self._left) < self.wanted

    @property
    def has_spare(self) -> bool:
        """Whether one of those that are asked now could be done without."""
        return self.answered + len(self._pending) + len(self._left) > self.wanted

    def next(self) -> NodeId | None:
        """Return the next to ask, and count it as asked; None while as many are asked as are missing."""
        if not self._left or self.answered + len(self._pending) >= self.wanted:
            return None
        node = self._left.popleft()
        self._pending[node] = None
        self._asked[node] = self._asked.get(node, 0) + 1
        return node

    def answer(self, node: NodeId, index: int, raw: bytes) -> None:
        """Take the response of a replica that answered at this log index."""
        del self._pending[node]
        self._answers[node] = (index, raw)

    def fail(self, node: NodeId) -> None:
        """Note that a replica did not answer: it is asked again after the others, `ASKED_MAX` times in all."""
        del self._pending[node]
        if self._asked[node] < ASKED_MAX:
            self._left.append(node)

    def newest_first(self) -> list[tuple[NodeId, bytes]]:
        """Return the responses, the one of the highest index first, the others as they came."""
        assert self._answers, "somebody answered"
        chosen = max(self._answers, key=lambda node: self._answers[node][0])
        order = [chosen, *(node for node in self._answers if node != chosen)]
        return [(node, self._answers[node][1]) for node in order]


class FanOut:
    """One QUORUM or ALL read of one partition. Calls `reply` once; `note(step, detail)` takes steps for a trace."""

    def __init__(
        self, partition: GroupId, poll: Poll, *, ask: Ask, note: Callable[[str, str], None], reply: Reply
    ) -> None:
        self._partition = partition
        self._poll = poll
        self._ask = ask
        self._note = note
        self._reply = reply
        self._done = False
        self._asking = False

    def start(self) -> None:
        """Ask as many as are missing, or end. An answer may come before `ask` returns: then this goes on."""
        if self._asking:
            return
        self._asking = True
        while not self._done and (node := self._poll.next()) is not None:
            self._note("sent", node)
            self._ask(node, self._poll.has_spare, partial(self._take, node))
        self._asking = False
        if not self._done and self._poll.enough:
            self._finish(self._composed())
        elif not self._done and self._poll.hopeless:
            self._finish(self._too_few(None))

    def _take(self, node: NodeId, outcome: bytes | KVError) -> None:
        if self._done:
            return
        if isinstance(outcome, KVError):
            self._failed(node, outcome)
        else:
            self._answered(node, outcome)
        if not self._done:
            self.start()

    def _answered(self, node: NodeId, raw: bytes) -> None:
        try:
            evidence = kv_pb2.BatchResponse.FromString(raw).evidence
        except DecodeError as error:
            self._note("refused", f"{node}: {error}")
            self._poll.fail(node)
            return
        index = evidence[0].index if evidence else 0
        self._note("answered", f"{node} at index {index}")
        self._poll.answer(node, index, raw)

    def _failed(self, node: NodeId, error: KVError) -> None:
        self._note("refused", f"{node}: {error.reason}")
        if error.reason not in REPLACED:
            self._finish(error)
            return
        self._poll.fail(node)
        if self._poll.hopeless:
            self._finish(self._too_few(error))

    def _finish(self, outcome: bytes | KVError) -> None:
        self._done = True
        self._reply(outcome)

    def _composed(self) -> bytes:
        (chosen, raw), *others = self._poll.newest_first()
        self._note("chosen", chosen)
        more = kv_pb2.BatchResponse()
        for _, other in others:
            told = kv_pb2.BatchResponse.FromString(other)
            more.evidence.extend(told.evidence)
            more.trace.extend(told.trace)
        return raw + more.SerializeToString()  # protobuf joins messages by joining their bytes

    def _too_few(self, last: KVError | None) -> KVError:
        answered, wanted = self._poll.answered, self._poll.wanted
        why = "" if last is None else f": {last.message}"
        metadata: dict[str, object] = {"answered": answered, "wanted": wanted, "partition": self._partition}
        if last is not None:
            metadata["last_reason"] = last.reason
        return TooFewReplicas(
            f"{answered} of {wanted} replicas of partition {self._partition} answered{why}", metadata=metadata
        )
