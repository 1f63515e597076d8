"""What one namespace lets in: rules of nftables, by which links are cut one way and packets are lost.

A packet is dropped where it arrives, so its sender learns nothing. Rules are replaced as a whole, in one step of the kernel. They live and
die with the namespace. There are no delays here: those are in `delays`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Final

from kv_jepsen.cuts.commands import must

TABLE: Final = "kvjepsen"
LOSS_STEPS: Final = 10_000
"""Loss is in steps of one in so many packets."""


def offered() -> bool:
    """Whether the programs are installed: `nft`, and `ss` for resets."""
    return shutil.which("nft") is not None and shutil.which("ss") is not None


class Firewall:
    """The filter of one namespace."""

    def __init__(self, space: str) -> None:
        self._space = space
        self._cut: dict[str, None] = {}
        self._loss = 0.0
        self._from: Sequence[str] = ()

    def cut(self, source: str) -> None:
        """Nothing from this address comes in; words of `nft` after it make it less: `10.0.0.2 tcp dport 80`."""
        self._cut[source] = None
        self._load()

    def lose(self, loss: float, sources: Sequence[str]) -> None:
        """Of what comes from these addresses so much is lost, by chance; 0 ends it."""
        if (self._loss, self._from) != (loss, sources):
            self._loss, self._from = loss, sources
            self._load()

    def open(self) -> None:
        """Let everything in."""
        if self._cut or self._loss:
            self._cut.clear()
            self._loss = 0.0
            self._load()

    def reset(self, other: str) -> None:
        """End the connections with this address that are open here, by RST (`tcp_abort` of the kernel)."""
        must("ip", "netns", "exec", self._space, "ss", "--kill", "--tcp", "dst", other)

    def rules(self) -> str:
        """The rules as `nft` reads them."""
        lines = [f"ip saddr {source} drop" for source in self._cut]
        if self._loss > 0:
            steps = max(1, round(self._loss * LOSS_STEPS))
            # `nft` refuses a comparison that always holds.
            chance = f"numgen random mod {LOSS_STEPS} < {steps} " if steps < LOSS_STEPS else ""
            lines += [f"ip saddr {source} {chance}drop" for source in self._from]
        chain = "\n".join(["type filter hook input priority 0; policy accept;", *lines])
        # The table is made before it is deleted, since to delete one that is not there is an error.
        return (
            f"table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\nchain in {{\n{chain}\n}}\n}}\n"
        )

    def _load(self) -> None:
        must("ip", "netns", "exec", self._space, "nft", "--file", "-", text=self.rules())
