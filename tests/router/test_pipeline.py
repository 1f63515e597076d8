"""Pipeline streams of clients: order, bounds, bad input, and their ends."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from kv.errors import InvalidArgument, KVError, Overloaded, Unavailable, from_grpc
from kv.internal.v1 import pipeline_pb2
from kv.router.limits import PUBLIC_MESSAGE_BYTES_MAX, RouterConfig
from kv.router.pipeline import REPLIES_BYTES_MAX, REPLY_MESSAGE_BYTES_MAX, Pipeline
from kv.router.server import RouterServer
from kv.v1 import kv_pb2
from tests.router.conftest import MakeWorld, WireWorld
from tests.router.world import VirtualWorld, batch, get, put


def request(ticket: int, whole: kv_pb2.BatchRequest, **fields: int) -> kv_pb2.PipelineRequest:
    """Return a PipelineRequest with one batch."""
    return message(kv_pb2.PipelinedBatch(id=ticket, batch=whole, **fields))


def message(*batches: kv_pb2.PipelinedBatch) -> kv_pb2.PipelineRequest:
    """Return a PipelineRequest."""
    return kv_pb2.PipelineRequest(batches=batches)


async def read_all(call: Any) -> list[kv_pb2.PipelinedReply]:  # noqa: ANN401 - the call types differ by version
    """Read one message of replies; fails if the stream has ended."""
    async with asyncio.timeout(5):
        response = await call.read()
    if isinstance(response, bytes):
        response = kv_pb2.PipelineResponse.FromString(response)
    assert isinstance(response, kv_pb2.PipelineResponse)
    return list(response.replies)


async def read(call: Any) -> kv_pb2.PipelinedReply:  # noqa: ANN401 - the stub's call types differ by version
    """Read a message that has one reply, and return that."""
    [reply] = await read_all(call)
    return reply


async def read_many(call: Any, count: int) -> list[kv_pb2.PipelinedReply]:  # noqa: ANN401 - as above
    """Read so many replies, in whatever messages they come."""
    replies: list[kv_pb2.PipelinedReply] = []
    while len(replies) < count:
        replies += await read_all(call)
    assert len(replies) == count
    return replies


def taken_out(pipeline: Pipeline) -> list[int]:
    """Take a message out and return the ids that it answers."""
    raw = pipeline.take_out()
    return [] if raw is None else [reply.id for reply in kv_pb2.PipelineResponse.FromString(raw).replies]


async def end_of(call: Any) -> KVError:  # noqa: ANN401 - the stub's call types differ by version
    """Read until the stream ends with an error, and return that."""
    try:
        async with asyncio.timeout(5):
            while isinstance(await call.read(), kv_pb2.PipelineResponse | bytes):
                pass
    except grpc.aio.AioRpcError as error:
        trailing = tuple(error.trailing_metadata() or ())
        return from_grpc(error.code().value[0], error.details(), trailing, sent=True)
    raise AssertionError("the stream ended well")


async def streams_left(service: RouterServer, count: int) -> None:
    """Wait until no more than `count` streams are open at the server."""
    async with asyncio.timeout(5):
        while service.pipelines > count:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.005)


def raw_stream(world: WireWorld, node: str) -> Any:  # noqa: ANN401 - a call of bytes
    """Open a Pipeline stream on which anything can be sent."""
    return world.channels[node].stream_stream("/kv.v1.KVService/Pipeline")()


def test_the_raw_messages_are_the_public_ones_on_the_wire() -> None:
    """What passes through as bytes is the same message to a client with the public types."""
    whole = batch(put(b"k", b"v"))
    public = request(7, whole, partition=3, timeout_ms=9)
    [raw] = pipeline_pb2.RawPipelineRequest.FromString(public.SerializeToString()).batches
    assert (raw.id, raw.batch, raw.partition, raw.timeout_ms) == (7, whole.SerializeToString(), 3, 9)
    response = pipeline_pb2.RawPipelineResponse()
    response.replies.add(id=7, batch=kv_pb2.BatchResponse().SerializeToString())
    response.replies.add(id=8, error=kv_pb2.Error(reason="X"))
    good, bad = kv_pb2.PipelineResponse.FromString(response.SerializeToString()).replies
    assert good == kv_pb2.PipelinedReply(id=7, batch=kv_pb2.BatchResponse())
    assert bad == kv_pb2.PipelinedReply(id=8, error=kv_pb2.Error(reason="X"))


async def test_a_response_is_in_flight_until_it_was_written() -> None:
    """Taking a response is not the end of it: only the next call says that it reached the wire."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    outcomes: list[str] = []
    pipeline = Pipeline(world.routers["n1"], outcomes.append)
    one, two = (kv_pb2.PipelinedBatch(id=ticket, batch=batch(get(b"k")), partition=1) for ticket in (1, 2))
    pipeline.take_in(message(one, two).SerializeToString())
    assert taken_out(pipeline) == [1, 2]
    assert pipeline.in_flight == 2
    assert taken_out(pipeline) == []
    assert pipeline.in_flight == 0
    assert outcomes == ["OK", "OK"]
    pipeline.close()


async def test_replies_are_joined_up_to_a_limit() -> None:
    """What is ready travels together up to REPLY_MESSAGE_BYTES_MAX; a larger reply travels alone, in its place."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    pipeline = Pipeline(world.routers["n1"], lambda _outcome: None)
    put_half = batch(put(b"half", b"x" * (REPLY_MESSAGE_BYTES_MAX // 2 - 1000)))
    half, more_than_whole, none = batch(get(b"half")), batch(*[get(b"half")] * 3), batch(get(b"none"))
    order = (put_half, half, half, half, more_than_whole, half, none, none)
    batches = [kv_pb2.PipelinedBatch(id=n, batch=whole, partition=1) for n, whole in enumerate(order)]
    pipeline.take_in(message(*batches).SerializeToString())
    assert [taken_out(pipeline) for _ in range(5)] == [[0, 1, 2], [3], [4], [5, 6, 7], []]
    pipeline.close()


async def test_a_message_above_the_bound_waits_inside() -> None:
    """Of a message with more batches than may be in flight the rest starts as replies are written, none is lost."""
    world = VirtualWorld(partitions=1, config=RouterConfig(pipeline_in_flight_max=3))
    world.lead("n1")
    group = world.groups[1]
    group.hold_replies = True
    pipeline = Pipeline(world.routers["n1"], lambda _outcome: None)
    reads = [kv_pb2.PipelinedBatch(id=n, batch=batch(get(b"k")), partition=1) for n in range(8)]
    pipeline.take_in(message(*reads).SerializeToString())
    assert (len(group.held), pipeline.in_flight, pipeline.may_read) == (3, 8, False)
    group.hold_replies = False
    group.release()
    assert (len(group.held), pipeline.in_flight) == (0, 8), "a reply is in flight until it was written"
    assert [taken_out(pipeline) for _ in range(4)] == [[0, 1, 2], [3, 4, 5], [6, 7], []]
    assert (pipeline.in_flight, pipeline.may_read) == (0, True)
    pipeline.close()


async def test_what_did_not_start_is_dropped_with_the_stream() -> None:
    """When the client goes away nothing more of its message is started."""
    world = VirtualWorld(partitions=1, config=RouterConfig(pipeline_in_flight_max=1))
    world.lead("n1")
    group = world.groups[1]
    group.hold_replies = True
    pipeline = Pipeline(world.routers["n1"], lambda _outcome: None)
    writes = [kv_pb2.PipelinedBatch(id=n, batch=batch(put(b"k")), partition=1) for n in range(3)]
    pipeline.take_in(message(*writes).SerializeToString())
    pipeline.close()
    group.hold_replies = False
    group.release()
    assert taken_out(pipeline) == []
    assert group.writes_applied == 1


async def test_a_client_that_reads_slowly_is_not_read() -> None:
    """While too many bytes of replies wait, no more batches are taken in, nor started of those that came."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    outcomes: list[str] = []
    pipeline = Pipeline(world.routers["n1"], outcomes.append)
    pipeline.take_in(request(0, batch(put(b"k", b"x" * 1_000_000)), partition=1).SerializeToString())
    fits = REPLIES_BYTES_MAX // 1_000_000 + 1
    reads = [kv_pb2.PipelinedBatch(id=n, batch=batch(get(b"k")), partition=1) for n in range(1, fits + 3)]
    for single in reads[: fits - 1]:
        pipeline.take_in(message(single).SerializeToString())
        assert pipeline.may_read
    pipeline.take_in(message(*reads[fits - 1 :]).SerializeToString())
    assert (pipeline.may_read, len(outcomes)) == (False, 1 + fits)
    assert taken_out(pipeline) == [0, 1]
    assert (pipeline.may_read, len(outcomes)) == (False, 1 + fits)
    assert taken_out(pipeline) == [2]
    assert (pipeline.may_read, len(outcomes)) == (False, 2 + fits)
    pipeline.close()


async def test_batches_are_answered_by_id_with_and_without_a_partition(wire_world: MakeWorld) -> None:
    """A batch for a named partition, one to be routed and one to be split share a stream."""
    world = await wire_world(partitions=4)
    call = world.stub("n1").Pipeline()
    await call.write(request(1, batch(put(b"a")), partition=world.ring.partition_of(b"a")))
    await call.write(request(2, batch(put(b"b"), put(b"c"), put(b"d"), put(b"e"))))
    answers = {answer.id: answer for answer in await read_many(call, 2)}
    assert answers[1].batch.results[0].put.version == 1
    assert [result.put.version for result in answers[2].batch.results] == [1] * 4
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_responses_come_as_they_become_ready(wire_world: MakeWorld) -> None:
    """A request that waits does not hold up one that came after it."""
    world = await wire_world(partitions=4)
    slow = world.group_of(b"a")
    other = next(key for key in (b"b", b"c", b"d", b"e", b"f") if world.group_of(key) is not slow)
    slow.hold_replies = True
    call = world.stub("n1").Pipeline()
    await call.write(request(1, batch(get(b"a"))))
    await call.write(request(2, batch(get(other))))
    assert (await read(call)).id == 2
    slow.hold_replies = False
    slow.release()
    assert (await read(call)).id == 1


async def test_half_close_waits_for_the_answers(wire_world: MakeWorld) -> None:
    """A client that has said all it wants still gets every response."""
    world = await wire_world(partitions=4)
    call = world.stub("n2").Pipeline()
    for number in range(50):
        await call.write(request(number + 1, batch(put(b"k%d" % number))))
    await call.done_writing()
    ids = [answer.id for answer in await read_many(call, 50)]
    assert sorted(ids) == list(range(1, 51))
    assert await call.read() is grpc.aio.EOF


async def test_an_error_of_one_request_leaves_the_stream_alive(wire_world: MakeWorld) -> None:
    """A bad batch, a wrong partition and an unknown one are answers; the next request is served."""
    world = await wire_world(partitions=4)
    call = world.stub("n1").Pipeline()
    wrong = next(p.id for p in world.map.partitions if p.id != world.ring.partition_of(b"a"))
    cases = [
        (request(1, batch()), "INVALID_ARGUMENT"),
        (request(2, batch(put(b"a")), partition=wrong), "WRONG_PARTITION"),
        (request(3, batch(put(b"a")), partition=99), "WRONG_PARTITION"),
        (request(4, batch(get(b"a"), level=77)), "INVALID_ARGUMENT"),
    ]
    for sent, reason in cases:
        await call.write(sent)
        answer = await read(call)
        assert (answer.id, answer.error.reason, answer.error.definite) == (sent.batches[0].id, reason, True)
    good = kv_pb2.PipelinedBatch(id=5, batch=batch(put(b"a")))
    await call.write(message(*(sent.batches[0] for sent, _ in cases), good))
    answers = {answer.id: answer for answer in await read_many(call, 5)}
    assert answers.pop(5).batch.results[0].put.version == 1
    assert [answers[n + 1].error.reason for n in range(4)] == [reason for _, reason in cases]


async def test_a_batch_that_does_not_parse_is_an_answer(wire_world: MakeWorld) -> None:
    """Garbage inside a request names its request, routed or passed through."""
    world = await wire_world(partitions=1)
    world.lead("n1")
    call = raw_stream(world, "n1")
    for partition in (0, 1):
        garbage = pipeline_pb2.RawPipelinedBatch(id=8, batch=b"\xff\xff\xff", partition=partition)
        await call.write(pipeline_pb2.RawPipelineRequest(batches=[garbage]).SerializeToString())
        answer = await read(call)
        assert (answer.id, answer.error.reason) == (8, "INVALID_ARGUMENT")
    call.cancel()


async def test_a_message_that_does_not_parse_ends_its_stream_only(wire_world: MakeWorld) -> None:
    """Garbage without an id ends the stream with INVALID_ARGUMENT; the node serves on."""
    world = await wire_world(partitions=1)
    call = raw_stream(world, "n1")
    await call.write(b"\xff\xff\xff\xff")
    assert isinstance(await end_of(call), InvalidArgument)
    assert (await world.stub("n1").Put(kv_pb2.PutRequest(key=b"k"), timeout=5)).version == 1


async def test_a_message_above_the_limit_ends_its_stream_with_the_reason(wire_world: MakeWorld) -> None:
    """The public limit holds although peers may send more over the same port."""
    world = await wire_world(partitions=1)
    call = raw_stream(world, "n1")
    await call.write(b"\0" * (PUBLIC_MESSAGE_BYTES_MAX + 1))
    error = await end_of(call)
    assert error.reason == "REQUEST_TOO_LARGE"


async def test_a_timeout_of_a_request_is_its_own(wire_world: MakeWorld) -> None:
    """timeout_ms bounds one request; another on the same stream lives on."""
    world = await wire_world(partitions=1)
    world.lead("n1")
    world.groups[1].hold_replies = True
    call = world.stub("n1").Pipeline()
    await call.write(request(1, batch(get(b"k")), timeout_ms=50))
    await call.write(request(2, batch(get(b"k"))))
    answer = await read(call)
    assert (answer.id, answer.error.reason, answer.error.definite) == (1, "DEADLINE_EXCEEDED", True)
    world.groups[1].hold_replies = False
    world.groups[1].release()
    assert (await read(call)).id == 2


async def test_a_stream_with_too_many_requests_in_flight_is_not_read(wire_world: MakeWorld) -> None:
    """At pipeline_in_flight_max the node stops reading; an answer lets it go on."""
    world = await wire_world(partitions=1, config=RouterConfig(pipeline_in_flight_max=3))
    world.lead("n1")
    [group] = world.groups.values()
    group.hold_replies = True
    call = world.stub("n1").Pipeline()
    for number in range(10):
        await call.write(request(number + 1, batch(get(b"k"))))
    await group.holding(3)
    await asyncio.sleep(0.05)  # time in which a fourth would arrive
    assert len(group.held) == 3
    group.hold_replies = False
    group.release()
    assert sorted(answer.id for answer in await read_many(call, 10)) == list(range(1, 11))


async def test_an_abandoned_stream_leaves_nothing_behind(wire_world: MakeWorld) -> None:
    """A client that goes away with requests in flight frees its stream; late replies are dropped."""
    world = await wire_world(partitions=1)
    world.lead("n1")
    [group] = world.groups.values()
    group.hold_replies = True
    service = world.nodes["n1"].service
    call = world.stub("n1").Pipeline()
    await call.write(request(1, batch(put(b"k")), partition=1))
    await group.holding(1)
    assert service.pipelines == 1
    call.cancel()
    await streams_left(service, 0)
    group.hold_replies = False
    group.release()
    assert world.nodes["n1"].router.in_flight == 0


async def test_streams_beyond_the_limit_are_refused_with_a_reason(wire_world: MakeWorld) -> None:
    """A thousand idle streams cost no more than the limit allows, and unary calls go on."""
    world = await wire_world(partitions=1, config=RouterConfig(streams_max=20))
    stub = world.stub("n1")
    kept = [stub.Pipeline() for _ in range(20)]
    for number, call in enumerate(kept):
        await call.write(request(number + 1, batch(get(b"k"))))
        await read(call)
    refused = [stub.Pipeline() for _ in range(200)]
    errors = await asyncio.gather(*(end_of(call) for call in refused))
    assert all(isinstance(error, Overloaded) and error.definite for error in errors)
    assert (await stub.Put(kv_pb2.PutRequest(key=b"k"), timeout=5)).version == 1
    kept.pop().cancel()
    await streams_left(world.nodes["n1"].service, 19)
    again = stub.Pipeline()
    await again.write(request(1, batch(get(b"k"))))
    assert (await read(again)).id == 1


async def test_an_idle_stream_is_closed_and_a_busy_one_is_not(wire_world: MakeWorld) -> None:
    """A stream on which nothing happens for idle_stream_s ends with UNAVAILABLE; one with work stays."""
    config = RouterConfig(idle_stream_s=0.1, health_interval_ms=20)
    world = await wire_world(partitions=1, config=config)
    world.lead("n1")
    world.groups[1].hold_replies = True
    idle, busy = world.stub("n1").Pipeline(), world.stub("n1").Pipeline()
    await busy.write(request(1, batch(get(b"k"))))
    await idle.wait_for_connection()
    assert isinstance(await end_of(idle), Unavailable)
    world.groups[1].hold_replies = False
    world.groups[1].release()
    assert (await read(busy)).id == 1
