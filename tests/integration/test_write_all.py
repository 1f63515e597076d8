"""Writes at level ALL while a replica is away: each way in says of each operation what is true of it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from kv.client import AsyncClient, Compare, Get, Item, Put, TxnReply
from kv.errors import Conflict, NotOnAllReplicas
from kv.v1 import kv_pb2
from tests.integration import support

ALL = kv_pb2.WRITE_LEVEL_ALL
TIMEOUT_MS = 200
ABSENT = kv_pb2.Condition(absent=True)


def put(key: bytes, condition: kv_pb2.Condition | None = None) -> kv_pb2.Operation:
    """Return a put."""
    return kv_pb2.Operation(put=kv_pb2.PutOperation(key=key, value=b"v", condition=condition))


async def test_only_what_was_applied_is_said_to_be(tmp_path: Path) -> None:
    """With one of three replicas away nothing that failed, or changed nothing, is told NOT_ON_ALL_REPLICAS."""
    async with support.running(tmp_path, partitions=1) as cluster:
        async with AsyncClient.from_url(cluster.url) as client:
            await client.put(b"there", b"v")
        cluster.kill("n3")
        async with support.stub_of(cluster.specs["n1"].address) as stub:
            with pytest.raises(NotOnAllReplicas) as stands:
                await support.call(
                    stub.Put(
                        kv_pb2.PutRequest(key=b"a", value=b"v", write_level=ALL, all_timeout_ms=TIMEOUT_MS)
                    )
                )
            assert stands.value.metadata["missing"] == "n3"
            with pytest.raises(Conflict):
                await support.call(
                    stub.Put(kv_pb2.PutRequest(key=b"there", value=b"w", condition=ABSENT, write_level=ALL))
                )
            txn = await support.call(
                stub.Txn(
                    kv_pb2.TxnRequest(
                        compare=[kv_pb2.Compare(key=b"there", version=7)],
                        then_operations=[put(b"b")],
                        write_level=ALL,
                    )
                )
            )
            assert not txn.succeeded
            batch = await support.call(
                stub.Batch(
                    kv_pb2.BatchRequest(
                        operations=[put(b"c"), put(b"there", ABSENT), put(b"d")],
                        write_level=ALL,
                        all_timeout_ms=TIMEOUT_MS,
                    )
                )
            )
            reasons = [result.error.reason for result in batch.results]
            assert reasons == ["NOT_ON_ALL_REPLICAS", "CONDITION_FAILED", "NOT_ON_ALL_REPLICAS"]
        async with httpx.AsyncClient(base_url=f"http://{cluster.specs['n1'].http_address}") as http:
            body = {"key": "e", "value": "v", "write": "all", "all_timeout_ms": TIMEOUT_MS}
            assert (await http.post("/put", json=body)).json()["error"]["reason"] == "NOT_ON_ALL_REPLICAS"
            again = await http.post("/put", json={**body, "if_absent": True})
            assert (again.status_code, again.json()["error"]["reason"]) == (409, "CONDITION_FAILED")
        async with AsyncClient.from_url(f"{cluster.url}?write=all") as client:
            told = await client.batch([Get(b"there"), Put(b"there", b"w", if_absent=True), Put(b"f", b"v")])
            assert [type(one) for one in told] == [Item, Conflict, NotOnAllReplicas]
            nothing = await client.txn([Compare(b"there", version=7)], [Put(b"b", b"v")])
            assert isinstance(nothing, TxnReply)
            assert not nothing.succeeded
            for key in (b"a", b"c", b"d", b"e", b"f"):
                assert await client.get(key) is not None
            assert await client.get(b"b") is None
