"""Rows 1 to 4: put and get against etcd. From Python with 256 tasks and one, in batches, and by h2load for etcd's best."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from benchmarks import goals, h2load, wire
from benchmarks.clients import FILL_OPERATIONS, KEY_BYTES, key_of
from benchmarks.goals import ETCD, RINGKV
from benchmarks.h2load_text import H2Load
from benchmarks.options import VALUE_BYTES
from benchmarks.processes import Failed
from benchmarks.record import Sample
from benchmarks.rows.base import Family
from benchmarks.systems.base import System, running
from benchmarks.systems.etcd import Etcd, key_version
from benchmarks.systems.ringkv import RingKV

BATCH: Final = FILL_OPERATIONS
TASKS: Final = 256
IN_FLIGHT: Final = h2load.Shape(processes=1, connections=8, streams=128)
"""1,024 single requests."""

TXN_PUTS: Final = {
    goals.TXN_C_8: h2load.Shape(processes=1, connections=2, streams=4),
    goals.TXN_C_32: h2load.Shape(processes=1, connections=8, streams=4),
}
"""Which of them is etcd's best depends on the machine; the better one counts."""

TXN_GETS: Final = h2load.Shape(processes=1, connections=2, streams=8)

KEY: Final = key_of(0)
VALUE: Final = b"v" * VALUE_BYTES

assert len(KEY) == KEY_BYTES

PYTHON: Final = {
    RINGKV: (
        (1, goals.PUT_256, "put", TASKS, 1),
        (2, goals.PUT_128, "put", 0, BATCH),
        (3, goals.GET_256, "get", TASKS, 1),
        (3, goals.GETS_128, "get", 0, BATCH),
        (4, goals.PUT_1, "put", 1, 1),
        (4, goals.GET_1, "get", 1, 1),
    ),
    ETCD: (
        (1, goals.PUT_256, "put", TASKS, 1),
        (2, goals.TXN_PY, "put", 0, BATCH),
        (3, goals.GET_256, "get", TASKS, 1),
        (3, goals.RANGE_TXN_PY, "get", 0, BATCH),
        (4, goals.PUT_1, "put", 1, 1),
        (4, goals.GET_1, "get", 1, 1),
    ),
}
"""By system: row, work, kind, tasks (0: as many batches as the options say), operations in a call."""


class Tasks(Family):
    """ringkv and etcd, each alone on the machine while it is measured."""

    rows = (1, 2, 3, 4)
    systems = (RINGKV, ETCD)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        made: System = RingKV(folder, self.options.partitions_beside) if system == RINGKV else Etcd(folder)
        self.bench.note(made.command())
        async with running(made):
            await self.bench.fill(made, self.options.keys)
            for row, work, kind, tasks, batch in PYTHON[system]:
                if self.wants(row):
                    count = tasks or self.options.batches_in_flight
                    loaded = await self.bench.load(made, kind, tasks=count, batch=batch)
                    yield loaded.sample(row, made, work, number)
            if isinstance(made, Etcd):
                async with contextlib.aclosing(self._by_h2load(made, number)) as samples:
                    async for sample in samples:
                        yield sample
        self.bench.discard(folder)

    async def _by_h2load(self, etcd: Etcd, number: int) -> AsyncGenerator[Sample, None]:
        put, get = wire.put(KEY, VALUE), wire.get(KEY)
        keys = [key_of(place) for place in range(BATCH)]
        puts = wire.txn(puts=[wire.put(key, VALUE) for key in keys])
        gets = wire.txn(gets=[wire.get(key) for key in keys])
        works = (
            (1, goals.PUT_C, wire.PUT, put, IN_FLIGHT, 1),
            *((2, work, wire.TXN, puts, shape, BATCH) for work, shape in TXN_PUTS.items()),
            (3, goals.RANGE_C, wire.RANGE, get, IN_FLIGHT, 1),
            (3, goals.RANGE_TXN_C, wire.TXN, gets, TXN_GETS, BATCH),
        )
        address = etcd.addresses[0]
        for row, work, method, message, shape, operations in works:
            if not self.wants(row):
                continue
            reads_only = method == wire.TXN and row == 3
            before = await key_version(address, KEY)
            # etcd 3.5.1 panics if a Txn that only reads is cancelled, which a load of a fixed time does at its end.
            load = self.bench.by_h2load_awaited if reads_only else self.bench.by_h2load
            found = await load(address, method, [message], shape)
            if row == 3:
                check_replies(found, VALUE_BYTES * operations)
            else:
                check_done(found.succeeded, await key_version(address, KEY) - before)
            yield Sample(row, ETCD, work, number, h2load.metrics(found, operations))


def check_replies(found: H2Load, bytes_min: int) -> None:
    """Raise `Failed` if the replies hold less than so many bytes each: what was refused has none."""
    if found.data_bytes < bytes_min * found.succeeded:
        raise Failed(
            f"h2load counted {found.succeeded} replies, but only {found.data_bytes} bytes: some were refused"
        )


def check_done(counted: int, written: int) -> None:
    """Raise `Failed` if fewer writes were done than h2load counted replies: a refused gRPC call has HTTP status 200."""
    if written < counted:
        raise Failed(
            f"h2load counted {counted} replies, but only {written} writes were done: some were refused"
        )
