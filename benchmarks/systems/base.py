"""What the rows need of a system."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

NODES: Final = 3
READY_TIMEOUT_S: Final = 60.0


class System(ABC):
    """Nodes of one system. `title` is its name in the report, `client` the worker's name for its client."""

    title: ClassVar[str]
    client: ClassVar[str]

    @abstractmethod
    async def start(self) -> None:
        """Start every node, and return when they serve."""

    @abstractmethod
    def close(self) -> None:
        """End every node; the data stays. May be called twice."""

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """Return the process of each node that runs."""

    @property
    @abstractmethod
    def addresses(self) -> Sequence[str]:
        """Where clients connect; the leader first, where there is one leader."""

    @abstractmethod
    def command(self) -> str:
        """Return the command line of one node, for the report."""


@contextlib.asynccontextmanager
async def running(system: System) -> AsyncIterator[None]:
    """Start it, and end it whatever happens."""
    try:
        await system.start()
        yield
    finally:
        system.close()


def fresh(folder: Path, name: str) -> Path:
    """Return a new folder in `folder`."""
    made = folder / name
    made.mkdir(parents=True)
    return made
