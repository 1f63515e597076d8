"""Targets for what the Python client reads: answers of servers, and the address that a user gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from google.protobuf.message import DecodeError

from kv.client.aio import AsyncClient
from kv.client.transport import OnClosed, OnReply
from kv.client.types import Get, Put
from kv.client.url import ENDPOINTS_MAX, TIMEOUT_S_MAX, check_endpoint, parse_url
from kv.errors import InvalidArgument, KVError, NotLeader, from_grpc, to_proto
from kv.v1 import cluster_pb2, kv_pb2
from tests.client.fakes import FakeCluster, FakeTransport
from tests.client.virtual import run_virtual
from tests.fuzz.engine import Target, gist, plain
from tests.fuzz.mutate import Field, mutate_message, mutate_text, serialize
from tests.fuzz.partition_targets import input_of, strings_in

MESSAGES_MAX = 20
"""Messages of one input that are given."""
ID_OF_REQUEST = 1
"""In an answer of a scripted server, it stands for the id of the request that it answers."""

# --- what a client reads from servers -----------------------------------------------------------------------------------


class Scripted(FakeTransport):
    """A transport whose nodes answer each request with the next message of the input."""

    def __init__(self, cluster: FakeCluster, data: bytes) -> None:
        super().__init__(cluster)
        self.messages = strings_in(data, 1)[:MESSAGES_MAX]
        self.maps = strings_in(data, 2)[:1]
        self.pages = strings_in(data, 3)[:MESSAGES_MAX]

    def open(self, address: str, on_reply: OnReply, on_closed: OnClosed) -> Any:  # noqa: ANN401 - a fake
        return ScriptedStream(self, on_reply, on_closed)

    async def get_map(self, address: str, timeout_s: float) -> cluster_pb2.GetMapResponse:
        await asyncio.sleep(0.001)
        raw = self.maps.pop() if self.maps else self.good_map()
        parsed: cluster_pb2.GetMapResponse = _parsed(cluster_pb2.GetMapResponse, raw)
        return parsed

    def good_map(self) -> bytes:
        return cluster_pb2.GetMapResponse(map=self.cluster.map.to_proto()).SerializeToString()

    async def scan(
        self, address: str, request: kv_pb2.ScanRequest, timeout_s: float
    ) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        for raw in self.pages:
            await asyncio.sleep(0.001)
            yield _parsed(kv_pb2.ScanResponse, raw)


def _parsed(kind: Any, raw: bytes) -> Any:  # noqa: ANN401 - messages have no useful common type
    """As gRPC does it: what does not parse is the failure of the call."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise from_grpc(13, str(error), None, sent=True) from error


class ScriptedStream:
    """One stream of `Scripted`."""

    def __init__(self, transport: Scripted, on_reply: OnReply, on_closed: OnClosed) -> None:
        self._transport, self._on_reply, self._on_closed = transport, on_reply, on_closed
        self._open = True

    def send(self, request_id: int, raw: bytes) -> None:
        asyncio.get_running_loop().call_later(0.001, self._answer, request_id)

    def flush(self) -> None: ...

    def withdraw(self, request_id: int) -> bool:
        return False

    def close(self) -> None:
        self._open = False

    def _answer(self, request_id: int) -> None:
        if not self._open or not self._transport.messages:
            return
        try:
            response = _parsed(kv_pb2.PipelineResponse, self._transport.messages.pop(0))
        except KVError as error:
            self._open = False
            self._on_closed(error, [])
            return
        for reply in response.replies:
            if reply.id == ID_OF_REQUEST:
                reply.id = request_id
        self._on_reply(response)


def _check_client(data: bytes) -> str:
    ends: list[str] = []

    async def end(work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except KVError as error:
            ends.append(error.reason)
        else:
            ends.append("OK")

    async def main() -> None:
        cluster = FakeCluster(partitions=1)
        addresses = list(cluster.addresses.values())
        transport = Scripted(cluster, data)
        async with AsyncClient(addresses, transport=transport, timeout=1.0, jitter=lambda: 0.5) as client:
            await end(client.get(b"a"))
            await asyncio.gather(
                end(client.put(b"a", b"1")),
                end(client.delete(b"b")),
                end(client.batch([Put(b"c", b"2"), Get(b"d")])),
            )
            await end(_scan(client))

    run_virtual(main)
    return " ".join(ends)


async def _scan(client: AsyncClient) -> None:
    async for _ in client.scan(b"a"):
        pass


def _client_seeds() -> list[bytes]:
    def message(*results: kv_pb2.OperationResult) -> bytes:
        made = kv_pb2.PipelineResponse()
        evidence = kv_pb2.Evidence(
            partition=1, map_epoch=1, term=2, index=7, node="n1", level=kv_pb2.READ_LEVEL_LINEARIZABLE
        )
        made.replies.add(id=ID_OF_REQUEST, batch=kv_pb2.BatchResponse(results=results, evidence=[evidence]))
        return made.SerializeToString()

    item = kv_pb2.KeyValue(key=b"a", value=b"1", create_revision=3, mod_revision=7, version=2)
    got = kv_pb2.OperationResult(get=kv_pb2.GetResult(item=item))
    opened = kv_pb2.OperationResult(open_session=kv_pb2.OpenSessionResult(session=99, ttl_ms=1000))
    done = kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=9, version=1))
    gone = kv_pb2.OperationResult(delete=kv_pb2.DeleteResult(deleted=True, revision=9))
    failed = kv_pb2.PipelineResponse()
    failed.replies.add(
        id=ID_OF_REQUEST, error=to_proto(NotLeader("no", metadata={"leader": "n2", "partition": 1}))
    )
    pages = [kv_pb2.ScanResponse(items=[kv_pb2.KeyValue(key=key)]) for key in (b"a", b"ab")]
    runs = [
        [message(got), message(opened), message(done, gone, done, got)],
        [failed.SerializeToString(), message(got), message(opened), message(done)],
        [message(opened), message(got), b"", message()],
    ]
    fake = Scripted(FakeCluster(partitions=1), b"")
    rest = [Field(2, 2, fake.good_map()), *(Field(3, 2, page.SerializeToString()) for page in pages)]
    return [input_of(*run) + serialize(rest) for run in runs]


def _check_url(data: bytes) -> str:
    try:
        options = parse_url(data.decode("utf-8", errors="surrogateescape"))
    except InvalidArgument as refusal:
        return gist(refusal)
    assert 0 < len(options.endpoints) <= ENDPOINTS_MAX
    assert 0 < options.timeout_s <= TIMEOUT_S_MAX
    for endpoint in options.endpoints:
        check_endpoint(endpoint)
    return f"{min(len(options.endpoints), 3)} {options.level.kind.name}"


def _url_seeds() -> list[bytes]:
    return [b"kv://h:1", b"kv://h1:7000,h2:7000/?timeout=2s&level=stale", b"kv://[::1]:7000?timeout=500ms",
            b"kv://a.b-c:65535/?level=linearizable&timeout=1.5m"]  # fmt: skip


TARGETS = (
    Target("client", "whatever servers answer, each call of a client ends once, with a result or an error",
           _client_seeds, plain(_check_client), mutate_message),
    Target("url", "an address is refused or gives options within their limits", _url_seeds,
           plain(_check_url), mutate_text),
)  # fmt: skip
