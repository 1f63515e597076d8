"""A load process: reads one `Order` as JSON from its argument, puts the load on, prints one JSON result.

The load of a slice is a process of its own, so that no slice inherits memory, connections or garbage of another, and
so that the client of every system runs under the same conditions: uvloop, and a garbage collector that looks seldom and not
at what was there before the load.

    python -m benchmarks.worker '{"system": "etcd", "kind": "put", "addresses": ["127.0.0.1:2379"], ...}'
"""

from __future__ import annotations

import json
import sys
import time
from asyncio import TaskGroup
from collections.abc import Awaitable, Iterator
from dataclasses import asdict, dataclass

import uvloop

from benchmarks.clients import CLIENTS, FILL_OPERATIONS, Client, Data, key_of
from benchmarks.load import Answered, Counted, Operation, Refused, Tally, closed_loop, open_loop
from kv import collector


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do.

    Attributes:
        system: a key of `CLIENTS`.
        kind: "put", "get" or "fill", which writes every key once.
        addresses: of the nodes, the leader first where there is one.
        tasks: calls at the same time.
        batch: operations in one call; 1: the plain call.
        seconds: measured, after `warmup_s`.
        keys: how many keys there are.
        value_bytes: of each value.
        listed: whether keys are made beforehand; not, where rows with more keys than that are compared.
        calls_per_s: above 0: an open loop of that rate, and `tasks` means nothing.
    """

    system: str
    kind: str
    addresses: tuple[str, ...]
    tasks: int = 1
    batch: int = 1
    seconds: float = 1.0
    warmup_s: float = 0.0
    keys: int = 1
    value_bytes: int = 100
    listed: bool = True
    calls_per_s: float = 0.0

    def text(self) -> str:
        """Return the argument of the process."""
        return json.dumps(asdict(self))


def main() -> None:
    """Do what the argument says."""
    given = json.loads(sys.argv[1])
    order = Order(**{**given, "addresses": tuple(given["addresses"])})
    print(json.dumps(uvloop.run(work(order))))


async def work(order: Order) -> dict[str, object]:
    """Return metrics, operations in each second, and how often calls failed for which reason."""
    data = Data(order.keys, order.value_bytes, listed=order.listed)
    async with CLIENTS[order.system](order.addresses, data) as client:
        if order.kind == "fill":
            return {"metrics": await fill(client, order), "series": [], "reasons": {}}
        collector.calm()  # what a busy client of any system should do
        tally = await measure(client, order)
    return {"metrics": tally.metrics(), "series": tally.series(), "reasons": dict(tally.reasons)}


async def measure(client: Client, order: Order) -> Tally:
    """Run the loop of `order`."""
    if order.calls_per_s:
        return await open_loop(
            *calls(client, order),
            operations=order.batch,
            calls_per_s=order.calls_per_s,
            warmup_s=order.warmup_s,
            seconds=order.seconds,
        )
    return await closed_loop(
        *calls(client, order),
        operations=order.batch,
        tasks=order.tasks,
        warmup_s=order.warmup_s,
        seconds=order.seconds,
    )


def calls(client: Client, order: Order) -> tuple[Operation, Answered, Refused]:
    """Return how one call of `order` is made, and how its end counts."""
    one = {"put": client.put, "get": client.get}[order.kind]
    many = {"put": client.put_many, "get": client.get_many}[order.kind]

    def batch() -> Awaitable[object]:
        return many(client.data.some(order.batch))

    def answered(result: object) -> Counted | None:
        return client.answered(result, order.batch)

    def refused(error: Exception) -> Counted:
        return client.refused(error, order.batch)

    return batch if order.batch > 1 else one, answered, refused


async def fill(client: Client, order: Order) -> dict[str, float]:
    """Write every key once, and say how long it took; a key that could not be written is an error."""
    pieces = iter(range(0, order.keys, FILL_OPERATIONS))

    async def loop(rest: Iterator[int]) -> None:
        for first in rest:
            keys = [key_of(number) for number in range(first, min(first + FILL_OPERATIONS, order.keys))]
            counted = client.answered(await client.put_many(keys), len(keys))
            if counted is not None:
                raise RuntimeError(f"keys from {first} were not written: {counted.reason}")

    began = time.perf_counter()
    async with TaskGroup() as group:
        for _ in range(order.tasks):
            group.create_task(loop(pieces))
    return {"fill_s": time.perf_counter() - began}


if __name__ == "__main__":
    main()
