"""A target whose nodes are processes of this machine: all of life and death, so that a new one has little to write."""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from kv_jepsen.cuts.api import Cuts
from kv_jepsen.records import Records
from kv_jepsen.targets.api import Places, Target
from kv_jepsen.targets.processes import Processes, environment


class ProcessTarget(Target):
    """Starts `command(node)` inside the network of the run, with a log for each node.

    Class attributes:
        own_variables: beginning of the environment variables that nodes must not inherit; empty: they inherit all.
    """

    own_variables: ClassVar[str] = ""

    def __init__(self, nodes: Sequence[str], places: Places, cuts: Cuts, records: Records) -> None:
        self.nodes = tuple(nodes)
        self.places, self.cuts = places, cuts
        self.processes = Processes(records)
        cuts.pid_of = self.processes.pid

    @abstractmethod
    def command(self, node: str) -> list[str]:
        """The command line of a node."""

    def variables(self, node: str) -> dict[str, str]:
        """The environment of a node."""
        del node
        return environment(self.own_variables)

    async def start(self, *nodes: str) -> None:
        """See `Target`."""
        for node in nodes or self.nodes:
            whole = [*self.cuts.prefix(node), *self.command(node)]
            log = self.places.logs / f"{node}.log"
            self.processes.start(node, whole, log, self.variables(node))

    async def stop(self) -> None:
        """See `Target`."""
        await self.processes.stop()

    def ended(self) -> list[str]:
        """See `Target`."""
        return self.processes.ended

    def kill(self, *nodes: str) -> None:
        """See `Target`."""
        self.processes.kill(nodes)

    def pause(self, *nodes: str) -> None:
        """See `Target`."""
        self.processes.signal(nodes, signal.SIGSTOP)

    def resume(self, *nodes: str) -> None:
        """See `Target`."""
        self.processes.signal(nodes, signal.SIGCONT)
