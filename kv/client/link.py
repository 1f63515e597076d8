"""Links: one per address, with its stream and the attempts that are registered on it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from kv.client.lane import Request
from kv.client.transport import Stream, Transport
from kv.errors import KVError, Unavailable, UnknownOutcome, from_proto
from kv.internal.v1 import pipeline_pb2
from kv.v1 import kv_pb2

OnAnswer: TypeAlias = "Callable[[Link, int, Request, kv_pb2.BatchResponse | KVError], None]"


class Link:
    """The way to one node. The stream is opened at the first request and again after it broke."""

    __slots__ = ("_next_id", "_on_answer", "_on_broken", "_requests", "_stream", "_transport", "address")

    def __init__(
        self, address: str, transport: Transport, on_answer: OnAnswer, on_broken: Callable[[Link], None]
    ) -> None:
        """Call `on_answer` once for each attempt that was not forgotten, `on_broken` when a stream lost some."""
        self.address = address
        self._transport = transport
        self._on_answer = on_answer
        self._on_broken = on_broken
        self._stream: Stream | None = None
        self._requests: dict[int, Request] = {}
        self._next_id = 1

    def send(self, request: Request, timeout_ms: int) -> int:
        """Send an attempt and return its id, unique over all streams of this link."""
        if self._stream is None:
            self._stream = self._open()
        attempt = self._next_id
        self._next_id += 1
        self._requests[attempt] = request
        message = pipeline_pb2.RawPipelineRequest()
        message.batches.add(
            id=attempt, batch=request.batch, partition=request.lane.partition, timeout_ms=timeout_ms
        )
        self._stream.send(attempt, message.SerializeToString())
        return attempt

    @property
    def in_flight(self) -> int:
        """Attempts that may still be answered."""
        return len(self._requests)

    def forget(self, attempt: int) -> None:
        """Drop the attempt: an answer to it is ignored from now on."""
        self._requests.pop(attempt, None)

    def withdraw(self, attempt: int) -> bool:
        """Take the attempt back; return False if it may have left already."""
        return self._stream is not None and self._stream.withdraw(attempt)

    def close(self) -> None:
        """Close the stream without answering anything."""
        stream, self._stream = self._stream, None
        self._requests.clear()
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
        for reply in response.replies:
            request = self._requests.pop(reply.id, None)
            if request is None:
                continue  # it was forgotten: answered by another attempt, or nobody waits any more
            outcome = from_proto(reply.error) if reply.HasField("error") else reply.batch
            self._on_answer(self, reply.id, request, outcome)

    def _answer_all(self, error: KVError, unsent: Collection[int]) -> None:
        """Answer every attempt: what left may have been applied, what did not was not."""
        requests, self._requests = self._requests, {}
        if requests:
            self._on_broken(self)
        text = f"the connection to {self.address} ended: {error.message}"
        for attempt, request in requests.items():
            failure = Unavailable(text) if attempt in unsent else UnknownOutcome(text)
            self._on_answer(self, attempt, request, failure)
