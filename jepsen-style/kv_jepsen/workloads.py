"""What clients do: which operation comes next, and how it is asked of a target.

Choosing is pure (randomness is a parameter); `apply` is the one that talks to a client. Values that go in are
unique within their key where the workload allows it: then histories are judged fast and staleness is told exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Final

from kv_jepsen.history import NOTHING, Value
from kv_jepsen.targets.api import Answer, Client, Refused

KEY_CALLS: Final = 150
"""Calls of a key before a new one takes its place: short histories of many keys are judged fast."""

PROCESSES_PER_KEY: Final = 3
"""Clients that use one key at the same time, each of another node where there are three."""

ACCOUNTS: Final = 5
BALANCE: Final = 20
"""Of each account at the beginning."""


@dataclass(frozen=True, slots=True)
class Step:
    """An operation to be invoked."""

    f: str
    key: Value = None
    value: Value = None
    extra: Mapping[str, Value] = field(default=NOTHING)


class Workload(ABC):
    """One kind of load.

    Class attributes:
        name: by which users choose it.
        judged_as: the workload of `judge` that it is.
    """

    name: ClassVar[str]
    judged_as: ClassVar[str]

    def __init__(self, processes: int, levels: Sequence[str] = ("linearizable",)) -> None:
        self.processes, self.levels = processes, tuple(levels)
        self._count = 0

    async def prepare(self, client: Client) -> None:
        """Make what must be there before the load begins."""
        del client

    async def greet(self, client: Client) -> None:
        """Let each client do what must not be counted, such as making its first connection."""
        del client

    @abstractmethod
    def next(self, process: int, rng: Random) -> Step:
        """What a process does next."""

    @abstractmethod
    async def apply(self, client: Client, step: Step) -> Answer:
        """Do it. Raises `Refused` or `Unknown`."""

    def seen(self, step: Step, answer: Answer) -> None:
        """Learn from an answer."""
        del step, answer

    def last(self) -> list[Step]:
        """What is done at the end by one process, when all is well again."""
        return []

    def _fresh(self) -> int:
        """A number that was not given before."""
        self._count += 1
        return self._count

    def _read(self, key: str, rng: Random) -> Step:
        return self._read_at(rng.choice(self.levels), key)

    def _read_at(self, level: str, key: str) -> Step:
        level, _, bound = level.partition(":")
        extra: dict[str, Value] = {"level": level}
        if level == "bounded":
            extra["bound_ms"] = int(bound.removesuffix("ms"))
        return Step("read", key, None, extra)


def level_of(step: Step) -> str:
    """The level of a read as clients take it."""
    level, bound = str(step.extra.get("level", "linearizable")), step.extra.get("bound_ms")
    return level if bound is None else f"{level}:{bound}ms"


class _Keys:
    """Keys that are each used by some processes for some calls, and then replaced."""

    def __init__(self, prefix: str, processes: int) -> None:
        self._prefix, self._groups = prefix, max(1, processes // PROCESSES_PER_KEY)
        self._calls = [0] * self._groups
        self.used: dict[str, None] = {}

    def next(self, process: int) -> str:
        # Not `process % groups`: clients prefer nodes that way, and a key must be used through several nodes.
        group = process // PROCESSES_PER_KEY % self._groups
        key = f"{self._prefix}{group}-{self._calls[group] // KEY_CALLS}"
        self._calls[group] += 1
        self.used[key] = None
        return key


class Register(Workload):
    """Reads, writes and compare-and-sets of single keys."""

    name = "register"
    judged_as = "register"

    def __init__(self, processes: int, levels: Sequence[str] = ("linearizable",)) -> None:
        super().__init__(processes, levels)
        self._keys = _Keys("r", processes)
        self._held: dict[Value, Value] = {}

    def next(self, process: int, rng: Random) -> Step:
        """See `Workload`: half reads, a quarter writes, a quarter compare-and-sets of what was seen last."""
        key = self._keys.next(process)
        lot = rng.random()
        if lot < 0.5:
            return self._read(key, rng)
        if lot < 0.75:
            return Step("write", key, self._fresh())
        return Step("cas", key, (self._held.get(key), self._fresh()))

    async def apply(self, client: Client, step: Step) -> Answer:
        """See `Workload`."""
        key = str(step.key)
        if step.f == "read":
            answer = await client.read(key, level_of(step))
            return Answer(_number(answer.value), answer.evidence)
        if step.f == "write":
            return Answer(step.value, (await client.write(key, str(step.value))).evidence)
        assert isinstance(step.value, tuple), "made by next"
        expected, new = step.value
        return await client.cas(key, None if expected is None else str(expected), str(new))

    def seen(self, step: Step, answer: Answer) -> None:
        """See `Workload`."""
        if step.f == "read":
            self._held[step.key] = answer.value
        elif step.f == "write":
            self._held[step.key] = step.value
        elif answer.value is True and isinstance(step.value, tuple):
            self._held[step.key] = step.value[1]

    def last(self) -> list[Step]:
        """See `Workload`: every key is read once more, so that what was acknowledged must be found."""
        return [Step("read", key, None, {"level": "linearizable"}) for key in self._keys.used]


class Delete(Register):
    """As `Register`, with deletes."""

    name = "delete"
    judged_as = "delete"

    def next(self, process: int, rng: Random) -> Step:
        """See `Workload`."""
        step = super().next(process, rng)
        return Step("delete", step.key) if step.f == "write" and rng.random() < 0.5 else step

    async def apply(self, client: Client, step: Step) -> Answer:
        """See `Workload`."""
        return await (client.delete(str(step.key)) if step.f == "delete" else super().apply(client, step))

    def seen(self, step: Step, answer: Answer) -> None:
        """See `Workload`."""
        if step.f == "delete":
            self._held[step.key] = None
        else:
            super().seen(step, answer)


class AppendList(Workload):
    """Appends to lists, and reads of whole lists: judged by cycles."""

    name = "append"
    judged_as = "append"

    def __init__(self, processes: int, levels: Sequence[str] = ("linearizable",)) -> None:
        super().__init__(processes, levels)
        self._keys = _Keys("a", processes)

    def next(self, process: int, rng: Random) -> Step:
        """See `Workload`."""
        key = self._keys.next(process)
        return Step("append", key, self._fresh()) if rng.random() < 0.5 else self._read(key, rng)

    async def apply(self, client: Client, step: Step) -> Answer:
        """See `Workload`."""
        if step.f == "append":
            return Answer(step.value, (await client.append(str(step.key), str(step.value))).evidence)
        answer = await client.read(str(step.key), level_of(step))
        return Answer(_numbers(answer.value), answer.evidence)

    def last(self) -> list[Step]:
        """See `Workload`."""
        return [Step("read", key, None, {"level": "linearizable"}) for key in self._keys.used]


class Set(Workload):
    """A set that only grows, in one key."""

    name = "set"
    judged_as = "set"
    key = "set"

    def next(self, process: int, rng: Random) -> Step:
        """See `Workload`."""
        del process
        return Step("add", self.key, self._fresh()) if rng.random() < 0.8 else self._read(self.key, rng)

    async def apply(self, client: Client, step: Step) -> Answer:
        """See `Workload`."""
        if step.f == "add":
            return Answer(step.value, (await client.append(self.key, str(step.value))).evidence)
        answer = await client.read(self.key, level_of(step))
        return Answer(_numbers(answer.value), answer.evidence)

    def last(self) -> list[Step]:
        """See `Workload`."""
        return [Step("read", self.key, None, {"level": "linearizable"})]


class Scan(Set):
    """A set that only grows, each element a key of its own, over all partitions; read by scans."""

    name = "scan"
    key = "scan/"

    async def apply(self, client: Client, step: Step) -> Answer:
        """See `Workload`."""
        if step.f == "add":
            return Answer(step.value, (await client.write(f"{self.key}{step.value}", "1")).evidence)
        answer = await client.scan(self.key)
        assert isinstance(answer.value, tuple), "a scan returns keys"
        return Answer(tuple(int(str(key).removeprefix(self.key)) for key in answer.value), answer.evidence)


class Counter(Workload):
    """Additions to a number, and reads."""

    name = "counter"
    judged_as = "counter"

    def next(self, process: int, rng: Random) -> Step:
        """See `Workload`."""
        key = f"c{process % 2}"
        return Step("add", key, rng.randint(1, 5)) if rng.random() < 0.7 else self._read(key, rng)

    async def apply(self, client: Client, step: Step) -> Answer:
        """See `Workload`."""
        if step.f == "add":
            assert isinstance(step.value, int), "made by next"
            return Answer(step.value, (await client.add(str(step.key), step.value)).evidence)
        answer = await client.read(str(step.key), level_of(step))
        return Answer(_number(answer.value) or 0, answer.evidence)

    def last(self) -> list[Step]:
        """See `Workload`."""
        return [Step("read", f"c{number}", None, {"level": "linearizable"}) for number in range(2)]


class Queue(Workload):
    """Elements go in and come out, by read and compare-and-set; emptied at the end."""

    name = "queue"
    judged_as = "queue"
    key = "queue"

    def next(self, process: int, rng: Random) -> Step:
        """See `Workload`."""
        del process
        return Step("enqueue", self.key, self._fresh()) if rng.random() < 0.55 else Step("dequeue", self.key)

    async def apply(self, client: Client, step: Step) -> Answer:
        """See `Workload`."""
        if step.f == "enqueue":
            return Answer(step.value, (await client.append(self.key, str(step.value))).evidence)
        held = (await client.read(self.key, "linearizable")).value
        words = ("" if held is None else str(held)).split()
        if step.f == "dequeue" and not words:
            return Answer(None)
        rest = "" if step.f == "drain" else " ".join(words[1:])
        if held is not None:
            done = await client.cas(self.key, str(held), rest)
            if done.value is not True:
                raise Refused("another client was faster")
        return Answer(tuple(map(int, words)) if step.f == "drain" else int(words[0]))

    def last(self) -> list[Step]:
        """See `Workload`."""
        return [Step("drain", self.key)]


class Bank(Workload):
    """Transfers between accounts of one hash tag: the total stays."""

    name = "bank"
    judged_as = "bank"
    keys = tuple(f"{{bank}}/{number}" for number in range(ACCOUNTS))

    async def prepare(self, client: Client) -> None:
        """See `Workload`."""
        await client.swap(dict.fromkeys(self.keys), dict.fromkeys(self.keys, str(BALANCE)))

    def next(self, process: int, rng: Random) -> Step:
        """See `Workload`."""
        del process
        if rng.random() < 0.4:
            return Step("read", "bank")
        source, end = rng.sample(range(ACCOUNTS), 2)
        return Step("transfer", "bank", (source, end, rng.randint(1, 5)))

    async def apply(self, client: Client, step: Step) -> Answer:
        """See `Workload`."""
        held = await client.read_many(self.keys)
        assert isinstance(held.value, tuple), "one for each key"
        balances = [int(str(one)) for one in held.value]
        if step.f == "read":
            return Answer(tuple(enumerate(balances)), held.evidence)
        assert isinstance(step.value, tuple), "made by next"
        source, end, amount = map(_count, step.value)
        if balances[source] < amount:
            return Answer(False)
        before = {self.keys[one]: str(balances[one]) for one in (source, end)}
        after = {
            self.keys[source]: str(balances[source] - amount),
            self.keys[end]: str(balances[end] + amount),
        }
        done = await client.swap(before, after)
        if done.value is not True:
            raise Refused("another client was faster")
        return Answer(True, done.evidence)

    def last(self) -> list[Step]:
        """See `Workload`."""
        return [Step("read", "bank")]


WORKLOADS: Final[Mapping[str, type[Workload]]] = {
    one.name: one for one in (Register, Delete, AppendList, Set, Scan, Counter, Queue, Bank)
}
"""By the name that `--workload` takes."""


def _number(value: Value) -> int | None:
    return None if value is None else int(str(value))


def _numbers(value: Value) -> tuple[int, ...]:
    return tuple(map(int, ("" if value is None else str(value)).split()))


def _count(value: Value) -> int:
    assert isinstance(value, int), "made by next"
    return value
