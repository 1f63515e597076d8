"""Row 7: how long nobody can write after the leader was killed.

The time runs from SIGKILL to the first success of a write that began after it. ringkv's client is the public one with its
own retries. etcd's is given at least as much: one writer at each of the other members, each attempt given up after
`ATTEMPT_S` and begun again at once, and the first success of any counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import grpc
import grpc.aio

from benchmarks import goals, wire
from benchmarks.calls import unary
from benchmarks.goals import ETCD, RINGKV
from benchmarks.options import VALUE_BYTES
from benchmarks.record import Sample
from benchmarks.rows.base import Family
from benchmarks.systems.base import running
from benchmarks.systems.etcd import Etcd
from benchmarks.systems.ringkv import RingKV
from kv.client import AsyncClient
from kv.errors import KVError

ATTEMPT_S: Final = 0.25
PAUSE_S: Final = 0.01
LIMIT_S: Final = 60.0
SETTLE_S: Final = 1.0
"""Writes go on so long before the kill: an outage hits clients that are connected and at work."""

KEY: Final = b"key-of-the-group"
VALUE: Final = b"v" * VALUE_BYTES
CHANNEL_OPTIONS: Final = (
    # gRPC would wait a second and more before it dials a member again.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
)


class Outage(Family):
    """ringkv and etcd; each killed node is started again and has caught up before the next is killed."""

    rows = (7,)
    systems = (RINGKV, ETCD)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        made = RingKV(folder, self.options.partitions) if system == RINGKV else Etcd(folder)
        async with running(made):
            for _ in range(self.options.kills_per_round):
                outage_s = await (kill_ringkv(made) if isinstance(made, RingKV) else kill_etcd(made))
                yield Sample(7, made.title, goals.OUTAGE, number, {"s": outage_s})
        self.bench.discard(folder)


async def kill_ringkv(store: RingKV) -> float:
    """Kill the node that leads the partition of a key, and return the seconds until it is written again."""
    node = store.by_partitions_led()[0]
    (key,) = store.keys_led_by(node, 1)
    async with AsyncClient(store.addresses, timeout=LIMIT_S) as client:
        await _write_for(client, key, SETTLE_S)
        killed = time.monotonic()
        store.cluster.kill(node)
        outage_s = await _first_write(client, key, killed)
    store.cluster.start(node)
    store.view = await store.cluster.wait_ready(LIMIT_S)
    await store.cluster.wait_caught_up(node, store.view.commit_indexes(), LIMIT_S)
    return outage_s


async def _write_for(client: AsyncClient, key: bytes, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await client.put(key, VALUE)


async def _first_write(client: AsyncClient, key: bytes, killed: float) -> float:
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                await client.put(key, VALUE)
            except KVError:  # an outage is what is measured
                await asyncio.sleep(PAUSE_S)
            else:
                return time.monotonic() - killed


async def kill_etcd(etcd: Etcd) -> float:
    """Kill the leader, and return the seconds until any other member takes a write."""
    leader = await etcd.ready()
    others = etcd.addresses[1:]
    writers = [Writer(address) for address in others]
    try:
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            for writer in writers:
                await writer.attempt()
        killed = time.monotonic()
        etcd.kill(leader)
        outage_s = await _first_of(writers, killed)
    finally:
        for writer in writers:
            await writer.close()
    etcd.restart(leader)
    await etcd.ready()
    return outage_s


async def _first_of(writers: Sequence[Writer], killed: float) -> float:
    attempts = [asyncio.create_task(writer.until_done()) for writer in writers]
    try:
        done, _ = await asyncio.wait(attempts, timeout=LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError(f"no write for {LIMIT_S:.0f} s")
        return min(task.result() for task in done) - killed
    finally:
        for task in attempts:
            task.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)


class Writer:
    """Writes at one member."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._put = unary(self._channel, wire.PUT)

    async def attempt(self) -> bool:
        """Return whether one write succeeded in time."""
        try:
            await self._put(wire.put(KEY, VALUE), timeout=ATTEMPT_S)
        except grpc.aio.AioRpcError:  # an outage is what is measured
            return False
        return True

    async def until_done(self) -> float:
        """Return the moment at which a write succeeded."""
        while True:
            if await self.attempt():
                return time.monotonic()
            await asyncio.sleep(PAUSE_S)  # another process's state: there is no event to await

    async def close(self) -> None:
        """Close its channel."""
        await self._channel.close()
