"""Cuts on Linux as root: one network namespace for each node, all on one bridge of this run.

A one-way cut is a wrong entry in the sender's neighbour table: what it sends to that peer goes to a hardware address that
nobody has, and is silently lost, as on a broken wire. It needs nothing but `ip`: neither nftables nor a kernel module.
Delays need the queueing discipline netem, which not every kernel has; then they are refused.

All names begin with `records.NAME_PREFIX` and are in the record file of the run before they exist.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from typing import Final

from kv_jepsen.cuts.api import Cuts
from kv_jepsen.records import NAME_PREFIX, Records
from kv_jepsen.unsupported import Unsupported

COMMAND_TIMEOUT_S: Final = 10.0
NOBODY: Final = "02:00:00:00:00:01"
"""A locally administered hardware address that no interface here has."""
SUBNETS: Final = range(1, 255)


class NetnsCuts(Cuts):
    """See the first lines of this file."""

    def __init__(self, nodes: Sequence[str], records: Records) -> None:
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

    async def open(self) -> None:
        """See `Cuts`."""
        await asyncio.to_thread(self._make)

    def _make(self) -> None:
        self._open = True
        self._subnet = f"10.213.{_free_subnet()}"
        bridge = f"{self._tag}b"
        self._records.interface(bridge)
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{self._subnet}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number, node in enumerate(self.nodes):
            space, outer = self._space(node), f"{self._tag}v{number}"
            self._records.namespace(space)
            _ip("netns", "add", space)
            self._records.interface(outer)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", outer, "master", bridge, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "address", "add", f"{self.host(node)}/24", "dev", "eth0")
            shown = _ip("-n", space, "-o", "link", "show", "eth0")
            self._hardware[node] = shown.partition("link/ether ")[2].split()[0]

    async def close(self) -> None:
        """See `Cuts`."""
        if self._open:
            self._open = False
            await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        for node in self.nodes:
            _try_ip(
                "netns", "delete", self._space(node)
            )  # its end of the veth pair goes with it, and so both
        _try_ip("link", "delete", f"{self._tag}b")

    def host(self, node: str) -> str:
        """See `Cuts`."""
        return f"{self._subnet}.{self.nodes.index(node) + 2}"

    def prefix(self, node: str) -> list[str]:
        """See `Cuts`."""
        return ["ip", "netns", "exec", self._space(node)]

    async def exposed(self, node: str, port: int) -> str:
        """See `Cuts`."""
        return f"{self.host(node)}:{port}"

    def cut(self, source: str, end: str) -> None:
        """See `Cuts`."""
        self._cut[source, end] = None
        self._neighbour(source, end, NOBODY)

    def heal(self) -> None:
        """See `Cuts`."""
        for source, end in self._cut:
            self._neighbour(source, end, self._hardware[end])
        self._cut.clear()

    def _neighbour(self, source: str, end: str, hardware: str) -> None:
        entry = (self.host(end), "lladdr", hardware, "dev", "eth0", "nud", "permanent")
        _ip("-n", self._space(source), "neighbour", "replace", *entry)

    def offers(self, kind: str) -> bool:
        """See `Cuts`."""
        return kind in {"cut", "partition", "heal", "calm"}

    def _space(self, node: str) -> str:
        return f"{self._tag}-{node}"


def _free_subnet() -> int:
    """A third byte of 10.213.x.0/24 that no interface of this machine has."""
    taken = _ip("-o", "address", "show")
    free = (number for number in SUBNETS if f" 10.213.{number}." not in taken)
    found = next(free, None)
    if found is None:
        raise Unsupported("no subnet 10.213.x.0/24 is free: run `kv-jepsen clean`")
    return found


def _try_ip(*arguments: str) -> bool:
    return _called(*arguments).returncode == 0


def _ip(*arguments: str) -> str:
    done = _called(*arguments)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _called(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - a fixed program with names of our own
        ["ip", *arguments],  # noqa: S607 - found by PATH, as a person would call it
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )
