"""An example of a target, to copy: a store of one process that keeps everything in memory.

    kv-jepsen run --target kv_jepsen.targets.example:Forgetful --faults kill --seconds 15

The harness finds that it loses what it acknowledged. What a target needs: a command that starts a node, and a client
that is honest about outcomes: returned means happened, `Refused` means never, everything else is `Unknown`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from kv_jepsen.cuts.api import Cuts
from kv_jepsen.records import Records
from kv_jepsen.targets.api import Answer, Client, Places
from kv_jepsen.targets.example_node import request
from kv_jepsen.targets.process_target import ProcessTarget
from kv_jepsen.targets.processes import free_ports

READY_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.05


class Forgetful(ProcessTarget):
    """Nodes that know nothing of each other; clients use the first one."""

    name = "example"

    def __init__(
        self,
        nodes: Sequence[str],
        places: Places,
        cuts: Cuts,
        records: Records,
        options: Mapping[str, str],
    ) -> None:
        super().__init__(nodes, places, cuts, records)
        del options
        self._ports = dict(zip(self.nodes, free_ports(len(self.nodes), Random()), strict=True))

    def command(self, node: str) -> list[str]:
        """See `ProcessTarget`."""
        listen = [self.cuts.host(node), str(self._ports[node])]
        return [sys.executable, "-m", "kv_jepsen.targets.example_node", *listen]

    async def ready(self) -> None:
        """See `Target`."""
        async with asyncio.timeout(READY_TIMEOUT_S):
            for node in self.nodes:
                while not await self._answers(node):  # noqa: ASYNC110 - another process's start is no event here
                    await asyncio.sleep(POLL_S)

    async def _answers(self, node: str) -> bool:
        try:
            await request(self.cuts.host(node), self._ports[node], ["read", "ready?"])
        except OSError:  # it does not listen yet
            return False
        return True

    def client(self, process: int) -> Client:
        """See `Target`."""
        del process
        return ForgetfulClient(self.cuts.host(self.nodes[0]), self._ports[self.nodes[0]])


class ForgetfulClient(Client):
    """One request a connection; a failure is unknown (the runner says so of an `OSError`), as it is not told when it came."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def read(self, key: str, level: str) -> Answer:
        """See `Client`."""
        del level
        return Answer(await request(self._host, self._port, ["read", key]))

    async def write(self, key: str, value: str) -> Answer:
        """See `Client`."""
        return Answer(await request(self._host, self._port, ["write", key, value]))

    async def swap(self, expected: Mapping[str, str | None], new: Mapping[str, str]) -> Answer:
        """See `Client`."""
        return Answer(await request(self._host, self._port, ["swap", dict(expected), dict(new)]))
