"""The types that users of the client see; `mypy --strict` checks this file, pytest only imports it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from kv.client import (
    AppendReply,
    AsyncClient,
    Client,
    Compare,
    Delete,
    DeleteReply,
    Evidence,
    Get,
    IncrementReply,
    Item,
    Level,
    Outcome,
    Put,
    PutReply,
    Reading,
    ReadLevel,
    Result,
    ScanPage,
    TxnReply,
    WriteLevel,
)
from kv.cluster.map import ClusterMap
from kv.v1.cluster_pb2 import NodeStatus


async def asynchronous(client: AsyncClient) -> None:
    """Each method of `AsyncClient` has a precise type."""
    assert_type(AsyncClient.from_url("kv://a:1"), AsyncClient)
    assert_type(await client.get(b"k", level=ReadLevel.STALE), Item | None)
    reply = await client.put(b"k", b"v", if_absent=True, timeout=1.0)
    assert_type(reply, PutReply)
    assert_type(reply.evidence, Evidence)
    assert_type(await client.delete(b"k", if_revision=3), DeleteReply)
    reading = await client.read(b"k", level=Level(ReadLevel.BOUNDED, max_age_ms=5), prefer="nearest")
    assert_type(reading.evidence, Evidence)
    assert_type(reading.answers, tuple[Evidence, ...])
    assert_type(await client.increment(b"k", -1, write_level=WriteLevel.ALL), IncrementReply)
    assert_type(await client.append(b"k", b"v"), AppendReply)
    assert_type(await client.get_and_put(b"k", b"v"), Item | None)
    assert_type(await client.outcome("token"), Outcome)
    assert_type(client.session_token(), str)
    assert_type(await client.compare_and_set(b"k", None, b"v"), PutReply)
    assert_type(await client.batch([Get(b"k"), Put(b"k", b"v"), Delete(b"k")]), list[Result])
    assert_type(await client.txn([Compare(b"k", exists=True)], [Get(b"k")], []), TxnReply)
    assert_type(client.scan(b"k", limit=3), AsyncIterator[Item])
    assert_type(await client.cluster_map(), ClusterMap)
    assert_type(await client.status("n1"), NodeStatus)
    assert_type(await client.close(), None)


def synchronous(client: Client) -> None:
    """`Client` has the same types without awaiting."""
    assert_type(Client.from_url("kv://a:1"), Client)
    assert_type(client.get(b"k", level="stale"), Item | None)
    assert_type(client.put(b"k", b"v"), PutReply)
    assert_type(client.delete(b"k"), DeleteReply)
    assert_type(client.read(b"k", prefer="n1"), Reading)
    assert_type(client.increment(b"k"), IncrementReply)
    assert_type(client.outcome("token"), Outcome)
    assert_type(client.session_token(), str)
    assert_type(client.scan_pages(), Iterator[ScanPage])
    assert_type(client.batch([Get(b"k")]), list[Result])
    assert_type(client.txn(), TxnReply)
    assert_type(client.scan(), Iterator[Item])
    assert_type(client.cluster_map(), ClusterMap)
    assert_type(client.status(), NodeStatus)
    with client as same:
        assert_type(same, Client)


def test_wrong_types_are_refused() -> None:
    """Mypy refuses text for bytes and positional options: without these errors the ignores would be unused."""

    async def wrong(client: AsyncClient) -> None:
        await client.get("text")  # type: ignore[arg-type]
        await client.put(b"k", b"v", True)  # type: ignore[call-arg]
        await client.batch([b"k"])  # type: ignore[list-item]

    assert wrong.__name__ == "wrong"
