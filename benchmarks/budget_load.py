"""The client process of the budget: a closed loop without an end, which counts from mark to mark.

    python -m benchmarks.budget_load '{"system": "ringkv", "kind": "put", ...}'

Each line on standard input is a mark: one JSON line answers it with what ended since the mark before. So the runner
can set the CPU of every process between two marks against exactly the operations between them. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array

import uvloop

from benchmarks.clients import CLIENTS, Data
from benchmarks.load import Answered, Operation, Refused
from benchmarks.stats import quantile
from benchmarks.worker import Order, calls


class Marks:
    """What ended since the mark before."""

    def __init__(self) -> None:
        self.latencies_s: array[float] = array("d")
        self.failed = 0

    def take(self) -> dict[str, float]:
        """Return it, and begin anew."""
        ordered = sorted(self.latencies_s)
        found = {
            "operations": len(ordered),
            "failed": self.failed,
            "p50_ms": 1000 * quantile(ordered, 0.5) if ordered else 0.0,
        }
        self.latencies_s, self.failed = array("d"), 0
        return found


def main() -> None:
    """Do what the argument says until standard input ends."""
    given = json.loads(sys.argv[1])
    uvloop.run(work(Order(**{**given, "addresses": tuple(given["addresses"])})))


async def work(order: Order) -> None:
    """Put the load on, and answer marks."""
    data, marks = Data(order.keys, order.value_bytes), Marks()
    async with CLIENTS[order.system](order.addresses, data) as client:
        tasks = [asyncio.create_task(endless(*calls(client, order), marks=marks)) for _ in range(order.tasks)]
        answering = asyncio.create_task(answer(marks))
        try:
            done, _ = await asyncio.wait((answering, *tasks), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (answering, *tasks):
                task.cancel()
            await asyncio.gather(
                answering, *tasks, return_exceptions=True
            )  # the first error was raised above


async def endless(operation: Operation, answered: Answered, refused: Refused, *, marks: Marks) -> None:
    """Call one after the other; each counts when it ends."""
    clock = time.perf_counter
    while True:
        began = clock()
        try:
            counted = answered(await operation())
        except Exception as error:  # noqa: BLE001 - `refused` raises what it does not know
            counted = refused(error)
        if counted is None:
            marks.latencies_s.append(clock() - began)
        else:
            marks.failed += 1


async def answer(marks: Marks) -> None:
    """Answer each line of standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while await reader.readline():
        print(json.dumps(marks.take()), flush=True)


if __name__ == "__main__":
    main()
