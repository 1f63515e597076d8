"""What the generator's tests load: a target in virtual time that answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kv.bench.generator import Generator
from kv.bench.kinds import Kind
from kv.bench.plan import Plan, Share, window_ns
from kv.bench.tally import Tally
from kv.bench.workload import arrivals_of, work_of
from kv.client.types import Evidence, Item, Op, PutReply, Result, ScanPage
from kv.errors import KVError
from tests.client.virtual import run_virtual

PROOF = Evidence(1, 1, 1, 1, "n1", None)
URL = "kv://127.0.0.1:7001"


async def at_once() -> None:
    """Answer in the same turn of the event loop."""


@dataclass
class Scripted:
    """A target that keeps what it is asked."""

    serve: Callable[[], Awaitable[None]] = at_once
    """Runs before each answer: waits, or raises."""
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    inside: int = 0
    inside_max: int = 0
    found: Callable[[bytes], bool] = lambda _key: True

    async def _serve(self, *what: Any) -> None:  # noqa: ANN401 - whatever was asked
        self.asked.append(what)
        self.times_s.append(asyncio.get_running_loop().time())
        self.inside += 1
        self.inside_max = max(self.inside_max, self.inside)
        try:
            await self.serve()
        finally:
            self.inside -= 1

    async def put(self, key: bytes, value: bytes) -> object:
        """Answer a put."""
        await self._serve("put", key, value)
        return PutReply(1, 1, PROOF)

    async def get(self, key: bytes) -> object | None:
        """Answer a get."""
        await self._serve("get", key)
        return Item(key, b"", 1, 1, 1) if self.found(key) else None

    async def batch(self, ops: Sequence[Op]) -> list[Result]:
        """Answer a batch; a refusal is the result of its last operation."""
        results: list[Result] = [PutReply(1, 1, PROOF) for _ in ops]
        try:
            await self._serve("batch", list(ops))
        except KVError as error:
            results[-1] = error
        return results

    async def scan_pages(self, *, start: bytes, end: bytes, limit: int) -> AsyncGenerator[ScanPage, None]:
        """Answer a scan in two pages."""
        await self._serve("scan", start, end, limit)
        item = Item(start, b"", 1, 1, 1)
        for size in (limit // 2, limit - limit // 2):
            yield ScanPage([item] * size)


def play(
    target: Scripted,
    kind: Kind = Kind.PUT,
    *,
    head_start_s: float = 0.0,
    **settings: Any,  # noqa: ANN401
) -> tuple[Plan, Tally]:
    """Run a plan of one process against `target` in virtual time, `head_start_s` after it was told to."""
    plan = Plan(kind, URL, **{"warmup_s": 0.0, **settings})
    tally = Tally(window_ns(plan))

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def clock() -> int:
            return round(loop.time() * 1e9)

        share = Share(plan, 0)
        start_ns = clock() + round((head_start_s + plan.warmup_s) * 1e9)
        generator = Generator(share, [target], work_of(share), tally, clock=clock, start_ns=start_ns)
        await generator.run(arrivals_of(share) if plan.open_loop else iter(()))
        assert generator.outstanding == 0

    run_virtual(main)
    return plan, tally
