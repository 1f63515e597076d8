"""The direct way of a real node: who is let in, and what a stream's bounds and errors are on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, TypeAlias

import grpc
import grpc.aio
import httpx

from kv.cli.cluster_process import LocalCluster
from kv.client import AsyncClient
from kv.direct import PREFACE, Offer, read_offer
from kv.frames import EMPTY, HEADER, FrameReader, frame_of
from kv.router.direct import STRANGERS_MAX
from kv.router.limits import PUBLIC_MESSAGE_BYTES_MAX
from kv.v1 import kv_pb2
from tests.integration import support

NODE: Final = "n1"
HOST: Final = "127.0.0.1"
ANSWER_S: Final = 30.0
LARGE_READS: Final = 20
LARGE_ROUNDS: Final = 4
"""80 MiB of replies: more than all buffers on the way hold."""
PipelineCall: TypeAlias = "grpc.aio.StreamStreamCall[kv_pb2.PipelineRequest, kv_pb2.PipelineResponse]"
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@asynccontextmanager
async def offered(cluster: LocalCluster) -> AsyncIterator[tuple[Offer, PipelineCall]]:
    """Open a Pipeline stream and return what it offers."""
    async with support.stub_of(cluster.specs[NODE].address) as stub:
        call = stub.Pipeline()
        async with asyncio.timeout(ANSWER_S):
            offer = read_offer(await call.initial_metadata())
        assert offer is not None
        yield offer, call
        call.cancel()


@asynccontextmanager
async def said(port: int, first: bytes) -> AsyncIterator[tuple[Reader, Writer]]:
    """Connect and say something."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(first)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):  # the node may have closed it already
            await writer.wait_closed()


def greeting(token: bytes) -> bytes:
    """Return what a client says first."""
    return PREFACE + frame_of(token)


@asynccontextmanager
async def let_in(offer: Offer) -> AsyncIterator[tuple[Reader, Writer]]:
    """Connect, and be let in."""
    async with said(offer.port, greeting(offer.token)) as (reader, writer):
        async with asyncio.timeout(ANSWER_S):
            assert await reader.readexactly(len(PREFACE + EMPTY)) == PREFACE + EMPTY
        yield reader, writer


async def ended(reader: Reader) -> bytes:
    """Return what still came until the node closed the connection."""
    async with asyncio.timeout(ANSWER_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


def request(*keys: bytes, value_bytes: int = 0) -> bytes:
    """Return a message with a batch for each key: a put of so many bytes, or a get."""
    message = kv_pb2.PipelineRequest()
    for number, key in enumerate(keys, start=1):
        operation = message.batches.add(id=number).batch.operations.add()
        if value_bytes:
            operation.put.key = key
            operation.put.value = bytes(value_bytes)
        else:
            operation.get.key = key
    return message.SerializeToString()


async def replies(reader: Reader, count: int) -> list[kv_pb2.PipelinedReply]:
    """Read so many replies."""
    frames = FrameReader(b"", 32 << 20)
    read: list[kv_pb2.PipelinedReply] = []
    async with asyncio.timeout(ANSWER_S):
        while len(read) < count:
            for payload in frames.feed(await reader.read(1 << 16)):
                read.extend(kv_pb2.PipelineResponse.FromString(payload).replies)
    return read


async def direct_streams(cluster: LocalCluster, node: str) -> float:
    """Return how many streams of a node go directly, as its metrics say."""
    http = cluster.specs[node].http_address
    async with httpx.AsyncClient(base_url=f"http://{http}") as client:
        text = (await client.get("/metrics")).text
    [value] = [line.split()[1] for line in text.splitlines() if line.startswith("kv_direct_streams ")]
    return float(value)


async def test_a_stream_goes_on_directly(cluster: LocalCluster) -> None:
    """After the token requests and replies take the connection; what goes over gRPC is answered there too."""
    async with offered(cluster) as (offer, call), let_in(offer) as (reader, writer):
        writer.write(frame_of(request(b"direct/a", b"direct/b", value_bytes=5)))
        assert {reply.id for reply in await replies(reader, 2)} == {1, 2}
        await call.write(kv_pb2.PipelineRequest.FromString(request(b"direct/a")))
        [reply] = await replies(reader, 1)
        assert reply.batch.results[0].get.item.value == bytes(5)


async def test_the_client_takes_it_up(cluster: LocalCluster) -> None:
    """The client's streams go that way by themselves, and the node says so in its metrics."""
    async with AsyncClient.from_url(cluster.url) as client:
        for number in range(20):
            await client.put(b"direct/%d" % number, b"v")

        async def direct() -> bool | None:
            counts = [await direct_streams(cluster, node) for node in cluster.specs]
            return True if any(counts) else None

        await support.until("a stream goes directly", direct)
        assert (await client.put(b"direct/1", b"w")).version == 2


async def test_a_token_is_good_once_and_for_an_open_stream(cluster: LocalCluster) -> None:
    """No token, a wrong one, a used one, one of a stream that has ended: the connection is closed without a word."""
    async with offered(cluster) as (offer, _), let_in(offer):
        bad = [greeting(token) for token in (offer.token, bytes(len(offer.token)), b"")]
        bad += [b"GET / HTTP/1.1\r\n", PREFACE + HEADER.pack(1 << 30, 0), PREFACE + HEADER.pack(1, 1) + b"x"]
        for first in bad:
            async with said(offer.port, first) as (reader, _):
                assert await ended(reader) == b""
    async with offered(cluster) as (unused, _):
        pass

    async def forgotten() -> bool | None:  # the node learns of the end of a stream a moment later
        async with said(unused.port, greeting(unused.token)) as (reader, _):
            return True if await ended(reader) == b"" else None

    await support.until("the offer of a stream that has ended is void", forgotten)


async def test_both_ends_are_one(cluster: LocalCluster) -> None:
    """The end of the stream closes the connection, and the end of the connection ends the stream with a reason."""
    async with offered(cluster) as (offer, call), let_in(offer) as (reader, _):
        call.cancel()
        assert await ended(reader) == b""
    async with offered(cluster) as (offer, call):
        async with let_in(offer):
            pass
        async with asyncio.timeout(ANSWER_S):
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert "direct connection ended" in (await call.details() or "")


async def test_what_ends_a_stream_is_told_on_the_stream(cluster: LocalCluster) -> None:
    """A message that does not parse, or is too large, ends both; gRPC carries the reason."""
    for bad, code in (
        (frame_of(b"\xff" * 40), grpc.StatusCode.INVALID_ARGUMENT),
        (HEADER.pack(PUBLIC_MESSAGE_BYTES_MAX + 1, 0), grpc.StatusCode.UNAVAILABLE),
    ):
        async with offered(cluster) as (offer, call), let_in(offer) as (reader, writer):
            writer.write(bad)
            async with asyncio.timeout(ANSWER_S):
                assert await call.code() is code
            assert await ended(reader) == b""


async def test_strangers_are_bounded(cluster: LocalCluster) -> None:
    """Connections that say nothing are closed after a while, and more than so many at once; then others get in."""
    async with offered(cluster) as (offer, _):
        async with AsyncExitStack() as stack:
            silent = [
                await stack.enter_async_context(said(offer.port, b"")) for _ in range(STRANGERS_MAX + 10)
            ]
            assert await asyncio.gather(*(ended(reader) for reader, _ in silent)) == [b""] * len(silent)
        async with let_in(offer):
            pass


async def test_a_client_that_reads_slowly_is_not_read(cluster: LocalCluster) -> None:
    """While the replies of one connection wait, its requests wait too; others go on, and nothing is lost."""
    async with offered(cluster) as (offer, _), let_in(offer) as (reader, writer):
        writer.write(frame_of(request(b"direct/large", value_bytes=1 << 20)))
        await replies(reader, 1)
        message = frame_of(request(*[b"direct/large"] * LARGE_READS))
        for _ in range(LARGE_ROUNDS):
            writer.write(message)
        async with AsyncClient.from_url(cluster.url) as client:
            for number in range(20):
                await client.put(b"direct/other", b"%d" % number)
        answers = await replies(reader, LARGE_READS * LARGE_ROUNDS)
        assert sorted(reply.id for reply in answers) == sorted([*range(1, LARGE_READS + 1)] * LARGE_ROUNDS)
        assert all(len(reply.batch.results[0].get.item.value) == 1 << 20 for reply in answers)


def test_a_closed_client_leaves_nothing_to_the_next_loop(cluster: LocalCluster) -> None:
    """One process may run loop after loop: what gRPC still had to say to a closed one is no error of the next."""
    errors: list[dict[str, object]] = []

    async def use() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        clients = [AsyncClient.from_url(cluster.url) for _ in range(8)]
        for client in clients:
            await asyncio.gather(*(client.put(b"direct/%d" % number, b"v") for number in range(20)))
        await asyncio.gather(*(client.close() for client in clients))

    for _ in range(12):
        asyncio.run(use())
    assert not errors
