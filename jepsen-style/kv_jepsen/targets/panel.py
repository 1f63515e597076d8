"""The panel of a node's test build: files by which it is told to fail, and by which it tells what it did.

Their names and meanings are those of `tests/faulty_node/disk.py` of the store; they outlive the process, as a disk's state does.
The test build is in the store's source tree, not in its wheel: `source_tree` finds it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import kv_jepsen

BUILD: Final = "tests.faulty_node"


def source_tree() -> Path | None:
    """The checkout of the store that this package runs from; None if it is installed."""
    root = Path(kv_jepsen.__file__).parents[2]
    return root if (root / BUILD.replace(".", "/") / "__main__.py").exists() else None


@dataclass(frozen=True, slots=True)
class Panel:
    """The panel of one node."""

    folder: Path

    def set(self, name: str, text: str) -> None:
        """Switch something on; what the node reads is whole or not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{name}.new"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.folder / name)

    def clear(self, name: str) -> None:
        """Switch something off."""
        (self.folder / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether it is on, or the node has told it."""
        return (self.folder / name).exists()

    def command(self, mutant: str | None) -> list[str]:
        """What stands before the arguments of `kv serve`."""
        chosen = [] if mutant is None else ["--mutant", mutant]
        return [sys.executable, "-m", BUILD, "--panel", str(self.folder), *chosen, "--"]
