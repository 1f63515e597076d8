"""Row 6: unary Put and Get by any gRPC client through a router, against an empty grpcio.aio server.

h2load posts one fixed body, and requests that write the same key never share a command of ringkv: so many h2loads run at
once, each with a key of its own, against the empty server as well.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from benchmarks import goals, h2load
from benchmarks.goals import GRPCIO, RINGKV
from benchmarks.options import VALUE_BYTES
from benchmarks.processes import Failed
from benchmarks.record import Sample
from benchmarks.rows.base import Family
from benchmarks.rows.tasks import check_done, check_replies
from benchmarks.systems.base import running
from benchmarks.systems.echo import UNARY, Echo
from benchmarks.systems.ringkv import RingKV
from kv.client import AsyncClient
from kv.v1 import kv_pb2

SHAPE: Final = h2load.Shape(processes=16, connections=1, streams=16)
"""256 calls in flight, on 16 keys."""

GET: Final = "/kv.v1.KVService/Get"
PUT: Final = "/kv.v1.KVService/Put"
VALUE: Final = b"v" * VALUE_BYTES


class Unary(Family):
    """The two servers run at the same moment; which is asked alternates, and who is first does from round to round."""

    rows = (6,)
    systems = ("both",)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        del system
        folder = self.bench.scratch()
        store, echo = RingKV(folder, self.options.partitions_beside), Echo(folder)
        self.bench.note(echo.command())
        async with running(store), running(echo):
            leader, other = store.by_partitions_led()[:2]
            keys = store.keys_led_by(leader, SHAPE.processes)
            async with AsyncClient(store.addresses) as client:
                for key in keys:
                    await client.put(key, VALUE)
                slices = works(store.address_of(leader), store.address_of(other), keys)
                for name, address, method, messages in (
                    slices[number % 2 :: 2] + slices[(number + 1) % 2 :: 2]
                ):
                    yield await self._echo(echo, number)
                    yield await self._one(client, keys, name, address, method, messages, number)
                await check_leads(store, leader, keys)
        self.bench.discard(folder)

    async def _echo(self, echo: Echo, number: int) -> Sample:
        found = await self.bench.by_h2load(echo.addresses[0], UNARY, [b""] * SHAPE.processes, SHAPE)
        return Sample(6, GRPCIO, goals.ECHO, number, h2load.metrics(found))

    async def _one(
        self,
        client: AsyncClient,
        keys: Sequence[bytes],
        name: str,
        address: str,
        method: str,
        messages: list[bytes],
        number: int,
    ) -> Sample:
        before = await written(client, keys)
        found = await self.bench.by_h2load(address, method, messages, SHAPE)
        if method == PUT:
            check_done(found.succeeded, await written(client, keys) - before)
        else:
            check_replies(found, VALUE_BYTES)
        return Sample(6, RINGKV, name, number, h2load.metrics(found))


async def written(client: AsyncClient, keys: Sequence[bytes]) -> int:
    """Return how many writes the keys have seen."""
    items = [await client.get(key) for key in keys]
    return sum(item.version for item in items if item is not None)


def works(leader: str, other: str, keys: Sequence[bytes]) -> list[tuple[str, str, str, list[bytes]]]:
    """Return name, address, method and a message for each key, of each slice."""
    gets = [kv_pb2.GetRequest(key=key).SerializeToString() for key in keys]
    puts = [kv_pb2.PutRequest(key=key, value=VALUE).SerializeToString() for key in keys]
    return [
        (goals.UNARY_GET_LEADER, leader, GET, gets),
        (goals.UNARY_PUT_LEADER, leader, PUT, puts),
        (goals.UNARY_GET_OTHER, other, GET, gets),
        (goals.UNARY_PUT_OTHER, other, PUT, puts),
    ]


async def check_leads(store: RingKV, leader: str, keys: Sequence[bytes]) -> None:
    """Raise `Failed` if a partition of the keys has another leader by now: then "at the leader" says nothing."""
    view = await store.cluster.view()
    moved = sorted({part for part in map(store.partition_of, keys) if view.leader(part) != leader})
    if moved:
        raise Failed(f"partitions {moved} are no longer led by {leader}: their leaders moved under the load")
