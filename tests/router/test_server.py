"""The public gRPC API: each call, its errors as status and ErrorInfo, health, reflection, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kv.errors import (
    Conflict,
    CrossPartition,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    KeyEmpty,
    KeyTooLong,
    KVError,
    NoLeader,
    NotAnInteger,
    OutcomeDecided,
    Overloaded,
    RequestTooLarge,
    ValueTooLarge,
    WrongPartition,
    from_grpc,
)
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX
from kv.outcome import OutcomeToken
from kv.router.limits import PUBLIC_MESSAGE_BYTES_MAX, RouterConfig
from kv.v1 import cluster_pb2, kv_pb2
from tests.router.conftest import MakeWorld
from tests.router.world import batch, get, keys_of_distinct_partitions, put


async def error_of(call: Awaitable[object]) -> KVError:
    """Return the error with which a call ends, from its status."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        trailing = tuple(error.trailing_metadata() or ())
        found = from_grpc(error.code().value[0], error.details(), trailing, sent=True)
        if error.code().value[0] != found.grpc_status:
            raise AssertionError(f"{found!r} came with the status {error.code()}") from error
        return found
    raise AssertionError("the call succeeded")


async def test_each_unary_call_does_what_it_says(wire_world: MakeWorld) -> None:
    """Put, get, conditional put, transaction and delete over one key, from a node that does not lead it."""
    world = await wire_world(partitions=2)
    world.lead("n2")
    stub = world.stub("n1")
    created = await stub.Put(kv_pb2.PutRequest(key=b"k", value=b"1"), timeout=5)
    assert (created.version, created.evidence.node) == (1, "n2")
    item = (await stub.Get(kv_pb2.GetRequest(key=b"k"), timeout=5)).item
    assert (item.value, item.create_revision, item.version) == (b"1", created.revision, 1)
    condition = kv_pb2.Condition(revision=created.revision)
    again = await stub.Put(kv_pb2.PutRequest(key=b"k", value=b"2", condition=condition), timeout=5)
    assert again.version == 2
    txn = await stub.Txn(
        kv_pb2.TxnRequest(
            compare=[kv_pb2.Compare(key=b"k", value=b"2")], then_operations=[get(b"k"), put(b"k", b"3")]
        ),
        timeout=5,
    )
    assert txn.succeeded
    assert txn.results[0].get.item.value == b"2"
    gone = await stub.Delete(kv_pb2.DeleteRequest(key=b"k"), timeout=5)
    assert gone.deleted
    missing = await stub.Get(kv_pb2.GetRequest(key=b"k"), timeout=5)
    assert not missing.HasField("item")
    assert missing.evidence.partition == world.ring.partition_of(b"k")


async def test_atomic_operations_and_previous_values(wire_world: MakeWorld) -> None:
    """Increment, append, and what a put and a delete found there before."""
    world = await wire_world(partitions=2)
    world.lead("n2")
    stub = world.stub("n1")
    first = await stub.Increment(kv_pb2.IncrementRequest(key=b"n", delta=5), timeout=5)
    again = await stub.Increment(kv_pb2.IncrementRequest(key=b"n", delta=-7), timeout=5)
    assert (first.value, again.value, again.version) == (5, -2, 2)
    longer = await stub.Append(kv_pb2.AppendRequest(key=b"n", value=b"x"), timeout=5)
    assert (longer.length, longer.version) == (3, 3)
    error = await error_of(stub.Increment(kv_pb2.IncrementRequest(key=b"n", delta=1), timeout=5))
    assert isinstance(error, NotAnInteger)
    old = await stub.Put(kv_pb2.PutRequest(key=b"n", value=b"new", return_previous=True), timeout=5)
    assert old.previous.value == b"-2x"
    gone = await stub.Delete(kv_pb2.DeleteRequest(key=b"n", return_previous=True), timeout=5)
    assert gone.previous.value == b"new"
    none = await stub.Put(kv_pb2.PutRequest(key=b"n", return_previous=True), timeout=5)
    assert not none.HasField("previous")
    absent = kv_pb2.Condition(absent=True)
    for call in (
        stub.Increment(kv_pb2.IncrementRequest(key=b"n", delta=1, condition=absent), timeout=5),
        stub.Append(kv_pb2.AppendRequest(key=b"n", value=b"1", condition=absent), timeout=5),
    ):
        assert isinstance(await error_of(call), Conflict)
    assert none.evidence.node == "n2"


async def test_a_get_takes_a_level_and_says_what_was_honoured(wire_world: MakeWorld) -> None:
    """The options reach the replica; QUORUM and ALL tell what each replica said."""
    world = await wire_world(nodes=3, partitions=1, replication_factor=3)
    world.lead("n2")
    stub = world.stub("n1")
    await stub.Put(kv_pb2.PutRequest(key=b"k", value=b"1"), timeout=5)
    level = kv_pb2.READ_LEVEL_LINEARIZABLE
    local = kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LOCAL)
    here = await stub.Get(kv_pb2.GetRequest(key=b"k", level=level, read=local), timeout=5)
    assert (here.item.value, here.evidence.node, len(here.answers)) == (b"1", "n1", 0)
    everyone = await stub.Get(kv_pb2.GetRequest(key=b"k", level=kv_pb2.READ_LEVEL_ALL), timeout=5)
    assert sorted(proof.node for proof in everyone.answers) == ["n1", "n2", "n3"]
    assert everyone.evidence == everyone.answers[0]
    bounded = kv_pb2.GetRequest(
        key=b"k", level=kv_pb2.READ_LEVEL_BOUNDED, read=kv_pb2.ReadOptions(max_age_ms=50)
    )
    assert (await stub.Get(bounded, timeout=5)).evidence.level == kv_pb2.READ_LEVEL_BOUNDED


async def test_write_levels_reach_the_partition(wire_world: MakeWorld) -> None:
    """Each writing call hands on its level and how long to wait for it."""
    world = await wire_world(partitions=1)
    world.lead("n1")
    stub = world.stub("n1")
    level: dict[str, Any] = {"write_level": kv_pb2.WRITE_LEVEL_ALL, "all_timeout_ms": 77}
    await stub.Put(kv_pb2.PutRequest(key=b"k", **level), timeout=5)
    await stub.Delete(kv_pb2.DeleteRequest(key=b"k", **level), timeout=5)
    await stub.Increment(kv_pb2.IncrementRequest(key=b"k", **level), timeout=5)
    await stub.Append(kv_pb2.AppendRequest(key=b"k", **level), timeout=5)
    await stub.Txn(kv_pb2.TxnRequest(then_operations=[put(b"k")], **level), timeout=5)
    sent = [kv_pb2.BatchRequest.FromString(raw) for _, raw in world.groups[1].submitted]
    writes = [each for each in sent if not each.operations[0].HasField("open_session")]
    assert len(writes) == 5
    assert all((w.write_level, w.all_timeout_ms) == (kv_pb2.WRITE_LEVEL_ALL, 77) for w in writes)


async def test_the_outcome_of_a_lost_write_is_told_by_any_node(wire_world: MakeWorld) -> None:
    """The token of the error, given to another node, finds the write applied with its result, again and again."""
    world = await wire_world(partitions=1)
    world.lead("n1")
    group = world.groups[1]
    await world.stub("n1").Put(kv_pb2.PutRequest(key=b"warm"), timeout=5)
    group.hold_replies = True
    error = await error_of(world.stub("n1").Put(kv_pb2.PutRequest(key=b"k", value=b"1"), timeout=0.3))
    assert isinstance(error, DeadlineExceeded)
    assert error.token
    group.hold_replies = False
    group.release()
    for node in ("n2", "n1"):
        told = await world.stub(node).Outcome(kv_pb2.OutcomeRequest(token=error.token), timeout=5)
        assert told.outcome == kv_pb2.WRITE_OUTCOME_APPLIED
        [result] = told.results
        assert result.put.version == 1
        assert told.evidence.node == "n1"


async def test_a_write_that_was_not_applied_is_fenced_by_the_question(wire_world: MakeWorld) -> None:
    """NOT_APPLIED is for good: the late copy of the write is refused as OUTCOME_DECIDED."""
    world = await wire_world(partitions=1)
    world.lead("n1")
    stub = world.stub("n1")
    opened = kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation())
    raw = world.groups[1].apply(batch(opened).SerializeToString(), "n1", 1)
    assert isinstance(raw, bytes)
    session = kv_pb2.BatchResponse.FromString(raw).results[0].open_session.session
    asked = kv_pb2.OutcomeRequest(token=str(OutcomeToken(1, session, 4)))
    for _ in range(2):
        assert (await stub.Outcome(asked, timeout=5)).outcome == kv_pb2.WRITE_OUTCOME_NOT_APPLIED
    late = kv_pb2.PutRequest(key=b"k", request_id=kv_pb2.RequestId(session=session, sequence=4))
    assert isinstance(await error_of(stub.Put(late, timeout=5)), OutcomeDecided)
    assert not world.groups[1].state
    forgotten = kv_pb2.OutcomeRequest(token=str(OutcomeToken(1, 999_999, 1)))
    assert (await stub.Outcome(forgotten, timeout=5)).outcome == kv_pb2.WRITE_OUTCOME_UNKNOWN


async def test_a_batch_over_all_partitions_keeps_its_order(wire_world: MakeWorld) -> None:
    """Results stand where their operations stood, and an operation's error is its own."""
    world = await wire_world(partitions=4)
    keys = keys_of_distinct_partitions(world.ring, 4)
    operations = [*(put(key, key) for key in keys), put(b""), *(get(key) for key in keys)]
    response = await world.stub("n1").Batch(batch(*operations), timeout=5)
    assert [r.put.version for r in response.results[:4]] == [1] * 4
    assert response.results[4].error.reason == "KEY_EMPTY"
    assert [r.get.item.value for r in response.results[5:]] == keys
    assert len(response.evidence) == 4 or len(response.evidence) == 5


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (kv_pb2.PutRequest(key=b""), KeyEmpty),
        (kv_pb2.PutRequest(key=b"k" * (KEY_BYTES_MAX + 1)), KeyTooLong),
        (kv_pb2.PutRequest(key=b"k", value=b"x" * (VALUE_BYTES_MAX + 1)), ValueTooLarge),
        (kv_pb2.PutRequest(key=b"k", value=b"x" * (PUBLIC_MESSAGE_BYTES_MAX + 1)), RequestTooLarge),
        (kv_pb2.PutRequest(key=b"k", condition=kv_pb2.Condition()), InvalidArgument),
        (kv_pb2.PutRequest(key=b"k", condition=kv_pb2.Condition(present=True)), Conflict),
        (kv_pb2.PutRequest(key=b"k", request_id=kv_pb2.RequestId(sequence=1)), InvalidArgument),
        (kv_pb2.GetRequest(key=b""), KeyEmpty),
        (kv_pb2.GetRequest(key=b"k", level=42), InvalidArgument),  # type: ignore[arg-type]
        (kv_pb2.DeleteRequest(key=b""), KeyEmpty),
        (kv_pb2.TxnRequest(), InvalidArgument),
        (kv_pb2.TxnRequest(then_operations=[put(b"k")], write_level=9), InvalidArgument),  # type: ignore[arg-type]
        (kv_pb2.BatchRequest(), InvalidArgument),
        (kv_pb2.GetRequest(key=b"k", level=kv_pb2.READ_LEVEL_BOUNDED), InvalidArgument),
        (
            kv_pb2.GetRequest(key=b"k", level=kv_pb2.READ_LEVEL_QUORUM, read=kv_pb2.ReadOptions(replicas=9)),
            InvalidArgument,
        ),
        (kv_pb2.IncrementRequest(key=b""), KeyEmpty),
        (kv_pb2.AppendRequest(key=b"k" * (KEY_BYTES_MAX + 1)), KeyTooLong),
        (kv_pb2.AppendRequest(key=b"k", value=b"x" * (VALUE_BYTES_MAX + 1)), ValueTooLarge),
        (kv_pb2.OutcomeRequest(), InvalidArgument),
        (kv_pb2.OutcomeRequest(token="w1-0-1-1-0-0"), InvalidArgument),
        (kv_pb2.OutcomeRequest(token="w1-99-1-1-0-0"), WrongPartition),
        (cluster_pb2.GetContentHashRequest(partition=99), WrongPartition),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else value.__name__,
)
async def test_bad_input_has_its_own_definite_error(
    wire_world: MakeWorld,
    request_: kv_pb2.PutRequest,
    expected: type[KVError],
) -> None:
    """Each thing that can be wrong with a request is a status with an ErrorInfo, definite, and nothing is written."""
    world = await wire_world(partitions=2)
    name = type(request_).__name__.removesuffix("Request")
    stub = world.cluster_stub("n1") if name == "GetContentHash" else world.stub("n1")
    error = await error_of(getattr(stub, name)(request_, timeout=5))
    assert type(error) is expected
    assert error.definite
    assert all(not group.state for group in world.groups.values())


async def test_a_transaction_over_two_partitions_is_refused(wire_world: MakeWorld) -> None:
    """CROSS_PARTITION names what to do; nothing of the transaction happened."""
    world = await wire_world(partitions=4)
    first, second, *_ = keys_of_distinct_partitions(world.ring, 4)
    request = kv_pb2.TxnRequest(then_operations=[put(first), put(second)])
    error = await error_of(world.stub("n1").Txn(request, timeout=5))
    assert isinstance(error, CrossPartition)
    assert error.metadata["partitions"]


@pytest.mark.parametrize("method", ["Get", "Put", "Delete", "Increment", "Append", "Outcome", "Batch", "Txn"])
async def test_bytes_that_do_not_parse_are_an_invalid_argument(wire_world: MakeWorld, method: str) -> None:
    """Garbage is answered like any other bad request, not as a defect of the server."""
    world = await wire_world(partitions=1)
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = world.channels["n1"].unary_unary(
        f"/kv.v1.KVService/{method}"
    )
    assert isinstance(await error_of(call(b"\xff\xff\xff", timeout=5)), InvalidArgument)


async def test_a_client_deadline_bounds_the_attempts(wire_world: MakeWorld) -> None:
    """Without a leader a call ends at the client's deadline, and the router forgets it."""
    world = await wire_world(partitions=1)
    world.lead(None)
    error = await error_of(world.stub("n1").Get(kv_pb2.GetRequest(key=b"k"), timeout=0.2))
    assert isinstance(error, DeadlineExceeded | NoLeader)
    async with asyncio.timeout(5):
        while world.nodes["n1"].router.in_flight:  # noqa: ASYNC110 - a router has no event for it
            await asyncio.sleep(0.005)


async def test_without_a_deadline_the_default_timeout_holds(wire_world: MakeWorld) -> None:
    """A call that brings no deadline ends all the same, definite for a read."""
    world = await wire_world(partitions=1, config=RouterConfig(request_timeout_ms=150))
    world.lead("n1")
    world.groups[1].hold_replies = True
    error = await error_of(world.stub("n1").Get(kv_pb2.GetRequest(key=b"k")))
    assert isinstance(error, DeadlineExceeded)
    assert error.definite


async def test_a_lost_reply_is_invisible_to_a_unary_client(wire_world: MakeWorld) -> None:
    """A put without a request id survives a lost reply, and is applied once."""
    world = await wire_world(partitions=1)
    world.lead("n2")
    await world.stub("n1").Put(kv_pb2.PutRequest(key=b"warm"), timeout=5)
    world.groups[1].lose_replies = 1
    answer = await world.stub("n1").Put(kv_pb2.PutRequest(key=b"k"), timeout=5)
    assert answer.version == 1
    assert world.groups[1].writes_applied == 2


async def test_a_scan_streams_pages_over_all_nodes(wire_world: MakeWorld) -> None:
    """Keys on every partition come back in order, in pages below the limit."""
    config = RouterConfig(scan_response_bytes_max=300)
    world = await wire_world(nodes=3, partitions=4, config=config)
    keys = [b"p/%03d" % n for n in range(60)]
    await world.stub("n1").Batch(batch(*(put(key, b"v") for key in keys), put(b"q")), timeout=5)
    pages = [page async for page in world.stub("n3").Scan(kv_pb2.ScanRequest(prefix=b"p/"), timeout=5)]
    assert [item.key for page in pages for item in page.items] == keys
    assert len(pages) > 1
    limited = [page async for page in world.stub("n2").Scan(kv_pb2.ScanRequest(limit=7), timeout=5)]
    assert [item.key for page in limited for item in page.items] == keys[:7]


async def test_a_bad_scan_and_one_too_many_are_refused(wire_world: MakeWorld) -> None:
    """A scan has its own errors and its own bound; an ended scan makes room."""
    world = await wire_world(partitions=1, config=RouterConfig(scans_max=1))
    world.lead("n1")
    stub = world.stub("n1")
    bad = stub.Scan(kv_pb2.ScanRequest(prefix=b"a", start=b"b"), timeout=5)
    assert isinstance(await error_of(bad.read()), InvalidArgument)
    raw_scan: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
    raw_scan = world.channels["n1"].unary_stream("/kv.v1.KVService/Scan")
    assert isinstance(await error_of(raw_scan(b"\xff\xff", timeout=5).read()), InvalidArgument)
    world.groups[1].hold_replies = True
    first = stub.Scan(kv_pb2.ScanRequest(), timeout=5)
    await world.groups[1].holding(1)
    assert isinstance(await error_of(stub.Scan(kv_pb2.ScanRequest(), timeout=5).read()), Overloaded)
    world.groups[1].hold_replies = False
    world.groups[1].release()
    assert isinstance(await first.read(), kv_pb2.ScanResponse)
    assert not isinstance(await first.read(), kv_pb2.ScanResponse)
    assert isinstance(await stub.Scan(kv_pb2.ScanRequest(), timeout=5).read(), kv_pb2.ScanResponse)


async def test_an_abandoned_scan_leaves_nothing_behind(wire_world: MakeWorld) -> None:
    """A client that cancels its scan frees its place."""
    world = await wire_world(partitions=1, config=RouterConfig(scans_max=1))
    world.lead("n1")
    world.groups[1].hold_replies = True
    call = world.stub("n1").Scan(kv_pb2.ScanRequest(), timeout=5)
    await world.groups[1].holding(1)
    call.cancel()
    world.groups[1].hold_replies = False
    world.groups[1].release()
    async with asyncio.timeout(5):
        while True:
            try:
                page = await world.stub("n1").Scan(kv_pb2.ScanRequest(), timeout=5).read()
            except grpc.aio.AioRpcError:
                continue
            assert isinstance(page, kv_pb2.ScanResponse)
            break


async def test_a_defect_is_internal_and_the_node_goes_on(wire_world: MakeWorld) -> None:
    """An exception that is not ours becomes INTERNAL, indefinite, and the next call is served."""
    world = await wire_world(partitions=1)
    node = world.nodes["n1"]
    good = node.status

    def broken() -> cluster_pb2.NodeStatus:
        raise RuntimeError("secret detail")

    node.status = broken  # type: ignore[method-assign]
    stub = world.cluster_stub("n1")
    error = await error_of(stub.GetStatus(cluster_pb2.GetStatusRequest(), timeout=5))
    assert isinstance(error, Internal)
    assert not error.definite
    assert "secret detail" not in error.message, "internals stay in the log"
    node.status = good  # type: ignore[method-assign]
    assert (await stub.GetStatus(cluster_pb2.GetStatusRequest(), timeout=5)).status.id == "n1"


async def test_the_cluster_service_tells_map_status_and_hash(wire_world: MakeWorld) -> None:
    """The map is the node's; before it has one the field is absent; a hash names its index."""
    world = await wire_world(partitions=2)
    stub = world.cluster_stub("n1")
    told = await stub.GetMap(cluster_pb2.GetMapRequest(), timeout=5)
    assert told.map == world.map.to_proto()
    hashed = await stub.GetContentHash(cluster_pb2.GetContentHashRequest(partition=1), timeout=5)
    assert hashed.index == world.groups[1].index
    world.nodes["n1"].map = None
    assert not (await stub.GetMap(cluster_pb2.GetMapRequest(), timeout=5)).HasField("map")


async def test_health_follows_the_leaders(wire_world: MakeWorld) -> None:
    """The node serves; a partition serves while its replica here knows a leader; a stop says NOT_SERVING."""
    world = await wire_world(partitions=1)
    service = world.nodes["n1"].service
    stub: Any = health_pb2_grpc.HealthStub(world.channels["n1"])
    serving = health_pb2.HealthCheckResponse.SERVING

    async def status(name: str) -> int:
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status)

    assert await status("") == serving
    assert await status("kv.partition.1") == serving
    world.lead(None)
    await service.publish_health()
    assert await status("kv.partition.1") != serving
    assert await status("") == serving
    await service.stop()
    assert await status("") != serving


async def test_reflection_lists_the_public_services(wire_world: MakeWorld) -> None:
    """Tools find the API without the proto files."""
    world = await wire_world(partitions=1)
    channel: Any = world.channels["n1"]
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    names = {service.name for service in answer.list_services_response.service}
    assert {"kv.v1.KVService", "kv.v1.ClusterService", "grpc.health.v1.Health"} <= names
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="kv.v1.KVService"))
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    call.cancel()
