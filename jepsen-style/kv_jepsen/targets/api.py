"""What a system under test offers: its nodes as processes, and operations on keys.

A new system is one file with two classes, one after `Target`, one after `Client`: see `example.py`. No faults here
(`nemesis`), no network (`cuts`), no recording (`runner`).

Outcomes are what everything rests on. An operation that returns has happened. `Refused` means that it did not happen
and never will. Anything else - a timeout, a connection that ended, an answer that is not understood - is `Unknown`.
When in doubt it is `Unknown`: that costs the checker time, a wrong `Refused` costs the verdict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from kv_jepsen.checkers.replicas import ReplicaState
from kv_jepsen.history import Value
from kv_jepsen.unsupported import Unsupported

HOST_KINDS: Final = ("power", "slow_sync", "fail_sync", "fill", "free", "flip", "clock_rate", "clock_jump")
"""Faults of a node's disk and clock, as in the schedule language; `power` is a crash with power=yes."""


class Refused(Exception):
    """It did not happen and will not."""


class Unknown(Exception):
    """It may have happened, or may yet."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a target writes.

    Attributes:
        data: the nodes' own data; it goes with the run.
        logs: one file for each node, `NODE.log`; they stay with the results.
    """

    data: Path
    logs: Path


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation returned, with what the reply says of itself (names of `history.Op.extra`)."""

    value: Value = None
    evidence: Mapping[str, Value] = field(default_factory=dict)


class Client(ABC):
    """One client process; it does one thing at a time. Keys and values are text."""

    @abstractmethod
    async def read(self, key: str, level: str) -> Answer:
        """The value, or None if the key does not exist."""

    @abstractmethod
    async def write(self, key: str, value: str) -> Answer:
        """Set the value."""

    @abstractmethod
    async def swap(self, expected: Mapping[str, str | None], new: Mapping[str, str]) -> Answer:
        """Atomically: if every key of `expected` has that value (None: does not exist), set `new`; the answer is whether.

        Keys of several share a hash tag, as in `{bank}/1`.
        """

    async def cas(self, key: str, expected: str | None, value: str) -> Answer:
        """Compare and set one key; the answer is whether it was set."""
        return await self.swap({key: expected}, {key: value})

    async def delete(self, key: str) -> Answer:
        """Remove the key; it may be absent."""
        raise Unsupported(f"{type(self).__name__} has no delete, so {key!r} stays")

    async def read_many(self, keys: Sequence[str]) -> Answer:
        """The values of keys that share a hash tag at one moment, as a tuple."""
        raise Unsupported(f"{type(self).__name__} has no read of {len(keys)} keys at one moment")

    async def scan(self, prefix: str) -> Answer:
        """The keys that begin so, in order, as a tuple."""
        raise Unsupported(f"{type(self).__name__} has no scan of {prefix!r}")

    async def append(self, key: str, word: str) -> Answer:
        """Add a word to the list of words in the value; here by one compare-and-set, which may be refused."""
        held = (await self.read(key, "linearizable")).value
        after = word if held is None else f"{held} {word}"
        return await self._replaced(key, held, after)

    async def add(self, key: str, number: int) -> Answer:
        """Add to the number in the value (absent is 0); the answer is the sum."""
        held = (await self.read(key, "linearizable")).value
        total = (0 if held is None else int(str(held))) + number
        done = await self._replaced(key, held, str(total))
        return Answer(total, done.evidence)

    async def _replaced(self, key: str, held: Value, after: str) -> Answer:
        done = await self.cas(key, None if held is None else str(held), after)
        if done.value is not True:
            raise Refused("another client was faster")
        return done

    async def close(self) -> None:
        """Close connections."""
        return


class Target(ABC):
    """A cluster of node processes.

    Class attributes:
        name: by which users choose it.
        levels: read levels, the strongest first; `linearizable` must be what that word says.
        log_allowed: regular expressions of log lines that look bad and are not.
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[str, ...]] = ("linearizable",)
    log_allowed: ClassVar[tuple[str, ...]] = ()

    nodes: Sequence[str]

    @abstractmethod
    async def start(self, *nodes: str) -> None:
        """Start nodes (all, if none is named), from their disks if they ran before; one that runs is left alone."""

    @abstractmethod
    async def ready(self) -> None:
        """Return when every node answers and the cluster serves; raises `TimeoutError`."""

    @abstractmethod
    async def stop(self) -> None:
        """End every node, also paused ones. May be called twice."""

    @abstractmethod
    def kill(self, *nodes: str) -> None:
        """End nodes by SIGKILL, and wait until they are gone."""

    @abstractmethod
    def pause(self, *nodes: str) -> None:
        """Stop nodes by SIGSTOP."""

    @abstractmethod
    def resume(self, *nodes: str) -> None:
        """Let paused nodes go on."""

    @abstractmethod
    def client(self, process: int) -> Client:
        """Make a client for a process of the harness; several processes should prefer several nodes."""

    def refuses(self, kinds: Collection[str]) -> list[str]:
        """Told before the start which faults of hosts (`HOST_KINDS`) will come; what it cannot do, one sentence each."""
        return [f"{kind} cannot be done to the nodes of {type(self).__name__}" for kind in kinds]

    def afflict(self, node: str, kind: str, value: float = 0.0) -> None:
        """Do one of the faults that it did not refuse; `value` is the seconds or the rate, if the kind has one."""
        raise Unsupported(f"{type(self).__name__} cannot do {kind} {value} to {node}")

    def relieve(self) -> None:
        """End every disk fault and every wrong rate; what is damaged stays so, and clocks stay where they jumped to."""
        return

    async def contents(self) -> list[ReplicaState]:
        """One look at each replica of each node that runs, for its content; none if the system does not tell."""
        return []

    def ended(self) -> list[str]:
        """Nodes that ended and were not killed, one sentence each; complete after `stop`."""
        return []

    async def leader(self, partition: int) -> str | None:
        """The node that leads a partition (systems with one group have partition 1); None if nobody knows."""
        del partition
        return None
