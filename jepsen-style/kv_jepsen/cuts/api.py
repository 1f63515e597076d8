"""What a way of cutting the network offers. Both ways serve the same schedules; what one lacks it says.

A node listens at `host(node)`, and its peers reach it at `exposed(node, port)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

from kv_jepsen.unsupported import Unsupported

PidOf: TypeAlias = Callable[[str], int | None]
"""Node to the id of its process, None if it is down."""


class Cuts(ABC):
    """The network between the nodes of one run."""

    nodes: Sequence[str]
    pid_of: PidOf
    """Set by the target: some ways must know whose connection it is."""

    @abstractmethod
    async def open(self) -> None:
        """Make the network."""

    @abstractmethod
    async def close(self) -> None:
        """Remove it. May be called twice."""

    @abstractmethod
    def host(self, node: str) -> str:
        """The address on which a node listens."""

    @abstractmethod
    def prefix(self, node: str) -> list[str]:
        """What stands before the command that starts a node, so that it is in the network."""

    @abstractmethod
    async def exposed(self, node: str, port: int, role: str = "") -> str:
        """host:port under which other nodes reach a port of a node; the role `router`: requests go there, and nothing else."""

    @abstractmethod
    def cut(self, source: str, end: str) -> None:
        """Nothing goes from `source` to `end` any more."""

    def slow(self, source: str, end: str, seconds: float) -> None:
        """Everything from `source` to `end` takes so much longer; 0 ends it. Raises `Unsupported` where `offers` says so."""
        raise Unsupported(
            f"{type(self).__name__} cannot slow {source}>{end} by {seconds} s: take --cut proxy"
        )

    def reset(self, source: str, end: str) -> None:
        """Connections between the two end. Raises `Unsupported` where `offers` says so."""
        raise Unsupported(f"{type(self).__name__} cannot reset {source}-{end}: take --cut proxy")

    def weather(self, loss: float, long_delay: float, seconds: float) -> None:
        """Probabilities for each piece of data; both 0 ends it. Raises `Unsupported` where `offers` says so."""
        raise Unsupported(
            f"{type(self).__name__} has no weather of {loss}, {long_delay}, {seconds} s: take --cut proxy"
        )

    @abstractmethod
    def heal(self) -> None:
        """Every cut, every slow link and all weather end."""

    @abstractmethod
    def offers(self, kind: str) -> bool:
        """Whether it can do this kind of fault.

        Beside kinds: `long_delay` for the delays of a weather, `router` for cuts of `router:NODE`, `clients` for links of clients.
        """
