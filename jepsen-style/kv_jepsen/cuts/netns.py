"""Cuts on Linux as root: one network namespace for each node, all on one bridge of this run.

Where nftables is installed, links are cut by rules of the receiver, packets are lost by chance, connections are reset (`firewall`).
Else a one-way cut is a wrong entry in the sender's neighbour table: what it sends to that peer goes to a hardware address that
nobody has, and is silently lost, as on a broken wire; this needs nothing but `ip`.
Delays go by a TUN device, where nftables and `/dev/net/tun` are (`delays`); else they are refused, and are the proxies' work.
Clients are in the namespace of the harness, and have the address of the bridge; links from and to them are never cut.

All names begin with `records.NAME_PREFIX` and are in the record file of the run before they exist.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from typing import Final

from kv_jepsen.cuts import delays, firewall
from kv_jepsen.cuts.api import Cuts
from kv_jepsen.cuts.commands import call, ip
from kv_jepsen.cuts.delays import Delays
from kv_jepsen.cuts.firewall import Firewall
from kv_jepsen.cuts.links import ROUTER
from kv_jepsen.records import NAME_PREFIX, Records
from kv_jepsen.unsupported import Unsupported

NOBODY: Final = "02:00:00:00:00:01"
"""A locally administered hardware address that no interface here has."""
SUBNETS: Final = range(1, 255)


def possible() -> bool:
    """Whether this process may make network namespaces: root, `ip`, and a kernel or container that lets it."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    return call("unshare", "--net", "true").returncode == 0


class NetnsCuts(Cuts):
    """See the first lines of this file."""

    def __init__(self, nodes: Sequence[str], records: Records, *, filtered: bool | None = None) -> None:
        """`filtered`: whether nftables is used; by default if it is there."""
        if os.geteuid() != 0:
            raise Unsupported("network namespaces need root: take --cut proxy")
        self.nodes = tuple(nodes)
        self.pid_of = lambda _: None
        self._records = records
        self._tag = f"{NAME_PREFIX}{os.getpid() % 1_000_000}"
        self._subnet = ""
        self._open = False
        self._cut: dict[tuple[str, str], None] = {}
        self._hardware: dict[str, str] = {}
        self._router_ports: dict[str, int] = {}
        wanted = firewall.offered() if filtered is None else filtered
        self._walls = {node: Firewall(self._space(node)) for node in self.nodes} if wanted else {}
        self._late = bool(self._walls) and delays.offered()
        self._delays: dict[str, Delays] = {}

    async def open(self) -> None:
        """See `Cuts`."""
        await asyncio.to_thread(self._make)

    def _make(self) -> None:
        self._open = True
        self._subnet = f"10.213.{_free_subnet()}"
        bridge = f"{self._tag}b"
        self._records.interface(bridge)
        ip("link", "add", bridge, "type", "bridge")
        ip("address", "add", f"{self._subnet}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, node in enumerate(self.nodes):
            space, outer = self._space(node), f"{self._tag}v{number}"
            self._records.namespace(space)
            ip("netns", "add", space)
            self._records.interface(outer)
            ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", outer, "master", bridge, "up")
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "address", "add", f"{self.host(node)}/24", "dev", "eth0")
            shown = ip("-n", space, "-o", "link", "show", "eth0")
            self._hardware[node] = shown.partition("link/ether ")[2].split()[0]
        hardware = {self.host(node): self._hardware[node] for node in self.nodes}
        for number, node in enumerate(self.nodes if self._late else ()):
            self._delays[node] = Delays(self._space(node), self.host(node), hardware, self._records, number)

    async def close(self) -> None:
        """See `Cuts`."""
        if self._open:
            self._open = False
            await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        for delayed in self._delays.values():
            delayed.close()
        for node in self.nodes:
            call(
                "ip", "netns", "delete", self._space(node)
            )  # its end of the veth pair goes with it, and so both
        call("ip", "link", "delete", f"{self._tag}b")

    def host(self, node: str) -> str:
        """See `Cuts`."""
        return f"{self._subnet}.{self.nodes.index(node) + 2}"

    def prefix(self, node: str) -> list[str]:
        """See `Cuts`."""
        return ["ip", "netns", "exec", self._space(node)]

    async def exposed(self, node: str, port: int, role: str = "") -> str:
        """See `Cuts`."""
        if role == ROUTER:
            self._router_ports[node] = port
        return f"{self.host(node)}:{port}"

    def cut(self, source: str, end: str) -> None:
        """See `Cuts`."""
        if self._walls:
            self._wall(source, end)
            return
        self._cut[source, end] = None
        self._neighbour(source, end, NOBODY)

    def _wall(self, source: str, end: str) -> None:
        """A rule of the end; where one of the two is a router, of the other's port for requests only."""
        role, colon, node = source.partition(":")
        if colon:
            assert role == ROUTER, f"{source} is no host"
            self._walls[end].cut(f"{self.host(node)} tcp dport {self._router_ports[end]}")
            return
        role, colon, node = end.partition(":")
        if colon:
            assert role == ROUTER, f"{end} is no host"
            self._walls[node].cut(f"{self.host(source)} tcp sport {self._router_ports[source]}")
            return
        self._walls[end].cut(self.host(source))

    def heal(self) -> None:
        """See `Cuts`."""
        for delayed in self._delays.values():
            delayed.end()
        for wall in self._walls.values():
            wall.open()
        for source, end in self._cut:
            self._neighbour(source, end, self._hardware[end])
        self._cut.clear()

    def reset(self, source: str, end: str) -> None:
        """See `Cuts`."""
        if not self._walls:
            super().reset(source, end)
        self._walls[source].reset(self.host(end))

    def slow(self, source: str, end: str, seconds: float) -> None:
        """See `Cuts`."""
        if not self._delays:
            super().slow(source, end, seconds)
        self._delays[source].slow(self.host(end), seconds)

    def weather(self, loss: float, long_delay: float, seconds: float) -> None:
        """See `Cuts`: packets are lost at the receiver, and made late by the sender."""
        if not self._walls or (long_delay > 0 and not self._delays):
            super().weather(loss, long_delay, seconds)
        for node, wall in self._walls.items():
            wall.lose(loss, [self.host(other) for other in self.nodes if other != node])
        for delayed in self._delays.values():
            delayed.late(long_delay, seconds)

    def _neighbour(self, source: str, end: str, hardware: str) -> None:
        entry = (self.host(end), "lladdr", hardware, "dev", "eth0", "nud", "permanent")
        ip("-n", self._space(source), "neighbour", "replace", *entry)

    def offers(self, kind: str) -> bool:
        """See `Cuts`."""
        if kind in {"slow", "long_delay"}:
            return self._late
        return kind in {"cut", "partition", "heal", "calm"} or (
            bool(self._walls) and kind in {"reset", "weather", "router"}
        )

    def _space(self, node: str) -> str:
        return f"{self._tag}-{node}"


def _free_subnet() -> int:
    """A third byte of 10.213.x.0/24 that no interface of this machine has."""
    taken = ip("-o", "address", "show")
    free = (number for number in SUBNETS if f" 10.213.{number}." not in taken)
    found = next(free, None)
    if found is None:
        raise Unsupported("no subnet 10.213.x.0/24 is free: run `kv-jepsen clean`")
    return found
