"""One client process of a run: `python -m kv.bench.worker`, which speaks `kv.bench.wire` over its pipes.

Started anew and not forked, since gRPC does not survive a fork. It ends when the pipe of its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import uvloop

from kv import collector
from kv.bench import wire
from kv.bench.generator import Generator
from kv.bench.plan import Plan, Share, window_ns
from kv.bench.tally import Tally
from kv.bench.workload import arrivals_of, prefill_of, work_of
from kv.client import AsyncClient, Put
from kv.client.url import parse_url
from kv.errors import KVError

PROGRESS_S: Final = 0.25
"""Between two reports of progress."""

PREFILL_OPS: Final = 500
"""Keys of one batch of the prefill."""

PREFILL_BYTES: Final = 1 << 20
"""Bytes of one batch of the prefill, about."""

PREFILL_TIMEOUT_S: Final = 60.0
"""For one batch of the prefill: it must not fail where the measured load would."""


def main() -> None:
    """Run one share, then exit: 0 with a result, 1 with an error that was told."""
    sys.exit(uvloop.run(_serve()))


async def _serve() -> int:
    commands = await _commands()
    share = Share.parse(wire.decode(await commands.readline()))
    starting = asyncio.ensure_future(commands.readline())
    work = asyncio.ensure_future(_work(share, starting))
    # The second line is the start; whatever comes after it is the end of the pipe.
    end = asyncio.ensure_future(_end(commands, starting))
    await asyncio.wait((work, end), return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        return 1
    end.cancel()
    return work.result()


async def _commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=wire.LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def _end(commands: asyncio.StreamReader, starting: asyncio.Future[bytes]) -> None:
    """Return once nobody listens any more."""
    if await asyncio.shield(starting):
        await commands.read()


async def _work(share: Share, starting: asyncio.Future[bytes]) -> int:
    try:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(make_client(share.plan))
                for _ in range(share.plan.connections)
            ]
            for client in clients:
                await client.cluster_map()
            await _prefill(share, clients[0])
            collector.calm()
            _tell({"ready": True})
            start = await starting
            if start:
                _tell({"result": (await _measure(share, clients, wire.decode(start))).fields()})
    except KVError as error:
        _tell(wire.error_fields(error))
        return 1
    return 0


def make_client(plan: Plan) -> AsyncClient:
    """Return a client with the options of the plan above those of its URL."""
    options = parse_url(plan.url)
    return AsyncClient(
        options.endpoints,
        timeout=options.timeout_s if plan.timeout_s is None else plan.timeout_s,
        level=options.level if plan.level is None else plan.level,
        prefer=options.prefer if plan.prefer is None else plan.prefer,
        write_level=options.write if plan.write_level is None else plan.write_level,
    )


async def _prefill(share: Share, client: AsyncClient) -> None:
    """Write the keys of this share; the first that cannot be written ends the run."""
    pairs = prefill_of(share)
    size = max(1, min(PREFILL_OPS, PREFILL_BYTES // (share.plan.key_bytes + share.plan.value_bytes)))
    done = 0
    while ops := [Put(key, value) for key, value in itertools.islice(pairs, size)]:
        for result in await client.batch(ops, timeout=PREFILL_TIMEOUT_S):
            if isinstance(result, KVError):
                raise result
        done += len(ops)
        _tell({"prefilled": done})


async def _measure(share: Share, clients: Sequence[AsyncClient], start: Mapping[str, Any]) -> Tally:
    tally = Tally(window_ns(share.plan))
    generator = Generator(
        share,
        clients,
        work_of(share),
        tally,
        clock=time.monotonic_ns,
        start_ns=int(start["start_ns"]),
    )
    reporting = asyncio.ensure_future(_report(tally, generator))
    begun_s, cpu_s = time.monotonic(), time.process_time()
    await generator.run(arrivals_of(share) if share.plan.open_loop else iter(()))
    reporting.cancel()
    tally.cpu_s.append((time.process_time() - cpu_s) / max(time.monotonic() - begun_s, 1e-9))
    return tally


async def _report(tally: Tally, generator: Generator) -> None:
    """Tell how far the run is, now and then."""
    while True:
        await asyncio.sleep(PROGRESS_S)
        windows = tally.windows.values()
        progress = wire.Progress(
            sum(window.ok for window in windows),
            sum(window.failed for window in windows),
            tally.dropped_total,
            generator.outstanding,
        )
        _tell({"progress": progress.fields()})


def _tell(message: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(wire.encode(message))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
