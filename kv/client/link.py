"""Links: one per address, with its stream and the attempts that are registered on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final, TypeAlias

from kv.client.gate import Gate, Wave
from kv.client.lane import Lane
from kv.client.request import Request
from kv.client.transport import Stream, Transport
from kv.errors import KVError, Unavailable, UnknownOutcome, from_proto
from kv.ids import GroupId
from kv.internal.v1 import pipeline_pb2
from kv.v1 import kv_pb2
from kv.wire import tag_of, varint

OnAnswer: TypeAlias = "Callable[[Link, int, Request, kv_pb2.BatchResponse | KVError], None]"

_BATCHES: Final = tag_of(pipeline_pb2.RawPipelineRequest.BATCHES_FIELD_NUMBER)
_BATCH: Final = tag_of(pipeline_pb2.RawPipelinedBatch.BATCH_FIELD_NUMBER)


def message_of(attempt: int, batch: bytes, partition: GroupId, timeout_ms: int) -> bytes:
    """Return the serialized `RawPipelineRequest` of one batch, which may be large: it is copied once."""
    head = pipeline_pb2.RawPipelinedBatch(
        id=attempt, partition=partition, timeout_ms=timeout_ms
    ).SerializeToString()
    length = varint(len(batch))
    return b"".join(
        (
            _BATCHES,
            varint(len(head) + len(_BATCH) + len(length) + len(batch)),
            head,
            _BATCH,
            length,
            batch,
        )
    )


class Link:
    """The way to one node. The stream is opened at the first request and again after it broke."""

    __slots__ = (
        "_next_id",
        "_now",
        "_on_answer",
        "_on_broken",
        "_on_dealt",
        "_on_open",
        "_requests",
        "_stream",
        "_transport",
        "address",
        "gate",
        "held",
        "timer",
    )

    def __init__(
        self,
        address: str,
        transport: Transport,
        on_answer: OnAnswer,
        on_dealt: Callable[[], None],
        on_broken: Callable[[Link], None],
        on_open: Callable[[Link], None],
        now: Callable[[], float],
    ) -> None:
        """Make a link without a stream.

        Args:
            address: where the node listens.
            transport: opens streams.
            on_answer: called once for each attempt that was not forgotten.
            on_dealt: called behind the answers that came in one message.
            on_broken: called when a stream lost some.
            on_open: called when the gate opens while lanes are held.
            now: loop time in seconds.
        """
        self.address = address
        self.gate = Gate()
        self.held: dict[Lane, None] = {}
        """Lanes that have something to send when the gate opens, in order."""
        self.timer: asyncio.TimerHandle | None = None
        """Opens the gate for those that are held, if no answer does."""
        self._transport = transport
        self._on_answer = on_answer
        self._on_dealt = on_dealt
        self._on_broken = on_broken
        self._on_open = on_open
        self._now = now
        self._stream: Stream | None = None
        self._requests: dict[int, tuple[Request, Wave]] = {}
        self._next_id = 1

    def send(self, request: Request, timeout_ms: int, turn: int, now: float) -> int:
        """Send an attempt in this turn of the loop and return its id, unique over all streams of this link."""
        if self._stream is None:
            self._stream = self._open()
        attempt = self._next_id
        self._next_id += 1
        self._requests[attempt] = (request, self.gate.sent(turn, now))
        self._stream.send(attempt, message_of(attempt, request.batch, request.lane.partition, timeout_ms))
        return attempt

    def flush(self) -> None:
        """Let what was sent leave now, as far as the network takes it."""
        if self._stream is not None:
            self._stream.flush()

    @property
    def in_flight(self) -> int:
        """Attempts that may still be answered."""
        return len(self._requests)

    def forget(self, attempt: int) -> None:
        """Drop the attempt: an answer to it is ignored from now on."""
        self._take(attempt)
        self._tell_open()

    def withdraw(self, attempt: int) -> bool:
        """Take the attempt back; return False if it may have left already."""
        return self._stream is not None and self._stream.withdraw(attempt)

    def close(self) -> None:
        """Close the stream without answering anything."""
        stream, self._stream = self._stream, None
        self._requests.clear()
        self.held.clear()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if stream is not None:
            stream.close()

    def _open(self) -> Stream:
        """Open a stream whose end can only be taken for its own, not for its successor's."""
        stream: Stream

        def closed(error: KVError, unsent: Collection[int]) -> None:
            if self._stream is stream:
                self._stream = None
                self._answer_all(error, unsent)

        stream = self._transport.open(self.address, self._reply, closed)
        return stream

    def _reply(self, response: kv_pb2.PipelineResponse) -> None:
        try:
            for reply in response.replies:
                request = self._take(reply.id)
                if request is None:
                    continue  # it was forgotten: answered by another attempt, or nobody waits any more
                outcome = from_proto(reply.error) if reply.HasField("error") else reply.batch
                self._on_answer(self, reply.id, request, outcome)
        finally:
            self._on_dealt()
        self._tell_open()  # behind the answers, so that what their callers send next travels with what was held

    def _answer_all(self, error: KVError, unsent: Collection[int]) -> None:
        """Answer every attempt: what left may have been applied, what did not was not."""
        attempts = list(self._requests)
        if attempts:
            self._on_broken(self)
        text = f"the connection to {self.address} ended: {error.message}"
        for attempt in attempts:
            request = self._take(attempt)
            if request is None:
                continue  # the end of another one ended it
            failure = Unavailable(text) if attempt in unsent else UnknownOutcome(text)
            self._on_answer(self, attempt, request, failure)
        self._tell_open()

    def _take(self, attempt: int) -> Request | None:
        """Remove an attempt and return its request; the gate learns of it."""
        found = self._requests.pop(attempt, None)
        if found is None:
            return None
        request, wave = found
        self.gate.ended(wave, self._now())
        return request

    def _tell_open(self) -> None:
        if self.held and self.gate.is_open:
            self._on_open(self)
