"""The public gRPC API of a node: KVService, ClusterService, health and reflection.

Here live the servicers and nothing that routes: a unary call becomes a batch of one operation and
its result, an error becomes a status with an ErrorInfo. Requests are parsed here and not by grpc, so
that one that does not parse is answered INVALID_ARGUMENT like any other bad request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeAlias, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from kv.direct import METADATA_KEY
from kv.errors import Internal, KVError, Overloaded
from kv.ids import GroupId
from kv.internal.v1 import peer_pb2
from kv.outcome import OutcomeToken
from kv.router.call import End
from kv.router.direct import DirectListener
from kv.router.dispatch import Router
from kv.router.forward_server import ForwardService
from kv.router.limits import PUBLIC_MESSAGE_BYTES_MAX
from kv.router.options import FANNED_OUT
from kv.router.pipeline import Pipeline, serve_pipeline
from kv.router.routing import Traits, check_batch, cut, outcome_batch, single_result
from kv.router.scan import Scan
from kv.router.streams import Context, abort, parse, stop_tasks
from kv.router.unary import PLAIN_READ, PLAIN_WRITE, get_reply, plain_get, plain_put, put_reply
from kv.telemetry import Metrics
from kv.v1 import cluster_pb2, kv_pb2

KV_SERVICE: Final = "kv.v1.KVService"
CLUSTER_SERVICE: Final = "kv.v1.ClusterService"
PEER_SERVICE: Final = "kv.internal.v1.PeerService"

HEALTH_OF_PARTITION: Final = "kv.partition."
"""Health service name of a partition, followed by its number; "" is the node as a whole."""

ANSWER_MARGIN_MS: Final = 100
"""A call with a deadline is answered so long before it, or a tenth of it if that is less: a caller whose own
clock ends the call hears only that."""

_log = structlog.get_logger(__name__)

Q = TypeVar("Q", bound=Message)
_WriteRequest: TypeAlias = (
    kv_pb2.PutRequest
    | kv_pb2.DeleteRequest
    | kv_pb2.IncrementRequest
    | kv_pb2.AppendRequest
    | kv_pb2.TxnRequest
)
_ConditionalRequest: TypeAlias = (
    kv_pb2.PutRequest | kv_pb2.DeleteRequest | kv_pb2.IncrementRequest | kv_pb2.AppendRequest
)


class RouterServer:
    """Serves the router over gRPC; the node adds it to its server, starts and stops it."""

    def __init__(
        self,
        router: Router,
        hello: Callable[[], peer_pb2.Hello],
        metrics: Metrics | None = None,
        direct: DirectListener | None = None,
    ) -> None:
        """`direct`: offered to the clients' streams; started and closed by whoever made it."""
        self.router = router
        self._direct = direct
        self._config = router.config
        self._clock = router.cluster.clock
        self._forward = ForwardService(router.cluster, hello, router.config)
        self._metrics = metrics or Metrics.create()
        self._pipelined = self._metrics.requests.labels("Pipeline", "OK")
        self._health = health.aio.HealthServicer()
        self._published: dict[str, int] = {}
        self._pipelines: set[Pipeline] = set()
        self._scans = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def pipelines(self) -> int:
        """Pipeline streams that are open now."""
        return len(self._pipelines)

    # --- life -------------------------------------------------------------------------------------

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add KVService, ClusterService, PeerService.Forward, health and reflection to the server."""
        server.add_generic_rpc_handlers((self._kv(), self._cluster(), self._forward.handler()))
        names = (KV_SERVICE, CLUSTER_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        shown = reflection.aio.ReflectionServicer(service_names=names)
        by_name_only = cast("grpc.aio.Server", _ByNameOnly(server))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, by_name_only)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(shown, by_name_only)  # type: ignore[no-untyped-call]

    async def start(self) -> None:
        """Publish the health, and keep it and the idle streams up to date until `stop`."""
        await self.publish_health()
        self._task = asyncio.get_running_loop().create_task(self._housekeeping())

    async def stop(self) -> None:
        """Say NOT_SERVING to whoever watches. The node then stops the server, and last closes the router."""
        if self._task is not None:
            await stop_tasks(self._task)
        await self._health.enter_graceful_shutdown()

    async def publish_health(self) -> None:
        """Tell the health service what this node knows.

        The node serves once it has a map; a partition of which it has a replica when that knows a leader.
        """
        cluster = self.router.cluster
        cluster_map = cluster.map
        await self._publish("", cluster_map is not None)
        for partition in cluster_map.partitions if cluster_map is not None else ():
            replica = cluster.replica(partition.id)
            if replica is not None:
                serving = replica.is_leader or bool(replica.leader)
                await self._publish(f"{HEALTH_OF_PARTITION}{partition.id}", serving)

    async def _publish(self, service: str, serving: bool) -> None:
        response = health_pb2.HealthCheckResponse
        value = response.SERVING if serving else response.NOT_SERVING
        if self._published.get(service) != value:
            self._published[service] = value
            await self._health.set(service, value)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(self._config.health_interval_ms / 1000)
            await self.publish_health()
            self._metrics.pending_requests.set(self.router.in_flight)
            self._metrics.direct_streams.set(0 if self._direct is None else self._direct.connections)
            for pipeline in self._pipelines:
                pipeline.evict_if_idle(self._config.idle_stream_s)

    # --- the services -----------------------------------------------------------------------------

    def _kv(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            KV_SERVICE,
            {
                "Get": self._unary("Get", kv_pb2.GetRequest, self._get),
                "Put": self._unary("Put", kv_pb2.PutRequest, self._put),
                "Delete": self._unary("Delete", kv_pb2.DeleteRequest, self._delete),
                "Increment": self._unary("Increment", kv_pb2.IncrementRequest, self._increment),
                "Append": self._unary("Append", kv_pb2.AppendRequest, self._append),
                "Outcome": self._unary("Outcome", kv_pb2.OutcomeRequest, self._outcome),
                "Batch": self._unary("Batch", kv_pb2.BatchRequest, self._batch),
                "Txn": self._unary("Txn", kv_pb2.TxnRequest, self._txn),
                "Scan": grpc.unary_stream_rpc_method_handler(self._scan),
                "Pipeline": grpc.stream_stream_rpc_method_handler(self._pipeline),
            },
        )

    def _cluster(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            CLUSTER_SERVICE,
            {
                "GetMap": self._unary("GetMap", cluster_pb2.GetMapRequest, self._get_map),
                "GetStatus": self._unary("GetStatus", cluster_pb2.GetStatusRequest, self._get_status),
                "GetContentHash": self._unary(
                    "GetContentHash", cluster_pb2.GetContentHashRequest, self._get_content_hash
                ),
            },
        )

    def _unary(
        self, name: str, kind: type[Q], behave: Callable[[Q, float], Awaitable[Message | bytes]]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        succeeded = self._metrics.requests.labels(name, "OK")  # looking labels up costs more than counting
        seconds = self._metrics.request_seconds.labels(name)

        async def handle(raw: bytes, context: Context) -> bytes:
            began = self._clock()
            try:
                request = parse(kind, raw, PUBLIC_MESSAGE_BYTES_MAX)
                response = await behave(request, self._deadline(context))
            except Exception as error:
                await self._fail(context, name, error)
                raise AssertionError("the call was aborted") from error
            succeeded.inc()
            seconds.observe(self._clock() - began)
            return response if isinstance(response, bytes) else response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _fail(self, context: Context, method: str, error: Exception) -> None:
        """End the call with the error; one that is not ours is a defect."""
        if not isinstance(error, KVError):
            _log.error("request failed by a defect", method=method, exc_info=error)
            error = Internal(f"{method} failed by a defect of the server: {type(error).__name__}")
        self._metrics.requests.labels(method, error.reason).inc()
        await abort(context, error)

    def _deadline(self, context: Context) -> float:
        """Return until when to try: somewhat less than the caller waits, so that it hears the reason and the token."""
        remaining_s = cast("float | None", context.time_remaining())  # None without a deadline
        if remaining_s is None:
            return self.router.deadline(0)
        remaining_ms = max(1.0, remaining_s * 1000)
        return self.router.deadline(remaining_ms - min(ANSWER_MARGIN_MS, remaining_ms / 10))

    # --- KVService --------------------------------------------------------------------------------

    async def _plain(self, key: bytes, traits: Traits, raw: bytes, deadline: float) -> bytes:
        end = End()
        self.router.execute_one(key, traits, raw, deadline, end.resolve)
        return await end.response()

    async def _one(
        self, batch: kv_pb2.BatchRequest, deadline: float, *, partition: GroupId = 0
    ) -> tuple[kv_pb2.OperationResult, Sequence[kv_pb2.Evidence]]:
        """Run a batch of one operation, by its key or in the partition; raise its error."""
        check_batch(batch)
        raw = await self.router.request(batch, deadline, partition=partition)
        response = kv_pb2.BatchResponse.FromString(raw)
        return single_result(response), response.evidence or (kv_pb2.Evidence(),)

    async def _get(self, request: kv_pb2.GetRequest, deadline: float) -> kv_pb2.GetResponse | bytes:
        raw = plain_get(request)
        if raw is not None:
            return get_reply(await self._plain(request.key, PLAIN_READ, raw, deadline))
        operation = kv_pb2.Operation(get=kv_pb2.GetOperation(key=request.key))
        read = request.read if request.HasField("read") else None
        batch = kv_pb2.BatchRequest(operations=[operation], level=request.level, read=read)
        result, evidence = await self._one(batch, deadline)
        item = result.get.item if result.get.HasField("item") else None
        answers = evidence if request.level in FANNED_OUT else ()
        return kv_pb2.GetResponse(evidence=evidence[0], item=item, answers=answers)

    async def _put(self, request: kv_pb2.PutRequest, deadline: float) -> kv_pb2.PutResponse | bytes:
        raw = plain_put(request)
        if raw is not None:
            return put_reply(await self._plain(request.key, PLAIN_WRITE, raw, deadline))
        put = kv_pb2.PutOperation(
            key=request.key,
            value=request.value,
            condition=_condition(request),
            return_previous=request.return_previous,
        )
        result, evidence = await self._one(_write(request, kv_pb2.Operation(put=put)), deadline)
        done = result.put
        previous = done.previous if done.HasField("previous") else None
        return kv_pb2.PutResponse(
            evidence=evidence[0], revision=done.revision, version=done.version, previous=previous
        )

    async def _delete(self, request: kv_pb2.DeleteRequest, deadline: float) -> kv_pb2.DeleteResponse:
        delete = kv_pb2.DeleteOperation(
            key=request.key, condition=_condition(request), return_previous=request.return_previous
        )
        result, evidence = await self._one(_write(request, kv_pb2.Operation(delete=delete)), deadline)
        done = result.delete
        previous = done.previous if done.HasField("previous") else None
        return kv_pb2.DeleteResponse(
            evidence=evidence[0], deleted=done.deleted, revision=done.revision, previous=previous
        )

    async def _increment(self, request: kv_pb2.IncrementRequest, deadline: float) -> kv_pb2.IncrementResponse:
        increment = kv_pb2.IncrementOperation(
            key=request.key, delta=request.delta, condition=_condition(request)
        )
        result, evidence = await self._one(_write(request, kv_pb2.Operation(increment=increment)), deadline)
        done = result.increment
        return kv_pb2.IncrementResponse(
            evidence=evidence[0], value=done.value, revision=done.revision, version=done.version
        )

    async def _append(self, request: kv_pb2.AppendRequest, deadline: float) -> kv_pb2.AppendResponse:
        append = kv_pb2.AppendOperation(key=request.key, value=request.value, condition=_condition(request))
        result, evidence = await self._one(_write(request, kv_pb2.Operation(append=append)), deadline)
        done = result.append
        return kv_pb2.AppendResponse(
            evidence=evidence[0], length=done.length, revision=done.revision, version=done.version
        )

    async def _txn(self, request: kv_pb2.TxnRequest, deadline: float) -> kv_pb2.TxnResponse:
        txn = kv_pb2.TxnOperation(
            compare=request.compare,
            then_operations=request.then_operations,
            else_operations=request.else_operations,
        )
        result, evidence = await self._one(_write(request, kv_pb2.Operation(txn=txn)), deadline)
        done = result.txn
        return kv_pb2.TxnResponse(
            evidence=evidence[0], succeeded=done.succeeded, revision=done.revision, results=done.results
        )

    async def _outcome(self, request: kv_pb2.OutcomeRequest, deadline: float) -> kv_pb2.OutcomeResponse:
        token = OutcomeToken.parse(request.token)
        result, evidence = await self._one(outcome_batch(token), deadline, partition=token.partition)
        done = result.outcome
        return kv_pb2.OutcomeResponse(
            evidence=evidence[0], outcome=done.outcome, results=cut(done.results, token)
        )

    async def _batch(self, request: kv_pb2.BatchRequest, deadline: float) -> bytes:
        check_batch(request)
        return await self.router.request(request, deadline)

    async def _scan(self, raw: bytes, context: Context) -> None:
        self._scans += 1
        try:
            limit = self._config.scans_max
            if self._scans > limit:
                raise Overloaded(f"this node serves {limit} scans", metadata={"scans_max": limit})
            request = parse(kv_pb2.ScanRequest, raw, PUBLIC_MESSAGE_BYTES_MAX)
            scan = Scan(self.router, request, lambda: self._deadline(context))
            async with aclosing(scan.pages()) as pages:
                async for page in pages:
                    await context.write(page.SerializeToString())
            self._metrics.requests.labels("Scan", "OK").inc()
        except Exception as error:  # noqa: BLE001 - the edge: a defect is logged and answered INTERNAL
            await self._fail(context, "Scan", error)
        finally:
            self._scans -= 1

    async def _pipeline(self, _requests: object, context: Context) -> None:
        limit = self._config.streams_max
        if len(self._pipelines) >= limit:
            message = f"this node serves {limit} pipeline streams"
            await abort(context, Overloaded(message, metadata={"streams_max": limit}))
        pipeline = Pipeline(self.router, self._count_pipelined)
        self._pipelines.add(pipeline)
        offer = None if self._direct is None else self._direct.offer(pipeline)
        try:
            if offer is not None:
                await context.send_initial_metadata(((METADATA_KEY, offer.encode()),))
            await serve_pipeline(pipeline, context)
        finally:
            self._pipelines.discard(pipeline)
            if self._direct is not None and offer is not None:
                self._direct.withdraw(offer, pipeline)

    def _count_pipelined(self, outcome: str) -> None:
        if outcome == "OK":
            self._pipelined.inc()
        else:
            self._metrics.requests.labels("Pipeline", outcome).inc()

    # --- ClusterService ---------------------------------------------------------------------------

    async def _get_map(self, _request: cluster_pb2.GetMapRequest, _deadline: float) -> Message:
        cluster_map = self.router.cluster.map
        return cluster_pb2.GetMapResponse(map=None if cluster_map is None else cluster_map.to_proto())

    async def _get_status(self, _request: cluster_pb2.GetStatusRequest, _deadline: float) -> Message:
        return cluster_pb2.GetStatusResponse(status=self.router.cluster.status())

    async def _get_content_hash(
        self, request: cluster_pb2.GetContentHashRequest, _deadline: float
    ) -> Message:
        return await self.router.cluster.content_hash(request.partition)


class _ByNameOnly:
    """A server as generated code sees it, to which methods are added by name alone.

    Registered ones would gain nothing here, and grpc.aio waits for a call of each of them anew at every call of any.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, _service: str, _handlers: object) -> None:
        """Leave them unregistered."""


def _condition(request: _ConditionalRequest) -> kv_pb2.Condition | None:
    return request.condition if request.HasField("condition") else None


def _write(request: _WriteRequest, operation: kv_pb2.Operation) -> kv_pb2.BatchRequest:
    """Return the batch of one write, with the request id and the level of `request`."""
    return kv_pb2.BatchRequest(
        operations=[operation],
        request_id=request.request_id if request.HasField("request_id") else None,
        write_level=request.write_level,
        all_timeout_ms=request.all_timeout_ms,
    )
