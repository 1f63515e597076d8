"""After the faults: progress within a bound, convergence, and the limits that hold all the time.

Here lives what is asked of a whole cluster rather than of one event: that every partition accepts a write
and every replica catches up within `PROGRESS_S` of a calm, that replicas at the same index have the
same content at the end, and that nothing grows beyond its limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from kv.client import AsyncClient
from kv.errors import KVError, UnknownOutcome
from kv.partition.store import Store
from kv.raft.wal import SPACE_FACTOR
from kv.sim.inside import inside
from kv.sim.node import SimNode
from kv.sim.properties import Fail, Ledger
from kv.sim.trace import Trace

PROGRESS_S: Final = 7.5
"""After everything healed, each partition accepts a write and all replicas catch up within this (at scale 1)."""
POLL_S: Final = 0.25
OUTBOX_MESSAGES_MAX: Final = 20_000
"""Messages of one group that wait for the disk."""
CACHE_SLACK_BYTES: Final = 1 << 20
"""What is not durable yet cannot leave the cache."""
LOG_SEGMENTS_MAX: Final = 32
"""Segments on disk beyond twice what the log's own rule allows for what is live: compaction keeps up."""


class Convergence:
    """See the file's docstring."""

    def __init__(
        self, nodes: Sequence[SimNode], ledger: Ledger, fail: Fail, trace: Trace, scale: float
    ) -> None:
        self._bound_s = PROGRESS_S * scale
        self._nodes, self._ledger, self._fail, self._trace = nodes, ledger, fail, trace
        self._waiting: asyncio.Task[None] | None = None
        self._probes = 0
        self.reached = 0

    def use(self, client: AsyncClient, partitions: int) -> None:
        """Probe with this client."""
        self._client, self._partitions = client, partitions

    # ------------------------------------------------------------ progress

    def expect(self) -> None:
        """Everything healed: from now on progress is expected, until `stop_waiting`."""
        self._waiting = asyncio.ensure_future(self._progress())

    def stop_waiting(self) -> None:
        """The next fault comes: what was not reached by now is not held against anyone."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.cancel()
        self._waiting = None

    async def wait(self) -> None:
        """Wait for the progress that is expected."""
        if self._waiting is not None:
            await self._waiting

    async def _progress(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._bound_s
        try:
            await asyncio.gather(*(self._probe(tag, deadline) for tag in range(2 * self._partitions)))
        except KVError as error:
            self._fail("progress", f"no write within {self._bound_s} s of the calm: {error!r}", [])
            return
        target = {number: log.last for number, log in self._ledger.logs.items()}
        while (behind := self._behind(target)) is not None:
            if loop.time() > deadline:
                self._fail(
                    "progress", f"not converged {self._bound_s} s after the calm: {behind[1]}", [behind[0]]
                )
                return
            await asyncio.sleep(POLL_S)
        self.reached += 1
        self._trace.note("", "converged")

    async def _probe(self, tag: int, deadline: float) -> None:
        """Write until a write is acknowledged: an unknown outcome (an expired session) is honest, but no proof."""
        while True:
            self._probes += 1
            left = max(deadline - asyncio.get_running_loop().time(), 0.001)
            try:
                await self._client.put(b"{t%d}probe" % tag, b"probe-%d" % self._probes, timeout=left)
            except UnknownOutcome:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            else:
                return

    def _behind(self, target: dict[int, int]) -> tuple[str, str] | None:
        for node in self._nodes:
            if node.gone:
                continue
            if not node.up:
                return node.name, f"{node.name} is down"
            for number, last in target.items():
                group = node.cluster.engine.groups.get(number)
                if group is None:
                    if self._is_member(node, number):
                        return node.name, f"{node.name} has no replica of {number}"
                elif group.machine.applied_index < last and not node.damaged:
                    return (
                        node.name,
                        f"{node.name} group {number} applied {group.machine.applied_index} of {last}",
                    )
        return None

    def _is_member(self, node: SimNode, number: int) -> bool:
        cluster_map = node.cluster.map
        if cluster_map is None:
            return True
        return any(info.id == number and node.name in info.replicas for info in cluster_map.partitions)

    # ------------------------------------------------------------ the end

    async def compare_all(self) -> None:
        """No request is under way any more: all replicas must be equal, the sessions included."""
        await asyncio.sleep(self._bound_s)
        hashes: dict[int, tuple[int, bytes, str]] = {}
        for node in self._nodes:
            for number, replica in node.cluster.replicas.items() if node.up else ():
                store: Store = inside(replica, "_store")
                last = self._ledger.logs[number].last
                if replica.applied_index != last:
                    self._fail(
                        "progress",
                        f"{node.name} group {number}: applied {replica.applied_index} of {last}",
                        [node.name],
                    )
                    return
                self._ledger.compare_content(node, number, store, last)
                sessions, expected = replica.status().sessions, self._ledger.models[number].sessions
                if sessions != expected:
                    text = (
                        f"group {number} at {last}: {node.name} has {sessions} sessions, the model {expected}"
                    )
                    self._fail("equal-content", text, [node.name])
                found = replica.content_hasher()()
                first = hashes.setdefault(number, (found.index, found.hash, node.name))
                if (found.index, found.hash) != first[:2]:
                    text = (
                        f"group {number} at {found.index}: {node.name} and {first[2]} have different hashes"
                    )
                    self._fail("equal-content", text, [node.name, first[2]])

    # ------------------------------------------------------------ limits

    def check_bounds(self, node: SimNode) -> None:
        """Nothing on this node is larger than it may be."""
        config, cluster = node.config, node.cluster
        wal = cluster.wal
        log_limit = LOG_SEGMENTS_MAX * config.segment_bytes + 2 * SPACE_FACTOR * wal.live_bytes
        _bound = self._bound
        _bound(node, "log bytes", 0, wal.bytes_on_disk, log_limit)
        cache = config.log_cache_bytes_max + CACHE_SLACK_BYTES
        for number, group in cluster.engine.groups.items():
            replica = cluster.replicas[number]
            pending, sessions = inside(replica, "_queue").pending_requests, len(inside(replica, "_sessions"))
            _bound(node, "outbox", number, len(group.outbox), OUTBOX_MESSAGES_MAX)
            _bound(node, "cache", number, group.journal.cached_bytes, cache)
            _bound(node, "queue", number, pending, config.pending_requests_max)
            _bound(node, "sessions", number, sessions, config.sessions_max)

    def _bound(self, node: SimNode, what: str, group: int, value: int, limit: int) -> None:
        if value > limit:
            text = f"{node.name}: {what} of group {group}: {value}, the limit is {limit}"
            self._fail("bounds", text, [node.name])
