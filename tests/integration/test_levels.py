"""Levels, atomic operations, outcomes and `kv explain` through the client and the command line, on real nodes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from kv.cli.cluster_process import LocalCluster, node_environment
from kv.client import (
    Append,
    AsyncClient,
    Compare,
    Get,
    Increment,
    IncrementReply,
    Level,
    OutcomeState,
    Put,
    PutReply,
    ReadLevel,
    Txn,
    TxnReply,
)
from kv.errors import DeadlineExceeded, NotAnInteger, UnknownOutcome

LEVELS = ("linearizable", "lease", "session", "bounded:5s", "stale", "quorum", "quorum:3", "all")
PREFERENCES = ("leader", "nearest", "least-loaded", "local", "n1", "n2", "n3", None)


@pytest.mark.parametrize("text", LEVELS)
async def test_each_level_is_honoured(cluster: LocalCluster, text: str) -> None:
    """Whatever replica is preferred, a key that every replica has is read, and the evidence tells level and age."""
    level = Level.parse(text)
    key = f"{{level}}{text}".encode()
    async with AsyncClient.from_url(cluster.url) as client:
        written = await client.put(key, b"v", write_level="all")
        # Every replica has the write on disk; a SESSION read waits until it has applied it, too.
        for node in ("n1", "n2", "n3"):
            await client.read(key, level="session", prefer=node)
        for prefer in PREFERENCES:
            reading = await client.read(key, level=level, prefer=prefer)
            assert reading.item is not None
            assert reading.item.value == b"v"
            assert reading.evidence.revision == written.revision
            honoured = reading.evidence.level
            assert honoured is level.kind or (text == "lease" and honoured is ReadLevel.LINEARIZABLE)
            if text == "bounded:5s":
                assert (reading.evidence.age_ms or 0) <= 5000
            if prefer in ("n1", "n2", "n3") and text not in ("lease", "quorum", "quorum:3", "all"):
                assert reading.evidence.node == prefer
            if text in ("quorum", "quorum:3", "all"):
                assert len(reading.answers) == (2 if text == "quorum" else 3)


async def test_a_session_reads_its_writes_anywhere(cluster: LocalCluster) -> None:
    """A SESSION read after a write sees it at any replica, also in another client that took over the token."""
    async with AsyncClient.from_url(cluster.url) as writer, AsyncClient.from_url(cluster.url) as reader:
        for number in range(30):
            value = b"%d" % number
            await writer.put(b"{session}k", value)
            reader.observe(writer.session_token())
            for client in (writer, reader):
                item = await client.get(b"{session}k", level="session", prefer=f"n{number % 3 + 1}")
                assert item is not None
                assert item.value == value


async def test_atomic_operations(cluster: LocalCluster) -> None:
    """Increments of many tasks add up; a transaction with one inside applies as a whole or not at all."""
    async with AsyncClient.from_url(cluster.url) as client:
        await asyncio.gather(*(client.increment(b"{atomic}n", 2) for _ in range(50)))
        results = await client.batch([Increment(b"{atomic}n", -1), Append(b"{atomic}s", b"ab")])
        assert isinstance(results[0], IncrementReply)
        assert results[0].value == 99
        inner = Txn([Compare(b"{atomic}n", value=b"100")], [Append(b"{atomic}s", b"c"), Get(b"{atomic}s")])
        reply = await client.txn([], [Increment(b"{atomic}n"), inner])
        nested = reply.results[1]
        assert isinstance(nested, TxnReply)
        assert nested.succeeded
        with pytest.raises(NotAnInteger):
            await client.txn([], [Put(b"{atomic}n", b"0"), Increment(b"{atomic}s")])
        previous = await client.get_and_put(b"{atomic}n", b"0")
        assert previous is not None
        assert previous.value == b"100"


async def test_outcomes_agree_with_what_is_there(cluster: LocalCluster) -> None:
    """Increments with deadlines too short to be answered: each is counted if and only if its outcome says applied."""
    applied = 0
    states: list[OutcomeState] = []
    late: list[DeadlineExceeded] = []
    async with AsyncClient.from_url(cluster.url) as client, AsyncClient.from_url(cluster.url) as asker:
        await client.put(b"{outcome}warm", b"")

        async def add(number: int) -> None:
            nonlocal applied
            try:
                await client.increment(b"{outcome}n", timeout=0.001 * (1 + number % 12))
            except UnknownOutcome as error:
                states.append((await asker.outcome(error)).state)
            except DeadlineExceeded as error:
                late.append(error)
            else:
                applied += 1

        for _ in range(20):
            await asyncio.gather(*(add(number) for number in range(12)))
        item = await client.get(b"{outcome}n")
    assert all(error.definite for error in late)
    assert OutcomeState.UNKNOWN not in states
    assert int(item.value if item is not None else b"0") == applied + states.count(OutcomeState.APPLIED)


async def test_a_scan_reads_each_partition_at_one_index(cluster: LocalCluster) -> None:
    """Over many pages, while other keys are written, every partition's evidence names one index."""
    async with AsyncClient.from_url(cluster.url) as client:
        puts = await client.batch([Put(b"scan-level/%05d" % number, b"v" * 500) for number in range(4000)])
        assert all(isinstance(reply, PutReply) for reply in puts)
        indexes: dict[int, set[int]] = {}
        pages = items = 0
        async for page in client.scan_pages(b"scan-level/"):
            pages, items = pages + 1, items + len(page)
            for evidence in page.evidence:
                indexes.setdefault(evidence.partition, set()).add(evidence.index)
            await client.put(b"scan-level/%05d-later" % pages, b"v")
        assert pages > 1
        assert items == 4000
        assert all(len(seen) == 1 for seen in indexes.values())


def test_explain_shows_the_way(cluster: LocalCluster) -> None:
    """`kv explain` names where the key lives and each step of replica and router, for a write and a read."""

    def explain(*arguments: str) -> dict[str, object]:
        environment = {**node_environment(os.environ), "KV_ENDPOINTS": cluster.url}
        command = [sys.executable, "-m", "kv", "-o", "json", "explain", *arguments]
        done = subprocess.run(command, capture_output=True, timeout=30, env=environment, check=True)
        fields: dict[str, object] = json.loads(done.stdout)
        return fields

    def steps(fields: dict[str, object]) -> set[str]:
        spans = fields["spans"]
        assert isinstance(spans, list)
        return {step["step"] for span in spans for step in span["steps"]}

    write = explain("put", "{explain}k", "1")
    assert {"received", "routed", "appended", "synced", "acknowledged", "committed", "applied"} <= steps(
        write
    )
    assert write["tag"] == "explain"
    read = explain("get", "{explain}k")
    assert {"probed", "confirmed"} <= steps(read)
    follower = next(node for node in ("n1", "n2", "n3") if node != read["leader"])
    assert "asked leader" in steps(explain("get", "{explain}k", "--prefer", follower))

    def served(*arguments: str) -> dict[str, str]:
        spans = explain("get", "{explain}k", *arguments)["spans"]
        assert isinstance(spans, list)
        inner = [span for span in spans if span["component"] != "router"]
        return {
            span["node"]: step["detail"]
            for span in inner
            for step in span["steps"]
            if step["step"] == "served"
        }

    stale = served("--level", "stale", "--prefer", follower)
    assert list(stale) == [follower]
    assert stale[follower].startswith("index ")
    assert sorted(served("--level", "all")) == ["n1", "n2", "n3"]
