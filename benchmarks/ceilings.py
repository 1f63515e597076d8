"""What this machine does without any store: the ceilings under which every figure stands.

    python -m benchmarks.ceilings FOLDER SECONDS ECHO_ADDRESS

One process measures them one after the other and prints one JSON object: names and rates. The server of the stream echo
is `systems.echo`; the rest is a disk, LMDB and protobuf, each as the store uses it, and nothing around it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import lmdb
import uvloop

from benchmarks.calls import stream
from benchmarks.stats import quantile
from benchmarks.systems.echo import STREAM
from kv.v1 import kv_pb2

KEY: Final = b"key-%012d"
VALUE: Final = b"v" * 100
BATCH: Final = 512
SMALL_BATCH: Final = 128
STREAM_IN_FLIGHT: Final = 8
APPENDS_BYTES: Final = (4 * 1024, 64 * 1024, 1024 * 1024)
LMDB_BYTES: Final = 1 << 30
LMDB_TXN: Final = 1000
KEYS: Final = 1_000_000

Rates = Mapping[str, Mapping[str, float]]


def main() -> None:
    """Measure all of them."""
    folder, seconds, address = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    found: dict[str, Mapping[str, float]] = {}
    for size in APPENDS_BYTES:
        found[f"append of {size // 1024} KiB and fdatasync"] = appends(folder, size, seconds)
    found[f"LMDB put, {LMDB_TXN} in a transaction, not synced"] = lmdb_puts(folder, seconds)
    found[f"protobuf decode of puts, {SMALL_BATCH} in a message"] = decodes(seconds)
    found[f"protobuf encode of puts, {SMALL_BATCH} in a message"] = encodes(seconds)
    found[f"gRPC stream echo of puts, {BATCH} in a message"] = uvloop.run(stream_echo(address, seconds))
    print(json.dumps(found))


def repeated(once: Callable[[], int], seconds: float) -> dict[str, float]:
    """Call `once`, which returns how many operations it did, for so long; return rate and latencies."""
    took: list[float] = []
    done, start = 0, time.perf_counter()
    while (began := time.perf_counter()) < start + seconds:
        done += once()
        took.append(time.perf_counter() - began)
    span_s = time.perf_counter() - start
    took.sort()
    return {
        "per_s": done / span_s,
        "p50_ms": 1000 * quantile(took, 0.5),
        "p99_ms": 1000 * quantile(took, 0.99),
    }


def appends(folder: Path, size: int, seconds: float) -> dict[str, float]:
    """Append and sync, in a file that is preallocated as the write-ahead log's segments are."""
    path, data = folder / f"append-{size}", os.urandom(size)
    allocated = 64 << 20
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.posix_fallocate(file, 0, allocated)
        os.fsync(file)
        at = 0

        def once() -> int:
            nonlocal at
            os.pwrite(file, data, at)
            os.fdatasync(file)
            at = (at + size) % (allocated - size)
            return 1

        return repeated(once, seconds)
    finally:
        os.close(file)


def lmdb_puts(folder: Path, seconds: float) -> dict[str, float]:
    """Put random keys, so many in one transaction; commits are not synced, as between checkpoints."""
    path = folder / "lmdb"
    path.mkdir()
    with lmdb.open(str(path), map_size=LMDB_BYTES, sync=False) as environment:

        def once() -> int:
            with environment.begin(write=True) as transaction:
                for _ in range(LMDB_TXN):
                    transaction.put(KEY % int(random.random() * KEYS), VALUE)
            return LMDB_TXN

        return repeated(once, seconds)


def batch(count: int) -> kv_pb2.BatchRequest:
    """Return a request of so many puts."""
    request = kv_pb2.BatchRequest()
    for number in range(count):
        put = request.operations.add().put
        put.key, put.value = KEY % number, VALUE
    return request


def decodes(seconds: float) -> dict[str, float]:
    """Decode a request of puts, and look at each key and value once."""
    data = batch(SMALL_BATCH).SerializeToString()

    def once() -> int:
        request = kv_pb2.BatchRequest.FromString(data)
        for operation in request.operations:
            put = operation.put
            _ = put.key, put.value
        return SMALL_BATCH

    return repeated(once, seconds)


def encodes(seconds: float) -> dict[str, float]:
    """Build and encode a request of puts."""
    return repeated(lambda: SMALL_BATCH if batch(SMALL_BATCH).SerializeToString() else 0, seconds)


async def stream_echo(address: str, seconds: float) -> dict[str, float]:
    """Send messages of puts over one stream, a few under way, and count those that came back."""
    data = batch(BATCH).SerializeToString()
    window = asyncio.Semaphore(STREAM_IN_FLIGHT)
    start = time.perf_counter()
    until = start + seconds

    async def messages() -> AsyncIterator[bytes]:
        while time.perf_counter() < until:
            await window.acquire()
            yield data

    done = 0
    async with grpc.aio.insecure_channel(address) as channel:
        async for _ in stream(channel, STREAM)(messages()):
            done += BATCH
            window.release()
    return {"per_s": done / (time.perf_counter() - start)}


if __name__ == "__main__":
    main()
