"""Starting from a damaged disk: corruption is refused, a torn tail is cut, a lost disk is not let in again."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest

from kv.cli.cluster_process import LocalCluster
from kv.client import AsyncClient
from kv.raft.wal_format import FRAME_HEADER_BYTES, HEADER_BLOCK_BYTES
from tests.integration import support

KEYS: Final = 60
VALUE_BYTES: Final = 500


def value(number: int) -> bytes:
    """Return a value without zeros: what follows the last one in a segment are the zeros of its allocation."""
    return (b"value %d " % number).ljust(VALUE_BYTES, b".")


async def write(cluster: LocalCluster, first: int = 0) -> None:
    """Write the keys one by one: each is a batch of the log."""
    async with AsyncClient.from_url(cluster.url) as client:
        for number in range(first, first + KEYS):
            await client.put(b"restart/%d" % number, value(number))


async def check(cluster: LocalCluster, keys: int = KEYS) -> None:
    """Assert that all keys have their values."""
    async with AsyncClient.from_url(cluster.url) as client:
        held = {item.key: item.value async for item in client.scan(b"restart/")}
    assert held == {b"restart/%d" % number: value(number) for number in range(keys)}


def end_of_records(segment: Path) -> int:
    """Return the offset after the last byte that is not zero."""
    return len(segment.read_bytes().rstrip(b"\0"))


def flip(segment: Path, offset: int) -> None:
    """Flip every bit of one byte."""
    data = bytearray(segment.read_bytes())
    data[offset] ^= 0xFF
    segment.write_bytes(data)


def last_segment(cluster: LocalCluster, node: str) -> Path:
    """Return the segment that a stopped node wrote last."""
    return support.wal_segments(cluster, node)[-1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Give a cluster of one node, with all keys written and stopped by SIGKILL."""
    with support.started(tmp_path_factory.mktemp("alone"), nodes=1, partitions=1) as cluster:
        asyncio.run(write(cluster))
        cluster.kill()
        yield cluster


@pytest.mark.parametrize("where", ["header", "first frame", "payload", "middle"])
async def test_a_flipped_byte_is_refused(alone: LocalCluster, where: str) -> None:
    """A node whose log was damaged before its end does not start; it names the segment and the offset, and mends nothing."""
    segment = last_segment(alone, "n1")
    whole = segment.read_bytes()
    offset = {
        "header": 10,
        "first frame": HEADER_BLOCK_BYTES + 2,
        "payload": HEADER_BLOCK_BYTES + FRAME_HEADER_BYTES + 1,
        "middle": (HEADER_BLOCK_BYTES + end_of_records(segment)) // 2,
    }[where]
    flip(segment, offset)
    damaged = segment.read_bytes()
    seen = len(support.log_text(alone, "n1"))
    alone.start("n1")
    assert await support.wait_exit(alone, "n1") not in (0, -9)
    said = support.log_text(alone, "n1")[seen:]
    found = re.search(rf"segment {re.escape(segment.name)}, offset (\d+)", said)
    assert found, said
    assert int(found.group(1)) <= offset
    assert "rejoin" in said
    assert segment.read_bytes() == damaged
    segment.write_bytes(whole)


async def test_a_torn_tail_is_cut(alone: LocalCluster, seed: int) -> None:
    """Bytes of a write that never finished are dropped, whatever they are; all that was acknowledged is served."""
    rng = Random(seed)
    for tail in (rng.randbytes(200), b"half", None):
        segment = last_segment(alone, "n1")
        data, end = bytearray(segment.read_bytes()), end_of_records(segment)
        first_frames = bytes(data[HEADER_BLOCK_BYTES : HEADER_BLOCK_BYTES + 100])
        torn = first_frames if tail is None else tail  # an older frame, whole in itself, at the wrong place
        data[end + 1 : end + 1 + len(torn)] = torn
        segment.write_bytes(data)
        alone.start("n1")
        await alone.wait_ready()
        await check(alone)
        alone.kill("n1")


async def test_a_cut_tail_is_filled_by_the_others(tmp_path: Path) -> None:
    """A node whose last records are torn off starts, and the others give it what it lost."""
    async with support.running(tmp_path, partitions=2) as cluster:
        await write(cluster)
        node = (await cluster.view()).leader(1)
        assert node is not None
        cluster.kill(node)
        segment = last_segment(cluster, node)
        with segment.open("r+b") as file:
            file.truncate(end_of_records(segment) - VALUE_BYTES // 2)
        await write(cluster, KEYS)
        cluster.start(node)
        await cluster.wait_caught_up(node, (await cluster.view()).commit_indexes())
        await check(cluster, 2 * KEYS)
        await support.equal_content(cluster, (1, 2))


async def test_a_wiped_node_is_not_let_in_under_its_old_name(tmp_path: Path) -> None:
    """A node that lost its log cannot vote with an empty one: its peers refuse it, and go on without it."""
    async with support.running(tmp_path, partitions=2) as cluster:
        await write(cluster)
        cluster.kill("n2")
        directory, kept = cluster.specs["n2"].data_dir, tmp_path / "kept"
        directory.rename(kept)
        cluster.start("n2")

        async def refused() -> bool | None:
            texts = (support.log_text(cluster, node) for node in ("n1", "n2", "n3"))
            return True if any("may not vote" in text for text in texts) else None

        await support.until("the peers refuse the empty node", refused)
        await write(cluster, KEYS)
        await check(cluster, 2 * KEYS)
        for node in ("n1", "n3"):
            assert "n2" not in (await support.status(cluster, node)).connected_peers
        assert list((await support.status(cluster, "n2")).connected_peers) == []
        cluster.kill("n2")
        shutil.rmtree(directory)
        kept.rename(directory)
        cluster.start("n2")
        await cluster.wait_caught_up("n2", (await cluster.view()).commit_indexes())
        await support.equal_content(cluster, (1, 2))


async def test_a_node_whose_log_is_gone_does_not_start(tmp_path: Path) -> None:
    """Without its log folder a used directory is refused, before any checkpoint too; put back, it is what it was."""
    async with support.running(tmp_path, partitions=2) as cluster:
        await write(cluster)
        cluster.kill("n2")
        log_folder, aside = cluster.specs["n2"].data_dir / "wal", tmp_path / "aside"
        log_folder.rename(aside)
        cluster.start("n2")
        assert await support.wait_exit(cluster, "n2") == 1
        assert "wal is gone, but the directory was used" in support.log_text(cluster, "n2")
        assert not log_folder.exists()
        aside.rename(log_folder)
        cluster.start("n2")
        await cluster.wait_caught_up("n2", (await cluster.view()).commit_indexes())
        await check(cluster)


def bytes_of_stores(folder: Path) -> int:
    """Return how large the files of the first node's stores are together."""
    return sum(path.stat().st_size for path in folder.glob("n1/partitions/*/data.mdb"))


@pytest.mark.parametrize("seconds", [20, 0])
async def test_a_start_reads_the_stores_before_it_serves(tmp_path: Path, seconds: int) -> None:
    """The first requests find their keys in the page cache; warm_up_s=0 leaves it out."""
    options = {"warm_up_s": seconds}
    async with support.running(tmp_path, nodes=1, partitions=2, options=options) as cluster:
        assert "stores read" not in support.log_text(cluster, "n1"), "a new node has none"
        await write(cluster)
        cluster.close()
        size = bytes_of_stores(tmp_path)
        seen = len(support.log_text(cluster, "n1"))
        cluster.start()
        await cluster.wait_ready()
        said = [json.loads(line) for line in support.log_text(cluster, "n1")[seen:].splitlines()]
        events = [line["event"] for line in said]
        if not seconds:
            assert "stores read" not in events
            return
        read = said[events.index("stores read")]
        assert (read["bytes"], read["left"]) == (size, "nothing")
        assert size > 0
        assert events.index("stores read") < events.index("node serves")
        await check(cluster)
