"""One Pipeline stream of a client: many batches in flight, answered as they become ready.

Here live `Pipeline`, the stream without I/O, and `serve_pipeline`, which moves its bytes. A batch
for which the client names the partition passes through undecoded; the others are routed by key.

Where a failure ends: a message that is not a PipelineRequest ends the stream, because nobody can
say which request it was. Anything wrong inside one is the answer to that request alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kv.errors import KVError, Unavailable, to_proto
from kv.internal.v1 import pipeline_pb2
from kv.router.dispatch import Router
from kv.router.limits import PUBLIC_MESSAGE_BYTES_MAX
from kv.router.routing import decode_batch
from kv.router.streams import Context, abort, parse, stop_tasks, write_all

RESPONSES_BYTES_MAX: Final = 16 * 1024 * 1024
"""While so many bytes wait for a client that reads slowly, its stream is not read."""

Outcomes = Callable[[str], None]
"""Counts finished requests by outcome: OK or the reason of the error."""


class Pipeline:
    """The requests and responses of one stream."""

    def __init__(self, router: Router, count: Outcomes) -> None:
        self._router = router
        self._count = count
        self._responses: deque[bytes] = deque()
        self._responses_bytes = 0
        self._unanswered = 0
        self._writing = False
        self._closed = False
        self._now = router.cluster.clock
        self._active_at_s = self._now()
        self.wake_writer = asyncio.Event()
        self.changed = asyncio.Event()
        """Set whenever a response was written."""
        self.evicted: asyncio.Future[KVError] = asyncio.get_running_loop().create_future()

    @property
    def in_flight(self) -> int:
        """Requests whose response was not yet written."""
        return self._unanswered + len(self._responses) + self._writing

    @property
    def may_read(self) -> bool:
        """Whether another request may be taken in."""
        if self._responses_bytes >= RESPONSES_BYTES_MAX:
            return False
        return self.in_flight < self._router.config.pipeline_in_flight_max

    def take_in(self, raw: bytes) -> None:
        """Start one request. Raises `InvalidArgument` or `RequestTooLarge` if the stream cannot go on."""
        request = parse(pipeline_pb2.RawPipelineRequest, raw, PUBLIC_MESSAGE_BYTES_MAX)
        self._unanswered += 1
        self._active_at_s = self._now()
        deadline = self._router.deadline(request.timeout_ms)
        reply = partial(self._answer, request.id)
        if request.partition:
            self._router.submit(request.batch, request.partition, deadline, reply)
            return
        try:
            batch = decode_batch(request.batch)
        except KVError as error:
            reply(error)
        else:
            self._router.execute(batch, request.batch, deadline, reply)

    def take_out(self) -> bytes | None:
        """Return the next response, or None. The call says that the one before was written."""
        self.changed.set()
        self._writing = bool(self._responses)
        if not self._writing:
            return None
        response = self._responses.popleft()
        self._responses_bytes -= len(response)
        return response

    def close(self) -> None:
        """Drop the responses that are still to come; their requests go on to their ends."""
        self._closed = True
        self._responses.clear()
        self.evicted.cancel()

    def evict_if_idle(self, idle_s: float) -> None:
        """End the stream if nothing is in flight and nothing came for so long."""
        if self.in_flight == 0 and self._now() - self._active_at_s >= idle_s and not self.evicted.done():
            self.evicted.set_result(Unavailable(f"the stream was idle for {idle_s:g} s"))

    def _answer(self, request_id: int, outcome: bytes | KVError) -> None:
        self._unanswered -= 1
        if isinstance(outcome, KVError):
            self._count(outcome.reason)
            response = pipeline_pb2.RawPipelineResponse(id=request_id, error=to_proto(outcome))
        else:
            self._count("OK")
            response = pipeline_pb2.RawPipelineResponse(id=request_id, batch=outcome)
        if self._closed:
            return
        raw = response.SerializeToString()
        self._responses.append(raw)
        self._responses_bytes += len(raw)
        self.wake_writer.set()


async def serve_pipeline(pipeline: Pipeline, context: Context) -> None:
    """Run the stream to its end: the client's, an error of the stream, or its eviction."""
    create_task = asyncio.get_running_loop().create_task
    reader = create_task(_read_all(pipeline, context))
    writer = create_task(write_all(pipeline.take_out, pipeline.wake_writer, context.write))
    try:
        ends: set[asyncio.Future[Any]] = {reader, writer, pipeline.evicted}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if writer.done():
            writer.result()  # raises why: the client has gone
        if pipeline.evicted.done():
            await abort(context, pipeline.evicted.result())
        await reader
    except KVError as error:
        await abort(context, error)
    finally:
        pipeline.close()
        await stop_tasks(reader, writer)


async def _read_all(pipeline: Pipeline, context: Context) -> None:
    """Take in requests until the client closes its side, then wait for the last response."""
    while True:
        await _until(pipeline, lambda: pipeline.may_read)
        raw: object = await context.read()
        if not isinstance(raw, bytes):
            break
        pipeline.take_in(raw)
    await _until(pipeline, lambda: pipeline.in_flight == 0)


async def _until(pipeline: Pipeline, condition: Callable[[], bool]) -> None:
    while not condition():
        pipeline.changed.clear()
        await pipeline.changed.wait()
