"""Whatever comes over the wire, a node answers with a definite error or closes the stream, and keeps serving."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import grpc
import grpc.aio
import httpx
import pytest

from kv.cli.cluster_process import LocalCluster
from kv.errors import KVError, from_proto
from kv.frames import FrameReader, frame_of
from kv.ids import KEY_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX
from kv.internal.v1 import peer_pb2
from kv.raft.frames import PREFACE as RAFT_PREFACE
from kv.router.limits import RouterConfig
from kv.v1 import kv_pb2
from tests.integration import support

NODE: Final = "n1"
RSS_GROWTH_BYTES_MAX: Final = 128 * support.MIB
ROUNDS: Final = 5
"""Of the same bad input: what leaks once leaks each time."""
IDLE_CONNECTIONS: Final = 1000
STREAMS_ABANDONED: Final = RouterConfig().scans_max + 20
"""Of each kind: if they were not forgotten, the last would be refused."""
ANSWER_S: Final = 10.0

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HTTP: Final = b"HTTP/1.1\r\nHost: kv\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes, *, length: int | None = None) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, section 4.1), with a wrong length if one is given."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def headers_of_put() -> bytes:
    """Return the header block of a gRPC call of Put (RFC 7541: indexed and literal fields)."""

    def text(value: bytes) -> bytes:
        return bytes((len(value),)) + value

    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + text(b"/kv.v1.KVService/Put"),
            b"\x01" + text(b"kv"),
            b"\x00" + text(b"te") + text(b"trailers"),
            b"\x00" + text(b"content-type") + text(b"application/grpc"),
        )
    )


SETTINGS: Final = frame(4, 0, 0, b"")
OPENED: Final = PREFACE + SETTINGS + frame(1, 4, 1, headers_of_put())

GRPC_GARBAGE: Final = {
    "nothing": b"",
    "garbage": bytes(range(256)) * 64,
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: kv\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "half a preface": PREFACE[:10],
    "preface and garbage": PREFACE + b"\xff" * 4096,
    "half a header frame": PREFACE + SETTINGS + frame(1, 4, 1, b"\x83" * 10, length=100),
    "a frame beyond its limit": PREFACE + SETTINGS + frame(0, 0, 1, b"x", length=0xFFFFFF),
    "data without headers": PREFACE + SETTINGS + frame(0, 1, 7, bytes(5)),
    "a bad header block": PREFACE + SETTINGS + frame(1, 4, 1, b"\xff" * 50),
    "a message without its end": OPENED + frame(0, 0, 1, b"\0" + (1000).to_bytes(4) + b"half"),
    "a message of 4 GiB": OPENED + frame(0, 0, 1, b"\0" + b"\xff" * 4 + b"the first bytes"),
    "a compressed message that is not": OPENED + frame(0, 1, 1, b"\x01" + (4).to_bytes(4) + b"nope"),
    "many resets": PREFACE
    + SETTINGS
    + b"".join(
        frame(1, 4, stream, headers_of_put()) + frame(3, 0, stream, bytes(4)) for stream in range(1, 400, 2)
    ),
}

HTTP_GARBAGE: Final = {
    "nothing": b"",
    "garbage": b"\x00\xff\xfe garbage\r\n\r\n",
    "half a request": b"GET /get?key=a HTTP/1.1\r\nHost:",
    "a header without end": b"GET /get?key=a " + HTTP + b"X: " + b"a" * 300_000,
    "a body that never comes": b"POST /put " + HTTP + b"Content-Length: 5000000\r\n\r\n{",
    "a negative length": b"POST /put " + HTTP + b"Content-Length: -1\r\n\r\n{}",
    "a bad chunk": b"POST /put " + HTTP + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a line without end": b"GET /" + b"a" * 300_000,
}


@pytest.fixture(autouse=True)
async def unharmed(cluster: LocalCluster) -> AsyncIterator[None]:
    """Whatever a test did: the same process serves afterwards, its memory is bounded, no replica has stopped."""
    await serves(cluster)
    pid = cluster.pid(NODE)
    assert pid is not None
    before = support.rss_bytes(pid)
    yield
    await serves(cluster)
    assert cluster.pid(NODE) == pid
    assert support.rss_bytes(pid) - before < RSS_GROWTH_BYTES_MAX
    assert (await cluster.view()).stopped() == {}


async def serves(cluster: LocalCluster) -> None:
    """Assert that the node writes and reads, by gRPC and by HTTP."""
    spec = cluster.specs[NODE]
    async with support.stub_of(spec.address) as stub:
        put = await support.call(stub.Put(kv_pb2.PutRequest(key=b"bad/good", value=b"1"), timeout=ANSWER_S))
        got = await support.call(stub.Get(kv_pb2.GetRequest(key=b"bad/good"), timeout=ANSWER_S))
        assert got.item.mod_revision == put.revision
    async with httpx.AsyncClient(timeout=ANSWER_S) as client:
        reply = await client.get(f"http://{spec.http_address}/get", params={"key": "bad/good"})
        assert reply.json()["value"] == "1"


async def say(address: str, data: bytes) -> bytes:
    """Send bytes to a port, close our half, and return all that comes until the node closes, or the pause is long."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(ANSWER_S):
            return await reader.read()
    except OSError:
        return b""  # closed before it had read all: as good an answer
    finally:
        writer.close()


@pytest.mark.parametrize("name", GRPC_GARBAGE)
async def test_garbage_on_the_grpc_port(cluster: LocalCluster, name: str) -> None:
    """Bytes that are no gRPC, or only the beginning of it, end with a closed connection."""
    for _ in range(ROUNDS):
        await say(cluster.specs[NODE].address, GRPC_GARBAGE[name])


@pytest.mark.parametrize("name", HTTP_GARBAGE)
async def test_garbage_on_the_http_port(cluster: LocalCluster, name: str) -> None:
    """Bytes that are no HTTP, or only the beginning of it, end with an error of the client or a closed connection."""
    for _ in range(ROUNDS):
        answer = await say(cluster.specs[NODE].http_address, HTTP_GARBAGE[name])
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:200]


PUT_TOO_MUCH: Final = kv_pb2.BatchRequest(
    operations=[
        kv_pb2.Operation(put=kv_pb2.PutOperation(key=b"bad/%d" % number, value=bytes(VALUE_BYTES_MAX)))
        for number in range(4)
    ]
)


def nested_txn(depth: int) -> bytes:
    """Return a TxnRequest in whose list is a transaction, and so on."""
    operation = kv_pb2.Operation(put=kv_pb2.PutOperation(key=b"bad/deep", value=b"1")).SerializeToString()
    for _ in range(depth):
        # Operation.txn is field 4, TxnOperation.then_operations field 2: written by hand, as no encoder would.
        for tag in (b"\x12", b"\x22"):
            operation = tag + varint(len(operation)) + operation
    return b"\x12" + varint(len(operation)) + operation


def varint(number: int) -> bytes:
    """Return a protobuf varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


BAD_CALLS: Final = {
    "empty key": ("Put", kv_pb2.PutRequest(value=b"1").SerializeToString(), "KEY_EMPTY"),
    "long key": (
        "Get",
        kv_pb2.GetRequest(key=b"k" * (KEY_BYTES_MAX + 1)).SerializeToString(),
        "KEY_TOO_LONG",
    ),
    "huge key": ("Delete", kv_pb2.DeleteRequest(key=b"k" * support.MIB).SerializeToString(), "KEY_TOO_LONG"),
    "large value": (
        "Put",
        kv_pb2.PutRequest(key=b"bad/v", value=bytes(VALUE_BYTES_MAX + 1)).SerializeToString(),
        "VALUE_TOO_LARGE",
    ),
    "large request": ("Batch", PUT_TOO_MUCH.SerializeToString(), "REQUEST_TOO_LARGE"),
    "empty batch": ("Batch", b"", "INVALID_ARGUMENT"),
    "empty transaction": ("Txn", b"", "INVALID_ARGUMENT"),
    "no protobuf": ("Put", b"\xff" * 100, "INVALID_ARGUMENT"),
    "truncated protobuf": (
        "Put",
        kv_pb2.PutRequest(key=b"k" * 50).SerializeToString()[:-10],
        "INVALID_ARGUMENT",
    ),
    "key of another type": ("Put", b"\x08\x01", "KEY_EMPTY"),
    "unknown read level": ("Get", b"\x0a\x01a\x10\x63", "INVALID_ARGUMENT"),
    "a sequence without a session": (
        "Put",
        kv_pb2.PutRequest(
            key=b"bad/s", value=b"1", request_id=kv_pb2.RequestId(sequence=1)
        ).SerializeToString(),
        "INVALID_ARGUMENT",
    ),
    "a session that nobody opened": (
        "Put",
        kv_pb2.PutRequest(
            key=b"bad/s", value=b"1", request_id=kv_pb2.RequestId(session=1 << 60, sequence=1)
        ).SerializeToString(),
        "SESSION_EXPIRED",
    ),
    "a transaction in a transaction in a transaction": ("Txn", nested_txn(2), "INVALID_ARGUMENT"),
    "a deep transaction": ("Txn", nested_txn(20), "INVALID_ARGUMENT"),
    "a bottomless transaction": ("Txn", nested_txn(5000), "INVALID_ARGUMENT"),
    "a range without a partition": (
        "Batch",
        kv_pb2.BatchRequest(operations=[kv_pb2.Operation(range=kv_pb2.RangeOperation())]).SerializeToString(),
        "INVALID_ARGUMENT",
    ),
    "a scan that ends before it starts and has a prefix": (
        "Scan",
        kv_pb2.ScanRequest(prefix=b"a", start=b"b", end=b"a").SerializeToString(),
        "INVALID_ARGUMENT",
    ),
    "a hash of no partition": ("GetContentHash", b"\x08\xff\xff\xff\xff\x0f", "UNAVAILABLE"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_bad_calls_have_a_definite_error(cluster: LocalCluster, name: str) -> None:
    """A call that cannot succeed is refused for certain, with the reason that names what is wrong."""
    method, request, reason = BAD_CALLS[name]
    service = "ClusterService" if method == "GetContentHash" else "KVService"
    async with grpc.aio.insecure_channel(cluster.specs[NODE].address) as channel:
        with pytest.raises(KVError) as refused:
            await answer(channel, f"/kv.v1.{service}/{method}", request)
    assert (refused.value.reason, refused.value.definite) == (reason, True), refused.value


async def answer(channel: grpc.aio.Channel, path: str, request: bytes) -> list[bytes]:
    """Call a method with raw bytes and return what it answers: of an operation that failed in a batch, raise that."""
    if not path.endswith("Scan"):
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        reply = await support.call(unary(request, timeout=ANSWER_S))
        if path.endswith("Batch"):
            for result in kv_pb2.BatchResponse.FromString(reply).results:
                if result.HasField("error"):
                    raise from_proto(result.error)
        return [reply]

    stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)

    async def pages() -> list[bytes]:
        return [page async for page in stream(request, timeout=ANSWER_S)]

    return await support.call(pages())


async def test_a_message_beyond_the_limit_is_refused_unread(cluster: LocalCluster) -> None:
    """A message of several times the limit is refused by the transport, each time, without keeping it."""
    async with grpc.aio.insecure_channel(
        cluster.specs[NODE].address, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        put: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/kv.v1.KVService/Put")
        for _ in range(ROUNDS):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await put(bytes(8 * REQUEST_BYTES_MAX), timeout=ANSWER_S)
            assert refused.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)


async def test_unknown_fields_and_binary_keys_are_served(cluster: LocalCluster) -> None:
    """Fields of a newer client are ignored, and keys are bytes, whatever they spell."""
    key = b"bad/\xff\xfe\x00\x80"
    request = kv_pb2.PutRequest(key=key, value=b"\xff").SerializeToString() + b"\xfa\x3f\x03new"
    async with grpc.aio.insecure_channel(cluster.specs[NODE].address) as channel:
        await answer(channel, "/kv.v1.KVService/Put", request)
        (got,) = await answer(channel, "/kv.v1.KVService/Get", kv_pb2.GetRequest(key=key).SerializeToString())
        assert kv_pb2.GetResponse.FromString(got).item.value == b"\xff"
        with pytest.raises(KVError) as unknown:
            await answer(channel, "/kv.v1.KVService/Frobnicate", b"")
        assert unknown.value.reason == "UNIMPLEMENTED"


async def test_abandoned_streams(cluster: LocalCluster) -> None:
    """Pipelines and scans that are abandoned half way leave nothing behind that would refuse later ones."""
    put = kv_pb2.Operation(put=kv_pb2.PutOperation(key=b"bad/pipeline", value=bytes(1000)))
    batch = kv_pb2.BatchRequest(operations=[put])
    async with AsyncExitStack() as stack:
        stub = await stack.enter_async_context(support.stub_of(cluster.specs[NODE].address))
        for _ in range(STREAMS_ABANDONED):
            pipeline = stub.Pipeline()
            for number in range(3):
                pipelined = kv_pb2.PipelinedBatch(id=number, batch=batch)
                await pipeline.write(kv_pb2.PipelineRequest(batches=[pipelined]))
            scan = stub.Scan(kv_pb2.ScanRequest())
            await scan.read()
            pipeline.cancel()
            scan.cancel()

        async def scans() -> list[kv_pb2.ScanResponse]:
            return [
                page async for page in stub.Scan(kv_pb2.ScanRequest(prefix=b"bad/good"), timeout=ANSWER_S)
            ]

        (page,) = await support.until("scans are served", lambda: support.call(scans()))
        assert [item.key for item in page.items] == [b"bad/good"]


async def test_strangers_are_not_taken_for_peers(cluster: LocalCluster) -> None:
    """Who does not know the cluster is refused at the first message of a Forward stream."""
    hello = peer_pb2.Hello(cluster="another", node="n2", incarnation=1)
    first = peer_pb2.ForwardRequest(hello=hello).SerializeToString()
    async with grpc.aio.insecure_channel(cluster.specs[NODE].address) as channel:
        for said in (first, b"\xff" * 40, b""):
            with pytest.raises(grpc.aio.AioRpcError):
                await converse(channel, "/kv.internal.v1.PeerService/Forward", said)


async def test_strangers_get_nothing_from_the_raft_port(cluster: LocalCluster) -> None:
    """Who does not know the cluster, or claims to be a member with another disk, is refused and cut off; others go on."""
    hellos = (
        peer_pb2.Hello(cluster="another", node="n2", incarnation=1),
        peer_pb2.Hello(cluster="ringkv", node="stranger", incarnation=1),
        peer_pb2.Hello(cluster="ringkv", node=NODE, incarnation=1),
        peer_pb2.Hello(cluster="ringkv", node="n2", incarnation=1),
    )
    refused = [frame_of(peer_pb2.RaftFrame(hello=hello).SerializeToString()) for hello in hellos]
    for first in (*refused, frame_of(b"\xff" * 40), b"\xff" * 40):
        heard = await heard_from_raft(cluster.specs[NODE].raft_address, RAFT_PREFACE + first)
        answers = [peer_pb2.RaftFrame.FromString(raw) for raw in FrameReader(RAFT_PREFACE, 4096).feed(heard)]
        assert all(answer.refusal and not answer.HasField("hello") for answer in answers)
        assert bool(answers) == (first in refused)


async def heard_from_raft(address: str, said: bytes) -> bytes:
    """Say something on a new connection; what came until its end."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(said)
    heard = b""
    try:
        async with asyncio.timeout(ANSWER_S):
            while data := await reader.read(1 << 16):
                heard += data
    except ConnectionError:  # a reset ends it as well
        pass
    writer.close()
    return heard


async def converse(channel: grpc.aio.Channel, path: str, first: bytes) -> None:
    """Send a first message on a stream, and read a hello and what would follow it."""
    open_stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
    stream = open_stream(timeout=ANSWER_S)
    try:
        await stream.write(first)
        for _ in range(2):
            await stream.read()
    finally:
        stream.cancel()


async def test_http_requests_of_the_wrong_type(cluster: LocalCluster) -> None:
    """HTTP requests that make no sense are refused with 4xx and the shape of all errors."""
    url = f"http://{cluster.specs[NODE].http_address}"
    bodies = (
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"key": 1, "value": "1"}',
        b'{"key": "", "value": "1"}',
        b'{"key": "a", "value": {}}',
        b'{"key": "a", "value": "1", "if_revision": -1}',
        b'{"key": "a", "value": "1", "if_revision": 1e400}',
        b'{"key": "\\ud800", "value": "1"}',
        json.dumps({"key": "k" * 481, "value": "1"}).encode(),
        json.dumps({"key": "a", "value": "v" * (VALUE_BYTES_MAX + 1)}).encode(),
        b" " * (9 * support.MIB),
    )
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_S) as client:
        for body in bodies:
            reply = await client.post("/put", content=body)
            assert 400 <= reply.status_code < 500, (body[:50], reply.text)
            assert reply.json()["error"]["definite"] is True
        for target in ("/get", "/get?key=", "/get?key=a&key=b", "/get?kee=a", "/get?key=" + "k" * 481):
            reply = await client.get(target)
            assert 400 <= reply.status_code < 500, (target[:50], reply.text)
        assert (await client.get("/get?key=%ff%fe%00")).status_code < 500
        assert (await client.request("FROB", "/put")).status_code == 405


async def test_a_thousand_idle_connections(cluster: LocalCluster) -> None:
    """A thousand connections that say nothing, half of them begun, do not keep anybody from being served."""
    spec = cluster.specs[NODE]
    writers: list[asyncio.StreamWriter] = []
    try:
        for number in range(IDLE_CONNECTIONS):
            address = spec.address if number % 2 else spec.http_address
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writers.append(writer)
            if number % 4 == 1:
                writer.write(PREFACE + SETTINGS)
        await serves(cluster)
    finally:
        for writer in writers:
            writer.transport.abort()
