"""The assembly of a node with a mutant of the simulator in it, a disk that can be told to be full, and clocks with a rate.

Here lives `FaultyAssembly`: what `kv.sim.world` does to a simulated node when it starts is done to a real one. What each
mutant breaks is in `kv.sim.mutants`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from kv.assembly import Assembly
from kv.errors import InvalidArgument
from kv.partition.partition import Replica
from kv.raft.group import Group
from kv.raft.guard import Rules
from kv.sim.inside import inside
from kv.sim.mutants import MUTANTS
from kv.sim.mutants import mutant as by_name
from kv.sim.mutation import Mutation
from kv.sim.node import SimNode, full_when
from tests.faulty_node.clock import SkewedShell
from tests.faulty_node.disk import FaultyFiles

IN_OTHER_PROCESSES: Final[Mapping[str, str]] = {
    "client-lost-is-definite": "it breaks the simulator's client",
    "session-forgets": "it breaks the client",
}
"""Mutants that are not in a node, and why."""


def mutant_of_node(name: str) -> Mutation:
    """Return the mutant of this name.

    Raises:
        InvalidArgument: there is none, or it is not of a node.
    """
    if name in IN_OTHER_PROCESSES:
        raise InvalidArgument(
            f"{name} is not for nodes: {IN_OTHER_PROCESSES[name]}; `kv sim --mutant {name}` hunts it"
        )
    return by_name(name)


def mutants_of_nodes() -> list[str]:
    """Names of the mutants that a node can be."""
    return [one.name for one in MUTANTS if one.name not in IN_OTHER_PROCESSES]


class _Clock:
    """As much of a simulated host's clock as mutants use."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self.wall_ms = wall_ms


class _RealNode:
    """As much of a simulated node as mutants use."""

    def __init__(self, assembly: Assembly, disk: FaultyFiles, wall_ms: Callable[[], int]) -> None:
        self.cluster, self.disk, self.clock = assembly, disk, _Clock(wall_ms)


class FaultyAssembly(Assembly):
    """See the file's docstring."""

    def __init__(
        self,
        config: Any,  # noqa: ANN401 - passed on, as all that follows
        *,
        mutation: Mutation | None,
        files: FaultyFiles,
        shell: SkewedShell,
        call_later: object,
        wall_ms: Callable[[], int],
        **parts: Any,  # noqa: ANN401
    ) -> None:
        """As `Assembly`, whose `rules` are the mutant's."""
        del call_later  # the loop's, which keeps real time
        rules = Rules() if mutation is None else mutation.rules

        def skewed_wall_ms() -> int:
            return wall_ms() + int(shell.skew.ahead() * 1000)

        super().__init__(
            config,
            files=files,
            shell=shell,
            call_later=shell.timer,
            wall_ms=skewed_wall_ms,
            rules=rules,
            **parts,
        )
        node = cast(SimNode, _RealNode(self, files, skewed_wall_ms))
        if mutation is not None:
            mutation.started(node)
        add = self.engine.add

        def broken_add(group: Group) -> None:
            replica = group.machine
            assert isinstance(replica, Replica), "every group's machine is one"
            full_when(lambda: files.full, inside(replica, "_store"))
            if mutation is not None:
                mutation.group_started(node, group)
            add(group)

        vars(self.engine)["add"] = broken_add
