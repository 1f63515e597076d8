"""Row 12: values of 1 MiB, against the disk itself: a plain copy of a file with a sync, three times one after the other."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from benchmarks import goals
from benchmarks.goals import DISK, ETCD, RINGKV
from benchmarks.record import Sample
from benchmarks.rows.base import Family
from benchmarks.systems.base import NODES, System, running
from benchmarks.systems.etcd import Etcd
from benchmarks.systems.ringkv import RingKV

MIB: Final = 1 << 20
KEYS: Final = 128
TASKS: Final = 8


class Large(Family):
    """ringkv, etcd, and the disk."""

    rows = (12,)
    systems = (RINGKV, DISK, ETCD)

    async def measure(self, system: str, number: int) -> AsyncGenerator[Sample, None]:
        """See `Family`."""
        folder = self.bench.scratch()
        if system == DISK:
            rate = await asyncio.to_thread(copy_mib_per_s, folder, self.options.files_mib)
            yield Sample(12, DISK, goals.COPY, number, {"mib_per_s": rate})
        else:
            made: System = RingKV(folder, self.options.partitions) if system == RINGKV else Etcd(folder)
            async with running(made):
                loaded = await self.bench.load(made, "put", tasks=TASKS, keys=KEYS, value_bytes=MIB)
                metrics = {
                    ("mib_per_s" if name == "per_s" else name): v for name, v in loaded.metrics.items()
                }
                yield Sample(12, made.title, goals.LARGE, number, metrics, note=loaded.note)
        self.bench.discard(folder)


def copy_mib_per_s(folder: Path, mib: int) -> float:
    """Copy a file of so many MiB as often as there are replicas, each with a sync; return MiB/s of the file."""
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
    began = time.monotonic()
    for number in range(NODES):
        with source.open("rb") as origin, (folder / f"copy-{number}").open("wb") as copy:
            shutil.copyfileobj(origin, copy, MIB)
            copy.flush()
            os.fsync(copy.fileno())
    return mib / (time.monotonic() - began)
