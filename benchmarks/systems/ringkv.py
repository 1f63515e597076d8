"""ringkv: three `kv serve` with the defaults of the product."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.clients import key_of
from benchmarks.goals import RINGKV
from benchmarks.processes import Failed
from benchmarks.systems.base import NODES, READY_TIMEOUT_S, System
from kv.cli.cluster_process import LocalCluster
from kv.cli.view import ClusterView
from kv.cluster.map import from_proto
from kv.router.ring import Ring


class RingKV(System):
    """A cluster of so many partitions in `folder`; started again, it finds its data."""

    title = RINGKV
    client = "ringkv"

    def __init__(self, folder: Path, partitions: int, options: Mapping[str, object] | None = None) -> None:
        self.cluster = LocalCluster(folder, nodes=NODES, partitions=partitions, options=options or {})
        self.view: ClusterView | None = None

    async def start(self) -> None:
        """See `System`."""
        self.cluster.start()
        self.view = await self.cluster.wait_ready(READY_TIMEOUT_S)

    def close(self) -> None:
        """See `System`."""
        self.cluster.close()

    def pids(self) -> dict[str, int]:
        """See `System`."""
        pids = {node: self.cluster.pid(node) for node in self.cluster.specs}
        return {node: pid for node, pid in pids.items() if pid is not None}

    @property
    def addresses(self) -> Sequence[str]:
        """See `System`."""
        return [spec.address for spec in self.cluster.specs.values()]

    def address_of(self, node: str) -> str:
        """Return where `node` serves gRPC."""
        return self.cluster.specs[node].address

    def by_partitions_led(self) -> list[str]:
        """Return the nodes, the one that led most partitions first, when the cluster was last seen ready."""
        assert self.view is not None, "the cluster has started"
        led = {node: len(self.view.led_by(node)) for node in self.cluster.specs}
        return sorted(led, key=lambda node: -led[node])

    def keys_led_by(self, node: str, count: int) -> list[bytes]:
        """Return the first `count` keys of partitions that `node` led when the cluster was last seen ready.

        Raises `Failed` if it led none.
        """
        assert self.view is not None, "the cluster has started"
        led = set(self.view.led_by(node))
        if not led:
            raise Failed(f"{node} leads no partition")
        ring = self._ring()
        keys = (key_of(number) for number in itertools.count())
        return list(itertools.islice((key for key in keys if ring.partition_of(key) in led), count))

    def partition_of(self, key: bytes) -> int:
        """Return the partition of a key."""
        return self._ring().partition_of(key)

    def _ring(self) -> Ring:
        assert self.view is not None, "the cluster has started"
        assert self.view.cluster_map is not None, "a ready cluster has a map"
        return Ring(from_proto(self.view.cluster_map).partitions)

    def command(self) -> str:
        """See `System`."""
        words = self.cluster.command("n1")
        text = shlex.join(["python", *words[1:]]) if words[0] == sys.executable else shlex.join(words)
        return text.replace(f"{self.cluster.directory}{os.sep}", "DATA/")
