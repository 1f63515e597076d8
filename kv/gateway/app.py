"""The ASGI application: paths, limits, and one shape for every error.

    POST        /put              {"key", "value", condition?, "return_previous"?, "write"?}
    GET         /get              ?key=...&level=...&prefer=...
    POST|DELETE /delete           {"key", condition?, "return_previous"?, "write"?} or ?key=...
    POST        /increment        {"key", "delta"?, condition?, "write"?}
    POST        /append           {"key", "value", condition?, "write"?}
    GET         /outcome/TOKEN    what became of a write whose error had this token
    GET         /healthz          the process runs its event loop
    GET         /readyz           the node can serve; 503 with the reason while it cannot
    GET         /metrics          Prometheus

A condition is one of "if_absent", "if_present", "if_revision", "if_value"; levels are texts as in `kv.client.levels`.
The header Kv-Session-Token goes in with what the caller has seen, and comes out with what it has seen now.

Only the shell is here: what requests mean is in `kv.gateway.codec`, what replies look like in
`kv.gateway.replies`, what data means behind the `Executor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kv.client.session_token import Seen
from kv.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    KVError,
    Overloaded,
    RequestTooLarge,
    Unavailable,
)
from kv.gateway import codec, replies
from kv.ids import GroupId
from kv.outcome import OutcomeToken
from kv.router.routing import outcome_batch
from kv.v1 import kv_pb2

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
"""A value of 1 MiB whose every byte is written as six characters of JSON, and its key."""

LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 8 * 1024 * 1024
"""After a refusal so much of what is still on its way is read and dropped, before the connection is closed."""

REQUESTS_IN_FLIGHT_MAX: Final = 512
"""Of all connections together; more are refused with OVERLOADED."""

BODY_BYTES_IN_FLIGHT_MAX: Final = 64 * 1024 * 1024
"""Bytes of bodies being read or served, of all connections together; beyond it OVERLOADED."""

# Refusals that only HTTP knows; they never travel inside the cluster, so they are not classes of kv.errors.
_HTTP_REASONS: Final = {
    404: (
        "NO_SUCH_PATH",
        "The paths are /put, /get, /delete, /increment, /append, /outcome/TOKEN, /healthz, /readyz and /metrics.",
    ),
    405: ("METHOD_NOT_ALLOWED", "Use a method that the Allow header names."),
}

log = structlog.get_logger(__name__)


class Executor(Protocol):
    """The router of this node."""

    async def execute(self, raw_batch: bytes, timeout_s: float, partition: GroupId = 0) -> bytes:
        """Carry a serialized `kv.v1.BatchRequest` to its partition and return the serialized `BatchResponse`.

        The partition is that of its keys, or the one that is named. Raises `KVError`. Gives up, with the right definiteness, after `timeout_s` seconds.
        """


Readiness: TypeAlias = Callable[[], str | None]
"""Says why the node cannot serve now; None if it can."""

Decode: TypeAlias = Callable[[codec.Fields], kv_pb2.BatchRequest]
Encode: TypeAlias = Callable[[kv_pb2.BatchRequest, kv_pb2.OperationResult], replies.Reply]


def make_app(
    executor: Executor,
    *,
    ready: Readiness,
    registry: CollectorRegistry,
    timeout_s: float,
    cluster: str = "",
    body_bytes_max: int = BODY_BYTES_MAX,
    requests_in_flight_max: int = REQUESTS_IN_FLIGHT_MAX,
    body_bytes_in_flight_max: int = BODY_BYTES_IN_FLIGHT_MAX,
) -> Starlette:
    """Return the application of a node of `cluster`, whose name its session tokens bear.

    `timeout_s` bounds the reading of a body, and then its execution.
    """
    limits = _Limits(body_bytes_max, requests_in_flight_max, body_bytes_in_flight_max)
    handlers = _Handlers(executor, ready, registry, timeout_s, limits, cluster)
    return Starlette(
        routes=[
            Route("/put", handlers.put, methods=["POST"]),
            Route("/get", handlers.get, methods=["GET"]),
            Route("/delete", handlers.delete, methods=["POST", "DELETE"]),
            Route("/increment", handlers.increment, methods=["POST"]),
            Route("/append", handlers.append, methods=["POST"]),
            Route("/outcome/{token}", handlers.outcome, methods=["GET"]),
            Route("/healthz", handlers.healthz, methods=["GET"]),
            Route("/readyz", handlers.readyz, methods=["GET"]),
            Route("/metrics", handlers.metrics, methods=["GET"]),
        ],
        exception_handlers={KVError: _on_error, HTTPException: _on_http_error, Exception: _on_defect},
    )


class _Limits:
    """Counts what is in flight; at a limit the newcomer is refused at the door."""

    __slots__ = ("_body_bytes", "_body_bytes_all_max", "_requests", "_requests_max", "body_bytes_max")

    def __init__(self, body_bytes_max: int, requests_max: int, body_bytes_all_max: int) -> None:
        self.body_bytes_max = body_bytes_max
        self._requests_max = requests_max
        self._body_bytes_all_max = body_bytes_all_max
        self._requests = 0
        self._body_bytes = 0

    def enter(self) -> None:
        if self._requests >= self._requests_max:
            raise Overloaded(
                f"{self._requests} HTTP requests are in flight, the limit is {self._requests_max}"
            )
        self._requests += 1

    def leave(self, body_bytes: int) -> None:
        self._requests -= 1
        self._body_bytes -= body_bytes
        assert self._requests >= 0, "each request leaves once"
        assert self._body_bytes >= 0, "each request gives back what it took"

    def take(self, chunk_bytes: int) -> None:
        if self._body_bytes + chunk_bytes > self._body_bytes_all_max:
            raise Overloaded(
                f"HTTP bodies in flight hold {self._body_bytes} bytes, the limit is {self._body_bytes_all_max}"
            )
        self._body_bytes += chunk_bytes


class _Handlers:
    def __init__(
        self,
        executor: Executor,
        ready: Readiness,
        registry: CollectorRegistry,
        timeout_s: float,
        limits: _Limits,
        cluster: str,
    ) -> None:
        self._executor = executor
        self._ready = ready
        self._registry = registry
        self._timeout_s = timeout_s
        self._limits = limits
        self._cluster = cluster

    async def put(self, request: Request) -> Response:
        return await self._serve(request, codec.put_request, replies.put_reply)

    async def get(self, request: Request) -> Response:
        return await self._serve(request, codec.get_request, replies.get_reply)

    async def delete(self, request: Request) -> Response:
        return await self._serve(request, codec.delete_request, replies.delete_reply)

    async def increment(self, request: Request) -> Response:
        return await self._serve(request, codec.increment_request, replies.increment_reply)

    async def append(self, request: Request) -> Response:
        return await self._serve(request, codec.append_request, replies.append_reply)

    async def outcome(self, request: Request) -> Response:
        token = OutcomeToken.parse(request.path_params["token"])

        def ask(fields: codec.Fields) -> kv_pb2.BatchRequest:
            codec.refuse_fields(fields)
            return outcome_batch(token)

        def tell(_: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> replies.Reply:
            return replies.outcome_reply(token, result)

        return await self._serve(request, ask, tell, token.partition)

    async def _serve(
        self, request: Request, decode: Decode, encode: Encode, partition: GroupId = 0
    ) -> Response:
        self._limits.enter()
        body = bytearray()
        try:
            seen = self._seen(request)
            batch = decode(await self._fields(request, body))
            codec.bind_session(batch, seen)
            raw = await self._executor.execute(batch.SerializeToString(), self._timeout_s, partition)
            response = kv_pb2.BatchResponse.FromString(raw)
            headers = replies.evidence_headers(response, seen)
            try:
                return JSONResponse(encode(batch, replies.only_result(response)), headers=headers)
            except (
                KVError
            ) as error:  # an answer, too: a key that is not there, a condition that does not hold
                return JSONResponse(replies.error_reply(error), error.http_status, headers)
        finally:
            self._limits.leave(len(body))

    def _seen(self, request: Request) -> Seen:
        """Return what the caller says that it has seen."""
        seen = Seen()
        seen.bind(self._cluster)
        token = request.headers.get(replies.SESSION_HEADER)
        if token is not None:
            seen.observe(token)
        return seen

    async def _fields(self, request: Request, body: bytearray) -> codec.Fields:
        """Return the fields of a request: of POST from its body, else from its URL."""
        if request.method != "POST":
            return codec.read_query(request.query_params.multi_items())
        if request.query_params:
            raise InvalidArgument("POST takes its fields from the JSON body, not from the URL")
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._read(request, body)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the body did not arrive within {self._timeout_s:g} s", definite=True
            ) from None
        except ClientDisconnect:
            raise Unavailable("the client closed the connection before its body was whole") from None
        return codec.read_json(bytes(body))

    async def _read(self, request: Request, body: bytearray) -> None:
        """Read the body into `body`; stops at the limit, before the rest is in memory."""
        async for chunk in request.stream():
            if len(body) + len(chunk) > self._limits.body_bytes_max:
                raise RequestTooLarge(
                    f"the body is larger than {self._limits.body_bytes_max} bytes",
                    metadata={"body_bytes_max": self._limits.body_bytes_max},
                )
            self._limits.take(len(chunk))
            body += chunk

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        why = self._ready()
        if why is not None:
            raise Unavailable(why)
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": content_type})


class _LingeringResponse(JSONResponse):
    """A refusal whose sender may still be sending: says it, then listens for a while before it closes.

    A connection that is closed while bytes arrive is reset, and the reset may overtake the answer.
    """

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_S):
                await _drop_body(receive)
        except TimeoutError:
            log.debug("http_linger_ended", status=self.status_code)
        await send({"type": "http.response.body", "body": b""})


async def _drop_body(receive: Receive) -> None:
    dropped = 0
    while dropped < LINGER_BYTES_MAX:
        message = await receive()
        dropped += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, KVError)
    if error.http_status in (413, 429, 504):
        # After a refused body the rest of it may still be on its way: the connection cannot be used again.
        return _LingeringResponse(replies.error_reply(error), error.http_status, {"connection": "close"})
    return JSONResponse(replies.error_reply(error), error.http_status)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Give starlette's own refusals (404, 405) our shape."""
    assert isinstance(error, HTTPException)
    reason, hint = _HTTP_REASONS.get(error.status_code, ("HTTP_ERROR", "Correct the request."))
    message = f"{request.method} {request.url.path}: {error.detail}. {hint}"
    body = replies.error_body(reason, message, definite=True, metadata={"path": request.url.path})
    return JSONResponse(body, error.status_code, error.headers)


async def _on_defect(request: Request, error: Exception) -> Response:
    """Answer a defect of ours: starlette raises it again after the reply, and the server logs it."""
    log.error("http_defect", path=request.url.path, exc_info=error)
    found = Internal(f"the gateway failed: {type(error).__name__}")
    return JSONResponse(replies.error_reply(found), found.http_status)
