"""What clients do in the lab of one partition: every level is read at every node all the time, while others write."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from kv_jepsen.targets.api import Client, Refused
from kv_jepsen.workloads import Register, Step

KEY: Final = "watched"

GREETINGS_MAX: Final = 5
"""Attempts of each client at its first read."""


class Watchers(Register):
    """One key. Process p reads at level `p // nodes`, and its client is of node `p % nodes`; the last ones, one for each node, write."""

    def __init__(self, processes: int, levels: Sequence[str], nodes: int) -> None:
        super().__init__(processes, levels)
        if processes != processes_for(len(levels), nodes):
            raise ValueError(
                f"{len(levels)} levels at {nodes} nodes are {processes_for(len(levels), nodes)} processes"
            )
        self._nodes = nodes

    async def greet(self, client: Client) -> None:
        """See `Workload`: all clients at once would take seconds to find their nodes."""
        for _ in range(GREETINGS_MAX):
            try:
                await client.read(KEY, self.levels[0])
            except Refused:
                continue
            return

    def next(self, process: int, rng: Random) -> Step:
        """See `Workload`."""
        del rng
        if process >= len(self.levels) * self._nodes:
            return Step("write", KEY, self._fresh())
        return self._read_at(self.levels[process // self._nodes], KEY)

    def last(self) -> list[Step]:
        """See `Workload`."""
        return [self._read_at("linearizable", KEY)]


def processes_for(levels: int, nodes: int) -> int:
    """How many clients it takes."""
    return (levels + 1) * nodes
