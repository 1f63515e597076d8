"""A full disk: the node leads and acknowledges nothing, answers reads, says what to do, and goes on when there is room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from kv.cli.cluster_process import LocalCluster
from kv.client import AsyncClient
from kv.errors import KVError
from kv.v1 import kv_pb2
from tests.integration import disks, support

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root: run as root")

DISK_BYTES: Final = 96 * support.MIB
PARTITIONS: Final = 2
KEYS: Final = 10
"""Of each partition."""
VALUE_BYTES: Final = 64 * 1024
WRITES_MAX: Final = 1000
"""Far more than a segment holds: a node that is not full after them will never be."""
DEADLINE_S: Final = 10.0
SHORT_S: Final = 1.5
ANSWER_SLACK_S: Final = 1.5
"""By which an answer may come after its deadline on a busy machine."""

OPTIONS: Final = {
    "segment_bytes": support.SMALL_SEGMENT_BYTES,
    "log_retain_bytes": support.MIB,
    "log_retain_entries": 50,
}


class Ledger:
    """Writes numbers to keys and knows what each key may hold."""

    def __init__(self, client: AsyncClient, keys: Iterable[bytes]) -> None:
        self.keys = list(keys)
        self.acknowledged = dict.fromkeys(self.keys, 0)
        self.possible: dict[bytes, set[int]] = {key: set() for key in self.keys}
        """Unknown outcomes since the last acknowledgement, and before: they may come late."""
        self._client = client
        self._number = 0

    async def write(self, key: bytes, timeout_s: float) -> KVError | None:
        """Write the next number; return the error if it was not acknowledged."""
        self._number += 1
        number = self._number
        try:
            await self._client.put(key, (b"%d " % number).ljust(VALUE_BYTES, b"."), timeout=timeout_s)
        except KVError as error:
            if not error.definite:
                self.possible[key].add(number)
            return error
        self.acknowledged[key] = number
        return None

    async def write_all(self) -> None:
        """Write every key once, side by side; each must be acknowledged."""
        errors = await asyncio.gather(*(self.write(key, DEADLINE_S) for key in self.keys))
        assert errors == [None] * len(errors)

    def allows(self, key: bytes, value: bytes) -> bool:
        """Return whether the key may hold `value` now."""
        return int(value.split()[0]) in {self.acknowledged[key], *self.possible[key]}

    async def check(self) -> None:
        """Assert that each key holds what it may."""
        for key in self.keys:
            item = await self._client.get(key)
            assert item is not None
            assert self.allows(key, item.value), f"{key!r} holds {item.value[:20]!r}"


@asynccontextmanager
async def cluster_on_small_disks(directory: Path) -> AsyncIterator[tuple[LocalCluster, Ledger]]:
    """Give a ready cluster on small disks, each key written once."""
    async with AsyncExitStack() as stack:
        stack.enter_context(disks.small_disks([directory / f"n{number}" for number in (1, 2, 3)], DISK_BYTES))
        cluster = await stack.enter_async_context(
            support.running(directory, partitions=PARTITIONS, options=OPTIONS)
        )
        client = await stack.enter_async_context(AsyncClient.from_url(cluster.url))
        keys = support.keys_by_partition(await client.cluster_map(), "disk/", KEYS)
        ledger = Ledger(client, (key for found in keys.values() for key in found))
        await ledger.write_all()
        yield cluster, ledger


async def is_full(cluster: LocalCluster, node: str, full: bool) -> bool | None:
    """Return True if the node says so."""
    return True if (await support.status(cluster, node)).disk_full is full else None


async def check_reads(cluster: LocalCluster, ledger: Ledger, node: str, *, linearizable: bool) -> None:
    """Assert that the node answers stale reads itself, and linearizable ones through the leaders."""
    async with support.stub_of(cluster.specs[node].address) as stub:
        for key in ledger.keys:
            request = kv_pb2.GetRequest(key=key, level=kv_pb2.READ_LEVEL_STALE)
            reply = await support.call(stub.Get(request, timeout=SHORT_S))
            assert reply.evidence.node == node
            assert reply.item.value
            if linearizable:
                reply = await support.call(stub.Get(kv_pb2.GetRequest(key=key), timeout=DEADLINE_S))
                assert reply.evidence.node != node
                assert ledger.allows(key, reply.item.value)


async def test_a_node_with_a_full_disk_steps_down_and_comes_back(tmp_path: Path) -> None:
    """A leader's disk fills under load: no caller sees an error, it leads nothing, still reads, and recovers."""
    async with cluster_on_small_disks(tmp_path) as (cluster, ledger):
        view = await cluster.wait_ready()
        node = view.leader(1)
        assert node is not None
        disk = cluster.specs[node].data_dir
        disks.fill(disk)
        for _ in range(WRITES_MAX // len(ledger.keys)):
            await ledger.write_all()
            if await is_full(cluster, node, full=True):
                break
        await support.until("the node says that its disk is full", lambda: is_full(cluster, node, full=True))
        await cluster.wait_until(lambda seen: f"{node} leads" if seen.led_by(node) else seen.unready())
        before = support.replicas(await support.status(cluster, node))
        await ledger.write_all()
        after = support.replicas(await support.status(cluster, node))
        for partition in after:
            assert after[partition].durable_index == before[partition].durable_index
        text = support.log_text(cluster, node)
        assert "until space is freed" in text
        await check_reads(cluster, ledger, node, linearizable=True)
        disks.free(disk)
        await support.until("there is room again", lambda: is_full(cluster, node, full=False))
        await cluster.wait_caught_up(node, (await cluster.view()).commit_indexes())
        await ledger.write_all()
        await ledger.check()
        await support.equal_content(cluster, range(1, PARTITIONS + 1))
        assert (await cluster.view()).stopped() == {}


async def test_all_disks_full_and_free_again(tmp_path: Path) -> None:
    """With all disks full writes fail by their deadline and stale reads go on; with room everything goes on."""
    async with cluster_on_small_disks(tmp_path) as (cluster, ledger):
        for node in cluster.specs:
            disks.fill(cluster.specs[node].data_dir)
        await fill_logs(ledger)
        for node in cluster.specs:
            await support.until(f"{node} is full", lambda node=node: is_full(cluster, node, full=True))  # type: ignore[misc]
        await check_fails_in_time(ledger)
        for node in cluster.specs:
            await check_reads(cluster, ledger, node, linearizable=False)
            disks.free(cluster.specs[node].data_dir)
        for node in cluster.specs:
            await support.until(f"{node} has room", lambda node=node: is_full(cluster, node, full=False))  # type: ignore[misc]
        await cluster.wait_ready()
        await ledger.check()
        await ledger.write_all()
        await ledger.check()
        await support.equal_content(cluster, range(1, PARTITIONS + 1))
        assert (await cluster.view()).stopped() == {}


async def fill_logs(ledger: Ledger) -> None:
    """Write until every partition refuses."""
    for _ in range(WRITES_MAX // len(ledger.keys)):
        errors = await asyncio.gather(*(ledger.write(key, SHORT_S) for key in ledger.keys))
        if None not in errors:
            return
    raise AssertionError("the disks never became full")


async def check_fails_in_time(ledger: Ledger) -> None:
    """Assert that writes end with an error of ours by their deadline."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    errors = await asyncio.gather(*(ledger.write(key, SHORT_S) for key in ledger.keys))
    assert None not in errors
    assert loop.time() - began < SHORT_S + ANSWER_SLACK_S


async def test_a_full_store_is_like_a_full_log(tmp_path: Path) -> None:
    """If only a checkpoint finds no room, the replica steps down, serves what it had, and catches up when there is."""
    async with cluster_on_small_disks(tmp_path) as (cluster, ledger):
        node = (await cluster.wait_ready()).leader(1)
        assert node is not None
        await support.equal_content(cluster, range(1, PARTITIONS + 1))  # makes checkpoints
        disk = cluster.specs[node].data_dir
        disks.fill(disk)
        await ledger.write_all()  # fits into the segment that was there before
        await support.content_hash(cluster, node, 1)  # asks for a checkpoint
        await support.until("the node says that its disk is full", lambda: is_full(cluster, node, full=True))
        await cluster.wait_until(
            lambda seen: seen.unready() or (f"{node} leads" if seen.leader(1) == node else None)
        )
        await ledger.write_all()
        await check_reads(cluster, ledger, node, linearizable=False)
        disks.free(disk)
        await support.until("there is room again", lambda: is_full(cluster, node, full=False))
        await cluster.wait_caught_up(node, (await cluster.view()).commit_indexes())
        await ledger.check()
        await support.equal_content(cluster, range(1, PARTITIONS + 1))
        assert "store_full" in support.log_text(cluster, node)
        assert (await cluster.view()).stopped() == {}
