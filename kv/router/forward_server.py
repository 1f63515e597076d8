"""Requests that another node forwards to the replicas here (steps 3 and 9 of a write).

Here live `ForwardInbox`, one incoming stream without I/O, and the gRPC handler around it. The other
end is `kv.router.forward`. A forwarded request is never forwarded again: a replica that does not
lead says who does, and the sender decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

import grpc
import structlog

from kv.errors import (
    InvalidArgument,
    KVError,
    Overloaded,
    Unavailable,
    WrongCluster,
    WrongPartition,
    to_proto,
)
from kv.ids import GroupId
from kv.internal.v1 import peer_pb2
from kv.router.api import Cluster, Replica
from kv.router.limits import PEER_MESSAGE_BYTES_MAX, RouterConfig
from kv.router.streams import Context, abort, parse, stop_tasks, write_all

_log = structlog.get_logger(__name__)


class ForwardInbox:
    """One stream of forwarded requests: hands them to the replicas and joins the replies."""

    def __init__(self, cluster: Cluster, config: RouterConfig, wake: Callable[[], None]) -> None:
        self._cluster = cluster
        self._config = config
        self._wake = wake
        self._replies: deque[tuple[int, bytes | KVError]] = deque()
        self._in_flight = 0
        self._closed = False

    def take_in(self, request: peer_pb2.ForwardRequest) -> None:
        """Submit each batch of the message."""
        for batch in request.batches:
            self._in_flight += 1
            reply = partial(self._answer, batch.id)
            try:
                replica = self._replica(batch.partition)
            except KVError as error:
                reply(error)
            else:
                replica.submit(batch.batch, reply)

    def take_out(self) -> bytes | None:
        """Return the next message of replies, or None."""
        if not self._replies:
            return None
        message = peer_pb2.ForwardResponse()
        message_bytes = 0
        while self._replies:
            ticket, outcome = self._replies[0]
            message_bytes += 0 if isinstance(outcome, KVError) else len(outcome)
            if message.replies and message_bytes > self._config.forward_message_bytes_max:
                break
            self._replies.popleft()
            if isinstance(outcome, KVError):
                message.replies.add(id=ticket, error=to_proto(outcome))
            else:
                message.replies.add(id=ticket, batch=outcome)
        return message.SerializeToString()

    def close(self) -> None:
        """Drop the replies that are still to come: nobody takes them any more."""
        self._closed = True
        self._replies.clear()

    def _replica(self, partition: GroupId) -> Replica:
        limit = self._config.forward_in_flight_max
        if self._in_flight > limit:
            message = f"node {self._cluster.node_id} has {limit} requests of this stream in flight"
            raise Overloaded(message, metadata={"forward_in_flight_max": limit})
        replica = self._cluster.replica(partition)
        if replica is not None:
            return replica
        here = self._cluster.map
        info = here.partition(partition) if here is not None else None
        if here is None or (info is not None and self._cluster.node_id in info.replicas):
            raise Unavailable(f"node {self._cluster.node_id} has not started partition {partition} yet")
        raise WrongPartition(
            f"node {self._cluster.node_id} has no replica of partition {partition}",
            metadata={"partition": partition, "map_epoch": here.epoch},
        )

    def _answer(self, ticket: int, outcome: bytes | KVError) -> None:
        self._in_flight -= 1
        if self._closed:
            return
        self._replies.append((ticket, outcome))
        self._wake()


class ForwardService:
    """The Forward method of PeerService."""

    def __init__(self, cluster: Cluster, hello: Callable[[], peer_pb2.Hello], config: RouterConfig) -> None:
        self._cluster = cluster
        self._hello = hello
        self._config = config

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to add to a server; PeerService's other methods come from elsewhere."""
        forward: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._forward)
        return grpc.method_handlers_generic_handler("kv.internal.v1.PeerService", {"Forward": forward})

    async def _forward(self, _requests: object, context: Context) -> None:
        wake = asyncio.Event()
        inbox = ForwardInbox(self._cluster, self._config, wake.set)
        writer: asyncio.Task[None] | None = None
        try:
            await self._greet(context)
            writer = asyncio.get_running_loop().create_task(write_all(inbox.take_out, wake, context.write))
            while (request := await self._read(context)) is not None:
                inbox.take_in(request)
        except KVError as error:
            _log.warning(
                "forward stream refused", peer=context.peer(), reason=error.reason, why=error.message
            )
            await abort(context, error)
        finally:
            inbox.close()
            if writer is not None:
                await stop_tasks(writer)

    async def _greet(self, context: Context) -> None:
        first = await self._read(context)
        if first is None or not first.HasField("hello"):
            raise InvalidArgument("a Forward stream begins with a hello")
        ours = self._hello()
        if first.hello.cluster != ours.cluster:
            raise WrongCluster(
                f"node {ours.node} belongs to cluster {ours.cluster!r}, not {first.hello.cluster!r}",
                metadata={"cluster": ours.cluster, "node": ours.node},
            )
        await context.write(peer_pb2.ForwardResponse(hello=ours).SerializeToString())

    async def _read(self, context: Context) -> peer_pb2.ForwardRequest | None:
        raw: object = await context.read()
        if not isinstance(raw, bytes):
            return None
        return parse(peer_pb2.ForwardRequest, raw, PEER_MESSAGE_BYTES_MAX)
