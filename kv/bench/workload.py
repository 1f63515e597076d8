"""What an operation is, for each kind of load: drawn here, run by the generator. No clock, no counting."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import NamedTuple, Protocol, TypeAlias

from kv.bench.arrivals import constant, poisson
from kv.bench.keys import PREFIX_END, Choice, key_name, uniform_choice, zipfian_choice
from kv.bench.kinds import Arrivals, Distribution, Kind
from kv.bench.plan import Plan, Share
from kv.bench.tally import Ending
from kv.client.types import Op, Put, Result, ScanPage
from kv.errors import KVError


class Target(Protocol):
    """What is loaded: the methods of `kv.client.AsyncClient` that a load needs."""

    async def put(self, key: bytes, value: bytes) -> object:
        """Write one key."""

    async def get(self, key: bytes) -> object | None:
        """Read one key."""

    async def batch(self, ops: Sequence[Op]) -> list[Result]:
        """Run many operations."""

    def scan_pages(self, *, start: bytes, end: bytes, limit: int) -> AsyncGenerator[ScanPage, None]:
        """Read a range."""


class Work(NamedTuple):
    """One sort of operation."""

    done: Ending
    """How it ends if it succeeds."""
    run: Callable[[Target], Awaitable[int]]
    """Draws a key, does it, and returns how many keys it wrote, found or read. Raises `KVError`."""


Pick: TypeAlias = Callable[[], Work]
"""Returns what the next operation is."""


def work_of(share: Share) -> Pick:
    """Return what chooses the operations of a share; the same share chooses the same ones again."""
    plan = share.plan
    # Not from one stream with the arrivals: which keys come must not depend on how many were dropped.
    draw = random.Random(f"{share.seed}/keys")
    choose = _choice(plan, draw.random)
    value = draw.randbytes(plan.value_bytes)
    match plan.kind:
        case Kind.PUT:
            return _always(_put(plan, choose, value))
        case Kind.GET:
            return _always(_get(plan, choose))
        case Kind.MIXED:
            put, get = _put(plan, choose, value), _get(plan, choose)
            ratio, uniform = plan.read_ratio, draw.random
            return lambda: get if uniform() < ratio else put
        case Kind.SCAN:
            return _always(_scan(plan, choose))
        case Kind.BATCH:
            return _always(_batch(plan, choose, value))
        case Kind.WATCH:
            raise AssertionError("a plan refuses watches")


def arrivals_of(share: Share) -> Iterator[int]:
    """Return when the operations of a share are due, in ns since its beginning."""
    match share.plan.arrivals:
        case Arrivals.CONSTANT:
            return constant(share.rate_per_s, share.phase)
        case Arrivals.POISSON:
            return poisson(share.rate_per_s, random.Random(f"{share.seed}/arrivals").random)


def prefill_of(share: Share) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys that a share writes before, with their values."""
    value = random.Random(f"{share.seed}/prefill").randbytes(share.plan.value_bytes)
    name = key_name(share.plan.key_bytes)
    for number in share.prefill:
        yield name(number), value


def _choice(plan: Plan, uniform: Callable[[], float]) -> Choice:
    match plan.distribution:
        case Distribution.UNIFORM:
            return uniform_choice(plan.keys, uniform)
        case Distribution.ZIPFIAN:
            return zipfian_choice(plan.keys, plan.theta, uniform)


def _always(work: Work) -> Pick:
    return lambda: work


def _put(plan: Plan, choose: Choice, value: bytes) -> Work:
    name = key_name(plan.key_bytes)

    async def run(target: Target) -> int:
        await target.put(name(choose()), value)
        return 1

    return Work(Ending("put"), run)


def _get(plan: Plan, choose: Choice) -> Work:
    name = key_name(plan.key_bytes)

    async def run(target: Target) -> int:
        return int(await target.get(name(choose())) is not None)

    return Work(Ending("get"), run)


def _scan(plan: Plan, choose: Choice) -> Work:
    name, last = key_name(plan.key_bytes), plan.keys - plan.scan_length

    async def run(target: Target) -> int:
        start = name(min(choose(), last))
        found = 0
        pages = target.scan_pages(start=start, end=PREFIX_END, limit=plan.scan_length)
        async with aclosing(pages):
            async for page in pages:
                found += len(page)
        return found

    return Work(Ending("scan"), run)


def _batch(plan: Plan, choose: Choice, value: bytes) -> Work:
    name = key_name(plan.key_bytes)

    async def run(target: Target) -> int:
        results = await target.batch([Put(name(choose()), value) for _ in range(plan.batch_ops)])
        for result in results:
            if isinstance(result, KVError):
                raise result  # a batch of which a part failed has failed
        return len(results)

    return Work(Ending("batch"), run)
