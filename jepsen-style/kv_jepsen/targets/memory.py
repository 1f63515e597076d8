"""A whole target in memory, for tests of what stands around targets: one dictionary, always linearizable."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kv_jepsen.cuts.api import Cuts
from kv_jepsen.targets.api import Answer, Client, Target


class MemoryClient(Client):
    """A client of the dictionary; it counts revisions as a store would."""

    def __init__(self, held: dict[str, tuple[str, int]]) -> None:
        self.held = held

    async def read(self, key: str, level: str) -> Answer:
        """See `Client`."""
        value, revision = self.held.get(key, (None, 0))
        told = {"level": level.partition(":")[0]}
        return Answer(value, {**told, "revision": revision} if value is not None else told)

    async def write(self, key: str, value: str) -> Answer:
        """See `Client`."""
        self.held[""] = ("", self.held.get("", ("", 0))[1] + 1)  # no key is empty: here is the last revision
        self.held[key] = (value, self.held[""][1])
        return Answer(None, {"revision": self.held[key][1]})

    async def swap(self, expected: Mapping[str, str | None], new: Mapping[str, str]) -> Answer:
        """See `Client`."""
        if any(self.held.get(key, (None, 0))[0] != value for key, value in expected.items()):
            return Answer(False)
        told = [(await self.write(key, value)).evidence for key, value in new.items()]
        return Answer(True, told[-1] if told else {})

    async def delete(self, key: str) -> Answer:
        """See `Client`."""
        told = (await self.write(key, "")).evidence
        del self.held[key]
        return Answer(True, told)

    async def read_many(self, keys: Sequence[str]) -> Answer:
        """See `Client`."""
        return Answer(tuple(self.held[key][0] for key in keys))

    async def scan(self, prefix: str) -> Answer:
        """See `Client`."""
        return Answer(tuple(sorted(key for key in self.held if key and key.startswith(prefix))))


class MemoryTarget(Target):
    """Notes what is done to its nodes."""

    name = "memory"

    def __init__(self, nodes: Sequence[str] = ("n1", "n2", "n3"), leader: str | None = None) -> None:
        self.nodes = nodes
        self.held: dict[str, tuple[str, int]] = {}
        self.done: list[tuple[object, ...]] = []
        self.led = leader

    async def start(self, *nodes: str) -> None:
        """See `Target`."""
        self.done.append(("start", *nodes))

    async def ready(self) -> None:
        """See `Target`."""
        self.done.append(("ready",))

    async def stop(self) -> None:
        """See `Target`."""
        self.done.append(("stop",))

    def kill(self, *nodes: str) -> None:
        """See `Target`."""
        self.done.append(("kill", *nodes))

    def pause(self, *nodes: str) -> None:
        """See `Target`."""
        self.done.append(("pause", *nodes))

    def resume(self, *nodes: str) -> None:
        """See `Target`."""
        self.done.append(("resume", *nodes))

    def client(self, process: int) -> Client:
        """See `Target`."""
        del process
        return MemoryClient(self.held)

    def refuses(self, kinds: Collection[str]) -> list[str]:
        """See `Target`."""
        del kinds
        return []

    def afflict(self, node: str, kind: str, value: float = 0.0) -> None:
        """See `Target`."""
        self.done.append(("afflict", node, kind, value))

    def relieve(self) -> None:
        """See `Target`."""
        self.done.append(("relieve",))

    async def leader(self, partition: int) -> str | None:
        """See `Target`."""
        del partition
        return self.led


class NotedCuts(Cuts):
    """A network that notes what is done to it."""

    def __init__(self) -> None:
        self.nodes = ("n1", "n2", "n3")
        self.pid_of = lambda _: None
        self.done: list[tuple[object, ...]] = []

    async def open(self) -> None:
        """See `Cuts`."""
        self.done.append(("open",))

    async def close(self) -> None:
        """See `Cuts`."""
        self.done.append(("close",))

    def host(self, node: str) -> str:
        """See `Cuts`."""
        return node

    def prefix(self, node: str) -> list[str]:
        """See `Cuts`."""
        del node
        return []

    async def exposed(self, node: str, port: int, role: str = "") -> str:
        """See `Cuts`."""
        del role
        return f"{node}:{port}"

    def cut(self, source: str, end: str) -> None:
        """See `Cuts`."""
        self.done.append(("cut", source, end))

    def slow(self, source: str, end: str, seconds: float) -> None:
        """See `Cuts`."""
        self.done.append(("slow", source, end, seconds))

    def reset(self, source: str, end: str) -> None:
        """See `Cuts`."""
        self.done.append(("reset", source, end))

    def weather(self, loss: float, long_delay: float, seconds: float) -> None:
        """See `Cuts`."""
        self.done.append(("weather", loss, long_delay, seconds))

    def heal(self) -> None:
        """See `Cuts`."""
        self.done.append(("heal",))

    def offers(self, kind: str) -> bool:
        """See `Cuts`."""
        return kind in {
            "cut",
            "partition",
            "heal",
            "slow",
            "reset",
            "weather",
            "long_delay",
            "clients",
            "calm",
        }
