"""`kv demo --tour`: what the cluster promises, shown on real processes and checked to the last write.

One writer owns each key and writes a growing number into it. A number whose put was answered is
acknowledged; at the end each key must hold at least its last acknowledged number and at most the last
one that was sent. Whatever is wrong raises `TourFailed` and says what was seen.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc.aio

from kv.cli import output
from kv.cli.cluster import PARTITION_HEADERS, partition_rows, range_end
from kv.cli.cluster_process import LocalCluster
from kv.cli.probe import kv_error
from kv.cli.text import show_duration
from kv.client import AsyncClient
from kv.errors import DefiniteError, KVError
from kv.router.ring import key_hash
from kv.v1 import cluster_pb2, kv_pb2, kv_pb2_grpc

TOUR_S_MAX: Final = 60.0
NODES_MIN: Final = 3
ASKS_MAX: Final = 3
WRITERS: Final = 16
KEYS_PER_WRITER: Final = 16
CALL_TIMEOUT_S: Final = 10.0
CALM_S: Final = 1.0
"""How long the writers run before and after each blow."""


class TourFailed(DefiniteError):
    """The cluster did not do what it promises."""

    reason = "TOUR_FAILED"
    hint = "Run it with --dir to keep the nodes' logs, and report what it says."


@dataclass(slots=True)
class Ledger:
    """What was sent and what was acknowledged, by key; and when, by partition. Times in seconds."""

    sent: dict[bytes, int] = field(default_factory=dict)
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    acknowledged_total: int = 0
    last_ack: dict[int, float] = field(default_factory=dict)
    pauses: dict[int, float] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)  # set at each acknowledgement

    def send(self, key: bytes) -> int:
        """Return the next number for `key`."""
        self.sent[key] = self.sent.get(key, 0) + 1
        return self.sent[key]

    def acknowledge(self, key: bytes, number: int, partition: int, now: float) -> None:
        """Note that `number` is safe, and the pause since the partition's last acknowledgement."""
        assert number == self.sent[key], "one writer owns each key"
        self.acknowledged[key] = number
        self.acknowledged_total += 1
        pause = now - self.last_ack.get(partition, now)
        self.pauses[partition] = max(self.pauses.get(partition, 0.0), pause)
        self.last_ack[partition] = now
        self.news.set()

    def begin_pauses(self) -> None:
        """Forget the pauses so far; one that lasts counts from its beginning."""
        self.pauses.clear()

    def begin_again(self) -> None:
        """Forget the times too: the writers were stopped on purpose."""
        self.pauses.clear()
        self.last_ack.clear()

    def wrong(self, found: dict[bytes, int]) -> list[str]:
        """Return a line for each key that lost an acknowledged write, or holds what was never sent."""
        lines = []
        for key, sent in self.sent.items():
            low, value = self.acknowledged.get(key, 0), found.get(key, 0)
            if not low <= value <= sent:
                lines.append(f"{key.decode()}: holds {value}, acknowledged {low}, sent {sent}")
        return lines


@dataclass(slots=True)
class Tour:
    """The state of a tour: its cluster, its ledger, the time of each step in seconds."""

    cluster: LocalCluster
    ledger: Ledger = field(default_factory=Ledger)
    partitions: tuple[cluster_pb2.Partition, ...] = ()
    steps: dict[str, float] = field(default_factory=dict)
    failover_pause_s: float = 0.0


async def run_tour(cluster: LocalCluster) -> None:
    """Walk through all steps and print the figures. Raises `TourFailed` or another `KVError`."""
    if len(cluster.specs) < NODES_MIN:
        raise TourFailed(f"the tour kills a node and goes on: it needs {NODES_MIN} nodes at least")
    tour, begin = Tour(cluster), time.monotonic()
    try:
        async with asyncio.timeout(TOUR_S_MAX):
            await _walk(tour)
    except TimeoutError:
        done = ", ".join(tour.steps) or "none"
        raise TourFailed(f"not through after {TOUR_S_MAX:.0f} s; steps done: {done}") from None
    output.line(figures(tour, time.monotonic() - begin))


async def _walk(tour: Tour) -> None:
    cluster = tour.cluster
    async with _step(tour, "start", f"start {len(cluster.specs)} nodes from nothing"):
        cluster.start()
        view = await cluster.wait_ready()
    assert view.cluster_map is not None, "a ready cluster has a map"
    tour.partitions = tuple(view.cluster_map.partitions)
    async with _step(tour, "any_node", "put and get through a node that does not lead"):
        await _through_follower(tour)
    output.line("   who serves what:")
    output.table(PARTITION_HEADERS, partition_rows(view))
    async with AsyncClient.from_url(cluster.url) as client:
        await _kill_one(tour, client)
    async with AsyncClient.from_url(cluster.url) as client:
        await _kill_all(tour, client)
        async with _step(tour, "check", "read every key that was ever written"):
            await _check(tour.ledger, client)


async def _through_follower(tour: Tour) -> None:
    """Put and get one key through a node that leads none of it; the evidence names who served.

    The lead may pass to the very node that is asked, between looking and asking: then again.
    """
    partition = tour.partitions[0]
    key = _key_of(partition)
    for _ in range(ASKS_MAX):
        leader = (await tour.cluster.view()).leader(partition.id)
        asked = next(node for node in partition.replicas if node != leader)
        put, got = await _put_and_get(tour.cluster.specs[asked].address, key)
        if got.item.value != key or got.item.mod_revision != put.revision:
            raise TourFailed(f"put revision {put.revision} through {asked}, but read {got.item!r}")
        served = put.evidence
        if served.node != asked:
            output.line(
                f"   asked {asked}, served by {served.node}:"
                f" partition {served.partition}, term {served.term}, index {served.index}"
            )
            return
    raise TourFailed(f"in {ASKS_MAX} tries the node that was asked served the write itself")


async def _put_and_get(address: str, key: bytes) -> tuple[kv_pb2.PutResponse, kv_pb2.GetResponse]:
    """Call one node with plain stubs: the client would go to the leader by itself."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = kv_pb2_grpc.KVServiceStub(channel)
        try:
            put = await stub.Put(kv_pb2.PutRequest(key=key, value=key), timeout=CALL_TIMEOUT_S)
            got = await stub.Get(kv_pb2.GetRequest(key=key), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise kv_error(error, address, sent=True) from error
    return put, got


def _key_of(partition: cluster_pb2.Partition) -> bytes:
    """Return a key that lives in `partition`."""
    candidates = (b"hello/%d" % number for number in itertools.count())
    return next(key for key in candidates if partition.hash_start <= key_hash(key) < range_end(partition))


async def _kill_one(tour: Tour, client: AsyncClient) -> None:
    """Kill the busiest leader under load, go on, bring it back, wait until it has caught up."""
    cluster, ledger = tour.cluster, tour.ledger
    async with _writers(ledger, client, "one"):
        async with _step(tour, "writes", f"write with {WRITERS} writers"):
            await _all_partitions_written(tour, "one", since=time.monotonic())
            await asyncio.sleep(CALM_S)
        view = await cluster.view()
        victim = max(cluster.specs, key=lambda node: len(view.led_by(node)))
        async with _step(
            tour, "failover", f"kill -9 {victim}, leader of {len(view.led_by(victim))}, and go on"
        ):
            ledger.begin_pauses()
            cluster.kill(victim)
            await _all_partitions_written(tour, "one", since=time.monotonic())
            tour.failover_pause_s = max(ledger.pauses.values())
            output.line(f"   longest pause of a partition: {show_duration(tour.failover_pause_s)}")
            await _read_some(ledger, client)
            await asyncio.sleep(CALM_S)
        async with _step(tour, "catch_up", f"start {victim} again and wait until it has caught up"):
            cluster.start(victim)
            targets = (await cluster.view()).commit_indexes()
            await cluster.wait_caught_up(victim, targets)


async def _kill_all(tour: Tour, client: AsyncClient) -> None:
    """Kill every node at once while the writers write, and start them again."""
    cluster, ledger = tour.cluster, tour.ledger
    ledger.begin_again()
    async with _writers(ledger, client, "all"):
        await _all_partitions_written(tour, "all", since=time.monotonic())
        output.line(f"-- kill -9 all {len(cluster.running)} nodes while the writers write")
        cluster.kill()
    async with _step(tour, "restart", "start them again from their disks"):
        cluster.start()
        await cluster.wait_ready()


@asynccontextmanager
async def _writers(ledger: Ledger, client: AsyncClient, phase: str) -> AsyncIterator[None]:
    """Write in the background; at the end the writers are cut off, whatever they wait for.

    The block is abandoned as soon as a writer fails. Each phase has keys of its own: a put that was cut
    off may be applied after puts that came later.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_write(ledger, client, f"{phase}-{writer}")) for writer in range(WRITERS)
            ]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failed:
        raise _first_leaf(failed) from failed


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_leaf(first) if isinstance(first, BaseExceptionGroup) else first


async def _write(ledger: Ledger, client: AsyncClient, writer: str) -> None:
    """Write growing numbers into this writer's keys, for ever.

    A put of unknown end was sent and is not acknowledged, which is just what the ledger says then. Its
    key is left alone from then on, since that put may still be applied; another of the same hash tag,
    and so of the same partition, takes its place.
    """
    generations = dict.fromkeys(range(KEYS_PER_WRITER), 0)
    while True:
        for place, generation in generations.items():
            key = _key(writer, place, generation)
            number = ledger.send(key)
            try:
                reply = await client.put(key, b"%d" % number, timeout=CALL_TIMEOUT_S)
            except KVError as error:
                if error.definite:
                    raise
                generations[place] = generation + 1
                continue
            ledger.acknowledge(key, number, reply.evidence.partition, time.monotonic())


def _key(writer: str, place: int, generation: int) -> bytes:
    return b"tour/{%s-%d}/%d" % (writer.encode(), place, generation)


async def _all_partitions_written(tour: Tour, phase: str, since: float) -> None:
    """Return once each partition that the writers write to has acknowledged a write after `since`."""
    wanted = {
        _partition_of(tour.partitions, _key(f"{phase}-{writer}", place, 0))
        for writer in range(WRITERS)
        for place in range(KEYS_PER_WRITER)
    }
    while not all(tour.ledger.last_ack.get(part, 0.0) > since for part in wanted):
        tour.ledger.news.clear()
        await tour.ledger.news.wait()


def _partition_of(partitions: Sequence[cluster_pb2.Partition], key: bytes) -> int:
    hashed = key_hash(key)
    return next(part.id for part in partitions if part.hash_start <= hashed < range_end(part))


async def _read_some(ledger: Ledger, client: AsyncClient) -> None:
    """Read some keys: a linearizable read sees at least what was acknowledged before it began."""
    for key in list(ledger.sent)[::KEYS_PER_WRITER]:
        before = ledger.acknowledged.get(key, 0)
        item = await client.get(key, timeout=CALL_TIMEOUT_S)
        value = 0 if item is None else int(item.value)
        if not before <= value <= ledger.sent[key]:
            raise TourFailed(f"{key.decode()}: read {value}, acknowledged before {before}")


async def _check(ledger: Ledger, client: AsyncClient) -> None:
    found = {item.key: int(item.value) async for item in client.scan(prefix=b"tour/")}
    wrong = ledger.wrong(found)
    if wrong:
        raise TourFailed(f"{len(wrong)} of {len(ledger.sent)} keys are wrong: " + "; ".join(wrong[:5]))
    output.line(f"   {len(found)} keys, {ledger.acknowledged_total} acknowledged writes, none lost")


@asynccontextmanager
async def _step(tour: Tour, name: str, text: str) -> AsyncIterator[None]:
    output.line(f"-- {text}")
    begin = time.monotonic()
    yield
    tour.steps[name] = time.monotonic() - begin


def figures(tour: Tour, total_s: float) -> str:
    """Return the last line: what happened, in numbers."""
    steps = " ".join(f"{name}_s={seconds:.1f}" for name, seconds in tour.steps.items())
    return (
        f"tour: writes_acknowledged={tour.ledger.acknowledged_total} lost=0"
        f" failover_pause_ms={tour.failover_pause_s * 1000:.0f} {steps} total_s={total_s:.1f}"
    )
