"""Rehearsals: histories of objects that behave, and histories written by hand, to try checkers on.

Pure: the seed is a parameter. `generate` makes histories of the models; here the object is any function, and its replies
may carry evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

from kv_jepsen.history import Call, History, Op, OpType, Value

Request: TypeAlias = tuple[str, Value, Value]
"""Function, key, input."""
Reply: TypeAlias = tuple[Value, Mapping[str, Value]]
"""Output and evidence."""


MS: Final = 1_000_000
"""Nanoseconds from one operation of a rehearsal to the next."""


@dataclass(slots=True)
class _Running:
    process: int
    request: Request
    lost: bool = False
    """It never reaches the object."""
    reply: Reply | None = None


class _Rehearsal:
    """Clients and what they record."""

    def __init__(self, rng: Random, apply: Callable[[Request], Reply], clients: int, trouble: float) -> None:
        self.ops: list[Op] = []
        self.running: dict[int, _Running] = {}
        self._rng, self._apply, self._trouble = rng, apply, trouble
        self._clients = clients
        self._processes = list(range(clients))

    def begin(self, slot: int, request: Request) -> None:
        call = _Running(self._processes[slot], request, lost=self._rng.random() < self._trouble)
        self.running[slot] = call
        self._note(call, OpType.INVOKE, request[2], {})

    def go_on(self, slot: int) -> None:
        """Let the call take effect, or end it."""
        call = self.running[slot]
        if call.reply is None and not call.lost:
            call.reply = self._apply(call.request)
            return
        del self.running[slot]
        if call.lost and self._rng.random() < 0.5:
            self._note(call, OpType.FAIL, None, {})
        elif call.reply is None or self._rng.random() < self._trouble:
            self._note(call, OpType.INFO, None, {})
            self._processes[slot] += self._clients
        else:
            self._note(call, OpType.OK, *call.reply)

    def alone(self, request: Request) -> None:
        """A call by a process of its own, at once."""
        call = _Running(-1, request)
        self._note(call, OpType.INVOKE, request[2], {})
        self._note(call, OpType.OK, *self._apply(request))

    def _note(self, call: _Running, kind: OpType, value: Value, extra: Mapping[str, Value]) -> None:
        f, key, _ = call.request
        at = len(self.ops)
        self.ops.append(Op(at, call.process, kind, f, key, value, at * MS, None, extra))


def simulate(
    seed: int,
    ask: Callable[[Random, int], Request],
    apply: Callable[[Request], Reply],
    *,
    calls: int = 60,
    clients: int = 5,
    trouble: float = 0.15,
    last: tuple[Request, ...] = (),
) -> History:
    """Concurrent clients of one object: each call takes effect at one instant between its start and its end.

    With the probability `trouble` a call fails without effect, or its end is not known. The requests of `last` come
    alone, one after another, after all others.
    """
    rng = Random(seed)
    stage = _Rehearsal(rng, apply, clients, trouble)
    begun = 0
    while begun < calls or stage.running:
        slot = rng.randrange(clients)
        if slot in stage.running:
            stage.go_on(slot)
        elif begun < calls:
            stage.begin(slot, ask(rng, begun))
            begun += 1
    for request in last:
        stage.alone(request)
    return History(stage.ops)


Row: TypeAlias = tuple[int, str, str, Value, Value] | tuple[int, str, str, Value, Value, Mapping[str, Value]]
"""Process, type, function, key, value, and evidence where there is any; a millisecond apart."""


def calls_of(*rows: Row) -> list[Call]:
    """The calls of a history written by hand."""
    ops = [
        Op(i, process, OpType(kind), f, key, value, i * MS, None, extra[0] if extra else {})
        for i, (process, kind, f, key, value, *extra) in enumerate(rows)
    ]
    return list(History(ops).calls)


class Store:
    """A map with revisions: the log index of the last write of a key; every reply has the index it was given at."""

    def __init__(self) -> None:
        self.index = 0
        self.values: dict[Value, tuple[Value, int]] = {}
        self.changes: list[tuple[Value, int, Value]] = []

    def apply(self, request: Request) -> Reply:
        """Write or read one key."""
        f, key, value = request
        if f == "write":
            self.index += 1
            self.values[key] = (value, self.index)
            self.changes.append((key, self.index, value))
        got, revision = self.values.get(key, (None, 0))
        extra = {"revision": revision, "index": self.index, "partition": 1}
        return (None if f == "write" else got), extra
