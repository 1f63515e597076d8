"""Disks and clocks of ringkv's nodes: which build runs, what it is told, and which ends of a node were asked for.

Disk faults, rates of clocks and mutants need the store's test build (`panel`), jumps of wall clocks need libfaketime
(`clocks`). Without any of these the nodes are `kv serve` as it is. No processes here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from kv_jepsen.targets.clocks import MISSING, WallClock, library
from kv_jepsen.targets.panel import Panel, source_tree
from kv_jepsen.unsupported import Unsupported

NO_TEST_BUILD: Final = (
    "{} needs the store's test build, which is not in the wheel: run kv-jepsen from a checkout"
)
EXIT_REFUSED: Final = 1
"""Exit status of a node that does not start from what its disk holds."""
EXIT_FATAL: Final = 70
"""Exit status of a node that ends itself, since its disk failed."""


class Hosts:
    """The machines under the nodes of one run; what is done to them outlives the processes."""

    def __init__(self, nodes: Sequence[str], data: Path, mutant: str | None) -> None:
        self._nodes, self._data, self._mutant = nodes, data, mutant
        self._tree = source_tree()
        self._test_build = mutant is not None
        if self._test_build and self._tree is None:
            raise Unsupported(NO_TEST_BUILD.format(f"mutant={mutant}"))
        self._panels = {node: Panel(data / f"{node}.panel") for node in nodes}
        self._clocks: dict[str, WallClock] = {}
        self._afflictions = 0
        self._failing: dict[str, None] = {}

    def refuses(self, kinds: Collection[str]) -> list[str]:
        """See `Target.refuses`."""
        problems = []
        if "clock_jump" in kinds:
            if library() is None:
                problems.append(MISSING)
            self._clocks = {node: WallClock(self._data / f"{node}.clock") for node in self._nodes}
        for kind in (one for one in kinds if one != "clock_jump"):
            self._test_build = True
            if self._tree is None:
                problems.append(NO_TEST_BUILD.format(kind))
        return problems

    def program(self, node: str) -> list[str]:
        """What stands before the flags of `kv serve`."""
        if self._test_build:
            return self._panels[node].command(self._mutant)
        return [sys.executable, "-m", "kv", "serve"]

    def variables(self, node: str, given: dict[str, str]) -> dict[str, str]:
        """The environment of a node, made from the usual one."""
        if self._test_build:
            given = {**given, "PYTHONPATH": os.pathsep.join([str(self._tree), given.get("PYTHONPATH", "")])}
        return given | (self._clocks[node].variables() if node in self._clocks else {})

    def afflict(self, node: str, kind: str, value: float) -> None:
        """See `Target.afflict`; for a flip the node must be down."""
        panel = self._panels[node]
        match kind:
            case "power":
                panel.set("power_failed", self._seed(node))
            case "slow_sync" | "clock_rate":
                panel.set(kind, str(value))
            case "fail_sync":
                self._failing[node] = None
                panel.set("fail_sync", "")
            case "fill":
                panel.set("full", "")
            case "free":
                panel.clear("full")
            case "flip":
                self._flip(node)
            case "clock_jump":
                self._clocks[node].jump(value)
            case _:
                raise AssertionError(f"{kind} is no fault of a host")

    def _flip(self, node: str) -> None:
        """Damage the log of a minority at most: who has a damaged log stays away."""
        damaged = [one for one in self._nodes if self.to_refuse(one)]
        if node not in damaged and len(damaged) < (len(self._nodes) - 1) // 2:
            self._panels[node].set("flip", self._seed(node))

    def relieve(self) -> None:
        """See `Target.relieve`."""
        for panel in self._panels.values():
            for name in ("slow_sync", "fail_sync", "full", "clock_rate"):
                panel.clear(name)

    def damaged(self, node: str) -> bool:
        """Whether a bit of the node's log was flipped."""
        return self._panels[node].has("flipped")

    def to_refuse(self, node: str) -> bool:
        """Whether the node has a damaged log, or will have one as soon as it has started."""
        return self.damaged(node) or self._panels[node].has("flip")

    def pardoned(self, node: str, status: int) -> bool:
        """A failed sync must end a node, and a damaged log must keep it from starting."""
        if status == EXIT_FATAL:
            return node in self._failing
        return status == EXIT_REFUSED and self.damaged(node)

    def _seed(self, node: str) -> str:
        self._afflictions += 1
        return f"{node}/{self._afflictions}"
