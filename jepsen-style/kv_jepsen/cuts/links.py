"""The state of every link of the proxies: cut, slow, weather. No sockets here.

A link is one way, from one host to another; hosts are nodes and `clients`.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

CLIENTS: Final = "clients"
"""The host that stands for all clients of the harness."""

ROUTER: Final = "router"
"""`router:n1` is what node n1 has to do with the ports of others that are exposed as their routers': requests, not consensus."""

RETRANSMIT_S: Final = 0.2
"""What a lost packet costs those who use TCP: its least timeout (RFC 6298 allows less than its second, Linux has 200 ms)."""


def router_of(node: str) -> str:
    """The host that stands for the router of a node."""
    return f"{ROUTER}:{node}"


class Links:
    """Which links are cut or slow."""

    def __init__(self) -> None:
        self._cut: dict[tuple[str, str], asyncio.Event] = {}
        self._slow: dict[tuple[str, str], float] = {}
        self._loss = self._long_delay = self._long_delay_s = 0.0

    def cut(self, source: str, end: str) -> None:
        """Hold what goes this way from now on."""
        self._cut.setdefault((source, end), asyncio.Event())

    def is_cut(self, source: str, end: str) -> bool:
        """Whether it is."""
        return (source, end) in self._cut

    def slow(self, source: str, end: str, seconds: float) -> None:
        """Delay what goes this way; 0 ends it."""
        if seconds > 0:
            self._slow[source, end] = seconds
        else:
            self._slow.pop((source, end), None)

    def weather(self, loss: float, long_delay: float, seconds: float) -> None:
        """Delay some of everything between nodes: a lost piece by a retransmission, others by `seconds`."""
        self._loss, self._long_delay, self._long_delay_s = loss, long_delay, seconds

    def heal(self) -> None:
        """End everything."""
        self._slow.clear()
        self.weather(0.0, 0.0, 0.0)
        cut, self._cut = self._cut, {}
        for healed in cut.values():
            healed.set()

    def delay(self, source: str, end: str, rng: Random) -> float:
        """Seconds that the next piece of data takes longer."""
        delay = self._slow.get((source, end), 0.0)
        if CLIENTS not in (source, end):
            if self._loss and rng.random() < self._loss:
                delay += RETRANSMIT_S
            if self._long_delay and rng.random() < self._long_delay:
                delay += self._long_delay_s
        return delay

    async def passable(self, source: str, end: str, hold_s: float) -> None:
        """Return when nothing cuts the link; raises `TimeoutError` if a cut lasts longer than `hold_s`."""
        while (healed := self._cut.get((source, end))) is not None:
            async with asyncio.timeout(hold_s):
                await healed.wait()
