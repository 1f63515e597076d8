"""One Pipeline stream of a client: many batches in flight, answered as they become ready.

Here live `Pipeline`, the stream without I/O, and `serve_pipeline`, which moves its bytes. A message
carries many batches, or many replies: what costs is the message, so whatever waits travels in one.
A batch for which the client names the partition passes through undecoded; the others are routed by key.

Where a failure ends: a message that is not a PipelineRequest ends the stream, because nobody can
say which batches it had. Anything wrong inside one batch is the answer to that batch alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kv.config import MIB
from kv.errors import KVError, Unavailable, to_proto
from kv.internal.v1 import pipeline_pb2
from kv.router.dispatch import Router
from kv.router.limits import PUBLIC_MESSAGE_BYTES_MAX
from kv.router.routing import decode_batch
from kv.router.streams import Context, abort, parse, stop_tasks, write_all

REPLIES_BYTES_MAX: Final = 16 * MIB
"""While so many bytes wait for a client that reads slowly, its stream is not read."""

REPLY_MESSAGE_BYTES_MAX: Final = 1 * MIB
"""Replies are joined up to this; a larger one travels alone."""

Outcomes = Callable[[str], None]
"""Counts finished batches by outcome: OK or the reason of the error."""


class Pipeline:
    """The batches and replies of one stream."""

    def __init__(self, router: Router, count: Outcomes) -> None:
        self._router = router
        self._count = count
        self._arrived: deque[pipeline_pb2.RawPipelinedBatch] = deque()
        self._started = 0
        self._replies: deque[bytes] = deque()
        self._replies_bytes = 0
        self._writing = 0
        self._closed = False
        self._now = router.cluster.clock
        self._active_at_s = self._now()
        self.wake_writer = asyncio.Event()
        self.wake: Callable[[], None] = self.wake_writer.set
        """Called when a reply is ready. Who takes the replies out in another way puts a call of its own here."""
        self.changed = asyncio.Event()
        """Set whenever replies were written."""
        self.evicted: asyncio.Future[KVError] = asyncio.get_running_loop().create_future()

    @property
    def in_flight(self) -> int:
        """Batches that came and whose reply was not yet written."""
        return len(self._arrived) + self._started + len(self._replies) + self._writing

    @property
    def may_read(self) -> bool:
        """Whether another message may be taken in."""
        return not self._arrived and self._may_start

    def take_in(self, raw: bytes) -> None:
        """Start the batches of one message; those above the bound of the stream start as others end.

        Raises `InvalidArgument` or `RequestTooLarge` if the stream cannot go on.
        """
        message = parse(pipeline_pb2.RawPipelineRequest, raw, PUBLIC_MESSAGE_BYTES_MAX)
        self._active_at_s = self._now()
        self._arrived.extend(message.batches)
        self._start_arrived()

    def take_out(self) -> bytes | None:
        """Return the next message of replies, or None. The call says that the one before was written."""
        self._writing = 0
        self._start_arrived()
        self.changed.set()
        # Serialized messages one after the other are one message with the replies of all.
        replies = _take_joined(self._replies, REPLY_MESSAGE_BYTES_MAX)
        if not replies:
            return None
        message = b"".join(replies)
        self._writing = len(replies)
        self._replies_bytes -= len(message)
        return message

    def close(self) -> None:
        """Drop what did not start and the replies that are still to come; what started goes on to its end."""
        self._closed = True
        self._arrived.clear()
        self._replies.clear()
        self.evicted.cancel()

    def fail(self, error: KVError) -> None:
        """End the stream with this error."""
        if not self.evicted.done():
            self.evicted.set_result(error)

    def evict_if_idle(self, idle_s: float) -> None:
        """End the stream if nothing is in flight and nothing came for so long."""
        if self.in_flight == 0 and self._now() - self._active_at_s >= idle_s and not self.evicted.done():
            self.evicted.set_result(Unavailable(f"the stream was idle for {idle_s:g} s"))

    @property
    def _may_start(self) -> bool:
        if self._replies_bytes >= REPLIES_BYTES_MAX:
            return False
        in_flight = self._started + len(self._replies) + self._writing
        return in_flight < self._router.config.pipeline_in_flight_max

    def _start_arrived(self) -> None:
        while self._arrived and self._may_start:
            self._start(self._arrived.popleft())

    def _start(self, request: pipeline_pb2.RawPipelinedBatch) -> None:
        self._started += 1
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

    def _answer(self, batch_id: int, outcome: bytes | KVError) -> None:
        self._started -= 1
        message = pipeline_pb2.RawPipelineResponse()
        if isinstance(outcome, KVError):
            self._count(outcome.reason)
            message.replies.add(id=batch_id, error=to_proto(outcome))
        else:
            self._count("OK")
            message.replies.add(id=batch_id, batch=outcome)
        if self._closed:
            return
        raw = message.SerializeToString()
        self._replies.append(raw)
        self._replies_bytes += len(raw)
        self.wake()


def _take_joined(waiting: deque[bytes], bytes_max: int) -> list[bytes]:
    """Remove and return the first of those that wait: up to `bytes_max` together, but at least one."""
    taken: list[bytes] = []
    taken_bytes = 0
    while waiting:
        taken_bytes += len(waiting[0])
        if taken and taken_bytes > bytes_max:
            break
        taken.append(waiting.popleft())
    return taken


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
    """Take in messages until the client closes its side, then wait for the last reply."""
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
