"""Every operation through every node of a real cluster, by the client and by bare stubs."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from kv.cli.cluster_process import LocalCluster
from kv.client import AsyncClient, Client, Compare, Delete, DeleteReply, Get, Item, Put, PutReply, ReadLevel
from kv.errors import Conflict, CrossPartition, InvalidArgument
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX
from kv.router.ring import Ring
from kv.v1 import kv_pb2, kv_pb2_grpc
from tests.integration import support

NODES: Final = ("n1", "n2", "n3")
SCAN_ITEMS: Final = 2500
SCAN_VALUE_BYTES: Final = 1000
"""So many items of this size are several pages of each partition, and of the scan."""

every_node = pytest.mark.parametrize("node", NODES)


async def test_large_values_read_at_once(cluster: LocalCluster) -> None:
    """Gets of large values that happen to travel together answer as each alone would, and so does a batch of them."""
    async with AsyncClient.from_url(cluster.url) as client:
        keys = [b"{large}/%d" % number for number in range(10)]
        values = [bytes([number]) * VALUE_BYTES_MAX for number in range(10)]
        for key, value in zip(keys, values, strict=True):
            await client.put(key, value)
        together = await asyncio.gather(*map(client.get, keys))
        assert [item and item.value for item in together] == values
        batch = await client.batch([Get(key) for key in keys])
        assert [isinstance(item, Item) and item.value for item in batch] == values
        for key in keys:
            await client.delete(key)


async def test_columns_by_bare_stubs(cluster: LocalCluster) -> None:
    """Many puts and gets of one partition are one operation each, through any node, for any client of gRPC."""
    async with grpc.aio.insecure_channel(cluster.specs["n2"].address) as channel:
        stub = kv_pb2_grpc.KVServiceStub(channel)
        keys = [b"{columns}/%d" % number for number in range(100)]
        puts = kv_pb2.PutManyOperation(keys=keys, values=keys)
        done = await stub.Batch(kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put_many=puts)]))
        assert list(done.results[0].put_many.versions) == [1] * 100
        gets = kv_pb2.GetManyOperation(keys=[*keys, b"{columns}/none"])
        found = (await stub.Batch(kv_pb2.BatchRequest(operations=[kv_pb2.Operation(get_many=gets)]))).results[
            0
        ]
        assert list(found.get_many.values) == [*keys, b""]
        assert set(found.get_many.mod_revisions) == {done.results[0].put_many.revision, 0}


@every_node
async def test_put_get_delete(cluster: LocalCluster, node: str) -> None:
    """A key lives its life through one node, at its limits too, and the evidence names who served."""
    async with AsyncClient.from_url(cluster.url_of(node)) as client:
        key = f"any/{node}".encode().ljust(KEY_BYTES_MAX, b"\xff")
        value = bytes(range(256)) * (VALUE_BYTES_MAX // 256)
        first = await client.put(key, value)
        item = await client.get(key)
        assert item is not None
        assert (item.value, item.mod_revision, item.version) == (value, first.revision, 1)
        assert item.evidence is not None
        assert item.evidence.level is ReadLevel.LINEARIZABLE
        assert item.evidence.partition == first.evidence.partition
        second = await client.put(key, b"", if_revision=first.revision)
        assert second.version == 2
        with pytest.raises(Conflict):
            await client.put(key, b"x", if_revision=first.revision)
        with pytest.raises(Conflict):
            await client.compare_and_set(key, None, b"x")
        deleted = await client.delete(key, if_value=b"")
        assert deleted.deleted
        assert await client.get(key) is None
        assert not (await client.delete(key)).deleted


@every_node
async def test_bare_stubs_reach_every_partition(cluster: LocalCluster, node: str) -> None:
    """Without any client of ours, a node serves keys of every partition, with sessions of its own."""
    async with AsyncClient.from_url(cluster.url) as client:
        keys = support.keys_by_partition(await client.cluster_map(), f"bare/{node}/", 3)
    async with support.stub_of(cluster.specs[node].address) as stub:
        for partition, of_partition in keys.items():
            for key in of_partition:
                put = await support.call(stub.Put(kv_pb2.PutRequest(key=key, value=key)))
                assert (put.version, put.evidence.partition) == (1, partition)
                got = await support.call(stub.Get(kv_pb2.GetRequest(key=key)))
                assert got.item.value == key
                gone = await support.call(stub.Delete(kv_pb2.DeleteRequest(key=key)))
                assert gone.deleted
                missing = await support.call(stub.Get(kv_pb2.GetRequest(key=key)))
                assert not missing.HasField("item")


@every_node
async def test_scan_is_merged_in_key_order(cluster: LocalCluster, node: str) -> None:
    """A scan of many pages over all partitions is in key order, complete, and within its bounds."""
    prefix = f"scan/{node}/".encode()
    keys = [prefix + b"%05d" % number for number in range(SCAN_ITEMS)]
    values = {key: key.ljust(SCAN_VALUE_BYTES, b".") for key in keys}
    async with AsyncClient.from_url(cluster.url_of(node)) as client:
        results = await client.batch([Put(key, value) for key, value in values.items()])
        assert all(isinstance(result, PutReply) for result in results)
        pages = [page async for page in client.scan_pages(prefix)]
        assert len(pages) > 1
        items = [item for page in pages for item in page]
        assert [(item.key, item.value) for item in items] == list(values.items())
        bounded = [
            item async for item in client.scan(start=keys[10], end=keys[2000], keys_only=True, limit=1500)
        ]
        assert [item.key for item in bounded] == keys[10:1510]
        assert {item.value for item in bounded} == {b""}


@every_node
async def test_batch_answers_each_operation(cluster: LocalCluster, node: str) -> None:
    """In a batch over all partitions each operation has its own result, a refused one its own error."""
    keys = [f"batch/{node}/{number}".encode() for number in range(20)]
    async with AsyncClient.from_url(cluster.url_of(node)) as client:
        assert len({(await client.put(key, b"old")).evidence.partition for key in keys}) > 1
        ops = [Put(key, b"new", if_absent=number % 2 == 0) for number, key in enumerate(keys)]
        results = await client.batch([*ops, Get(keys[0]), Get(keys[1]), Delete(keys[0])])
        for number, result in enumerate(results[:20]):
            assert isinstance(result, Conflict if number % 2 == 0 else PutReply)
        old, new = results[20:22]
        assert isinstance(old, Item)
        assert isinstance(new, Item)
        assert (old.value, new.value) == (b"old", b"new")
        with pytest.raises(InvalidArgument):
            await client.batch([Put(b"batch/good", b""), Put(b"", b"")])
        assert await client.get(b"batch/good") is None


@every_node
async def test_a_bad_item_of_a_bare_batch_has_its_own_error(cluster: LocalCluster, node: str) -> None:
    """In a batch of a bare stub a key that is too long is refused for itself, and the others are written."""
    good, bad = f"item/{node}".encode(), b"k" * (KEY_BYTES_MAX + 1)
    puts = [kv_pb2.PutOperation(key=key, value=b"1") for key in (good, bad, b"")]
    batch = kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put=put) for put in puts])
    async with support.stub_of(cluster.specs[node].address) as stub:
        reply = await support.call(stub.Batch(batch))
        assert reply.results[0].put.version == 1
        assert [result.error.reason for result in reply.results[1:]] == ["KEY_TOO_LONG", "KEY_EMPTY"]
        assert all(result.error.definite for result in reply.results[1:])


@every_node
async def test_transactions_with_hash_tags(cluster: LocalCluster, node: str) -> None:
    """Keys of one hash tag change together; keys of two partitions are refused, by client and router alike."""
    left, right = (f"{{txn{node}}}/{side}".encode() for side in ("left", "right"))
    async with AsyncClient.from_url(cluster.url_of(node)) as client:
        made = await client.txn([Compare(left, exists=False)], [Put(left, b"1"), Put(right, b"1")])
        assert made.succeeded
        again = await client.txn([Compare(left, exists=False)], [Put(left, b"2")], [Get(right), Delete(left)])
        assert not again.succeeded
        assert isinstance(again.results[0], Item)
        assert await client.get(left) is None
        ring = Ring((await client.cluster_map()).partitions)
        others = (f"other{number}".encode() for number in range(100))
        other = next(key for key in others if ring.partition_of(key) != ring.partition_of(left))
        with pytest.raises(CrossPartition):
            await client.txn(then=[Put(left, b"3"), Put(other, b"3")])
    puts = [kv_pb2.Operation(put=kv_pb2.PutOperation(key=key, value=b"3")) for key in (left, other)]
    async with support.stub_of(cluster.specs[node].address) as stub:
        with pytest.raises(CrossPartition):
            await support.call(stub.Txn(kv_pb2.TxnRequest(then_operations=puts)))
        for key in (left, other):
            assert not (await support.call(stub.Get(kv_pb2.GetRequest(key=key)))).HasField("item")


@every_node
def test_the_synchronous_client(cluster: LocalCluster, node: str) -> None:
    """The client for threads does the same through each node."""
    with Client.from_url(cluster.url_of(node)) as client:
        key = f"sync/{node}".encode()
        put = client.put(key, b"1")
        item = client.get(key)
        assert item is not None
        assert (item.value, item.mod_revision) == (b"1", put.revision)
        assert [found.key for found in client.scan(key)] == [key]
        assert client.txn([Compare(key, value=b"1")], [Put(key, b"2")]).succeeded
        got, deleted = client.batch([Get(key), Delete(key)])
        assert isinstance(got, Item)
        assert isinstance(deleted, DeleteReply)
        assert client.get(key) is None
        assert client.status(node).id == node


@every_node
async def test_stale_reads_name_the_replica(cluster: LocalCluster, node: str) -> None:
    """A stale read of a bare stub is served by the node itself and says so."""
    key = f"stale/{node}".encode()
    async with support.stub_of(cluster.specs[node].address) as stub:
        await support.call(stub.Put(kv_pb2.PutRequest(key=key, value=b"1")))

        async def has_it() -> kv_pb2.GetResponse | None:
            request = kv_pb2.GetRequest(key=key, level=kv_pb2.READ_LEVEL_STALE)
            reply = await support.call(stub.Get(request))
            return reply if reply.HasField("item") else None

        reply = await support.until("the node's own replica has the write", has_it)
        assert reply.evidence.node == node
        assert reply.evidence.level == kv_pb2.READ_LEVEL_STALE


@every_node
async def test_health_and_reflection(cluster: LocalCluster, node: str) -> None:
    """Each node publishes its own health and that of each partition, and lists its services."""
    async with grpc.aio.insecure_channel(cluster.specs[node].address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", *(f"kv.partition.{number}" for number in range(1, 5))):

            async def serves(service: str = service) -> bool | None:
                reply = await support.call(check(health_pb2.HealthCheckRequest(service=service)))
                return True if reply.status == health_pb2.HealthCheckResponse.SERVING else None

            await support.until(f"{service!r} is healthy", serves)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await check(health_pb2.HealthCheckRequest(service="kv.partition.99"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        reflect = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        async with asyncio.timeout(support.ASK_TIMEOUT_S):
            answers = [reply async for reply in asked]
        names = {service.name for service in answers[0].list_services_response.service}
        assert {"kv.v1.KVService", "kv.v1.ClusterService", "grpc.health.v1.Health"} <= names
