"""What a mutant is: a build of the store with one safety rule or one duty left out.

Here lives the form of the entries; the entries are in `kv.sim.mutants` and `kv.sim.level_mutants`.

A mutant is a `kv.sim.world.Mutant`. Kinds: `random` (faults drawn from the seed find it), `scripted` (a
given schedule of faults, or a scene, because drawn faults find it late or hardly ever), `liveness` (nothing
wrong is ever answered; what is lost is calm or progress).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

from kv.raft.group import Group
from kv.raft.guard import Rules
from kv.sim.circumstances import Hunt
from kv.sim.mutations import GroupPatch
from kv.sim.node import SimNode

Kind = Literal["random", "scripted", "liveness"]


def _leave(_: SimNode) -> None:
    """Nothing is wrong with the process."""


def _leave_group(_: SimNode, __: Group) -> None:
    """Nothing is wrong with the replica."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mutant; implements `kv.sim.world.Mutant`."""

    name: str
    breaks: str
    expected: tuple[str, ...]
    kind: Kind
    hunt: Hunt
    rules: Rules = field(default_factory=Rules)
    on_start: Callable[[SimNode], None] = _leave
    on_group: GroupPatch = _leave_group
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    """Held while a run lasts: for what can be replaced in a module only."""

    def started(self, node: SimNode) -> None:
        """See `kv.sim.world.Mutant`."""
        self.on_start(node)

    def group_started(self, node: SimNode, group: Group) -> None:
        """See `kv.sim.world.Mutant`."""
        self.on_group(node, group)


def without(**rules: bool) -> Rules:
    """All rules but those that are false."""
    return Rules(**rules)
