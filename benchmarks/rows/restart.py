"""Row 11: a node that was killed under load starts again, with many keys and a full log tail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import grpc
import grpc.aio

from benchmarks import goals
from benchmarks.clients import key_of
from benchmarks.processes import POLL_S
from benchmarks.record import Sample
from benchmarks.rows.base import Bench, Family
from benchmarks.rows.scale import put_batches
from benchmarks.systems.base import running
from benchmarks.systems.ringkv import RingKV
from kv.cluster.map import from_proto
from kv.router.ring import Ring
from kv.v1 import kv_pb2, kv_pb2_grpc

NODE: Final = "n1"
ATTEMPT_S: Final = 1.0
LIMIT_S: Final = 120.0


class Restart(Family):
    """The store is filled once and kept; each round puts load on it, kills a node at the end of that and starts it.

    It serves when it has answered a linearizable get of each partition from its own replica: that needs everything
    acknowledged before to be applied there.
    """

    rows = (11,)
    systems = (goals.RESTART,)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._store: RingKV | None = None

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        store = self._store or await self._filled()
        async with running(store):
            keys = one_key_each(store)
            await put_batches(self, store, self.options.keys_memory)
            store.cluster.kill(NODE)
            began = time.monotonic()
            store.cluster.start(NODE)
            await answers(store, keys)
            serves_s = time.monotonic() - began
            yield Sample(11, store.title, system, number, {"serves_s": serves_s})

    async def _filled(self) -> RingKV:
        store = RingKV(self.bench.scratch(), self.options.partitions)
        async with running(store):
            await self.bench.fill(store, self.options.keys_memory)
        self.kept.callback(self.bench.discard, store.cluster.directory)
        self._store = store
        return store


def one_key_each(store: RingKV) -> Mapping[int, bytes]:
    """Return a key of each partition that has a replica on the node."""
    assert store.view is not None, "the cluster has started"
    assert store.view.cluster_map is not None, "a ready cluster has a map"
    cluster_map = from_proto(store.view.cluster_map)
    ring, wanted = Ring(cluster_map.partitions), {part.id for part in cluster_map.partitions_on(NODE)}
    found: dict[int, bytes] = {}
    number = 0
    while wanted - found.keys():
        key = key_of(number)
        found.setdefault(ring.partition_of(key), key)
        number += 1
    return {partition: found[partition] for partition in sorted(wanted)}


async def answers(store: RingKV, keys: Mapping[int, bytes]) -> None:
    """Return when the node has answered for each partition from its own replica. Raises `TimeoutError`."""
    options = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50))
    async with (
        asyncio.timeout(LIMIT_S),
        grpc.aio.insecure_channel(store.address_of(NODE), options=options) as channel,
    ):
        stub = kv_pb2_grpc.KVServiceStub(channel)
        await asyncio.gather(*(_answers(stub, key) for key in keys.values()))


async def _answers(stub: kv_pb2_grpc.KVServiceAsyncStub, key: bytes) -> None:
    request = kv_pb2.GetRequest(
        key=key,
        level=kv_pb2.READ_LEVEL_LINEARIZABLE,
        read=kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LOCAL),
    )
    while True:
        try:
            reply = await stub.Get(request, timeout=ATTEMPT_S)
        except grpc.aio.AioRpcError:  # it starts: how long that takes is what is measured
            await asyncio.sleep(POLL_S)
            continue
        if reply.evidence.node == NODE:
            return
        await asyncio.sleep(POLL_S)
