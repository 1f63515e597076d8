"""What clients saw: operations as they were recorded, and the calls they form.

Here live the value types every checker reads. No file format, no model, no judgement: see `formats`, `models`,
`linearizable`. The vocabulary is Jepsen's: a process invokes one operation at a time; `ok` means that it
happened, `fail` that it did not and will not, `info` that nobody knows.

The order of operations is their order in the history, not their clocks: an operation that completes before
another is invoked comes before it in real time. `time_ns` is for pictures and latencies only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias

Value: TypeAlias = Hashable
"""None, bool, int, float, str, and tuples, frozensets and `FrozenMap`s of values. A list in a file is a tuple."""

Process: TypeAlias = int | str
"""An int is a client that does one thing at a time; a str (`nemesis`) comments on the run and is never paired."""

OPEN = 1 << 62
"""The end of a call whose outcome is unknown: later than every recorded operation."""


class MalformedHistory(ValueError):
    """A history that breaks the rules of recording.

    Attributes:
        index: of the operation that breaks them.
        problem: what is wrong with it.
    """

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"operation {index}: {problem}")
        self.index = index
        self.problem = problem


class FrozenMap(Mapping[Value, Value]):
    """A map that can be hashed, for maps inside recorded values. Equal to any mapping with the same items."""

    __slots__ = ("_hash", "_items")

    def __init__(self, items: Mapping[Any, Value] | Iterable[tuple[Value, Value]] = ()) -> None:
        self._items: dict[Value, Value] = dict(items)
        self._hash: int | None = None

    def __getitem__(self, key: Value) -> Value:
        return self._items[key]

    def __iter__(self) -> Iterator[Value]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._items.items()))
        return self._hash

    def __repr__(self) -> str:
        return f"FrozenMap({self._items!r})"


NOTHING: Mapping[str, Value] = FrozenMap()  # type: ignore[assignment]  # an empty map has keys of every type


class OpType(StrEnum):
    """What a recorded line says: that an operation began, or how it ended."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Outcome(StrEnum):
    """What is known of a call after its end."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Op:
    """One recorded line.

    Attributes:
        index: position in the history, from 0.
        process: who.
        type: invocation or the kind of completion.
        f: name of the function, such as `read`.
        key: the object it is about; None where a history has one object.
        value: argument of an invocation, result of a completion.
        time_ns: nanoseconds since the run began, by the harness's monotonic clock.
        error: why it failed or is unknown; None if nothing was said.
        extra: evidence of the reply and what else was noted, by the conventional names
            `partition`, `index` (log index of the answer), `revision`, `version`, `node`, `level`, `bound_ms`.
    """

    index: int
    process: Process
    type: OpType
    f: str
    key: Value = None
    value: Value = None
    time_ns: int = 0
    error: str | None = None
    extra: Mapping[str, Value] = field(default=NOTHING)


@dataclass(frozen=True, slots=True)
class Call:
    """An invocation and its completion, as one thing.

    Attributes:
        id: index of the invocation in the history.
        process, f, key: as invoked.
        input: value of the invocation.
        output: value of the completion; None while the outcome is unknown.
        start: index of the invocation.
        end: index of the completion; `OPEN` if the outcome is unknown, since it may take effect at any later time.
        outcome: ok, failed (has not happened and will not), unknown.
        start_ns: time of the invocation.
        end_ns: time of the completion; None if nothing was ever heard (an `info` line has a time).
        error: of the completion.
        extra: evidence of the completion, over that of the invocation.
    """

    id: int
    process: Process
    f: str
    key: Value
    input: Value
    output: Value
    start: int
    end: int
    outcome: Outcome
    start_ns: int = 0
    end_ns: int | None = None
    error: str | None = None
    extra: Mapping[str, Value] = field(default=NOTHING)

    @property
    def ok(self) -> bool:
        """Whether it certainly happened."""
        return self.outcome is Outcome.OK


class History:
    """Recorded operations, validated and paired.

    Args:
        ops: in the order in which they were recorded; their `index` is set to their position.

    Raises:
        MalformedHistory: a process invoked while an operation of its own was open, or completed what it had not
            invoked, or completed another function or key than it invoked.
    """

    __slots__ = ("calls", "notes", "ops")

    def __init__(self, ops: Iterable[Op]) -> None:
        self.ops: tuple[Op, ...] = tuple(
            op if op.index == index else replace(op, index=index) for index, op in enumerate(ops)
        )
        self.calls: tuple[Call, ...] = tuple(_pair(self.ops))
        """One for each invocation of a client, in the order of invocation."""
        self.notes: tuple[Op, ...] = tuple(op for op in self.ops if isinstance(op.process, str))
        """What processes with a name, such as `nemesis`, noted."""

    def __len__(self) -> int:
        return len(self.ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def by_key(self) -> dict[Value, tuple[Call, ...]]:
        """Return the calls of each key, keys in the order of their first call."""
        parts: dict[Value, list[Call]] = {}
        for call in self.calls:
            parts.setdefault(call.key, []).append(call)
        return {key: tuple(calls) for key, calls in parts.items()}


def _pair(ops: tuple[Op, ...]) -> list[Call]:
    """Join invocations and completions; what was never completed stays open."""
    open_ops: dict[Process, Op] = {}
    calls: dict[int, Call] = {}
    for op in ops:
        if isinstance(op.process, str):
            continue
        if op.type is OpType.INVOKE:
            if (earlier := open_ops.get(op.process)) is not None:
                raise MalformedHistory(
                    op.index,
                    f"process {op.process} invokes {op.f} while its {earlier.f} "
                    f"of operation {earlier.index} is open",
                )
            open_ops[op.process] = op
            calls[op.index] = _unknown(op, None)
        else:
            invocation = _invocation_of(op, open_ops.pop(op.process, None))
            calls[invocation.index] = _joined(invocation, op)
    return list(calls.values())


def _invocation_of(op: Op, invocation: Op | None) -> Op:
    if invocation is None:
        raise MalformedHistory(
            op.index, f"process {op.process} completes {op.f} ({op.type}) without having invoked it"
        )
    if (invocation.f, invocation.key) != (op.f, op.key):
        raise MalformedHistory(
            op.index,
            f"process {op.process} completes {op.f} of key {op.key!r}, "
            f"but operation {invocation.index} invoked {invocation.f} of key {invocation.key!r}",
        )
    return invocation


def _joined(invocation: Op, end: Op) -> Call:
    if end.type is OpType.INFO:
        return _unknown(invocation, end)
    return Call(
        id=invocation.index,
        process=invocation.process,
        f=invocation.f,
        key=invocation.key,
        input=invocation.value,
        output=end.value,
        start=invocation.index,
        end=end.index,
        outcome=Outcome.OK if end.type is OpType.OK else Outcome.FAILED,
        start_ns=invocation.time_ns,
        end_ns=end.time_ns,
        error=end.error,
        extra=_merged(invocation, end),
    )


def _unknown(invocation: Op, end: Op | None) -> Call:
    return Call(
        id=invocation.index,
        process=invocation.process,
        f=invocation.f,
        key=invocation.key,
        input=invocation.value,
        output=None,
        start=invocation.index,
        end=OPEN,
        outcome=Outcome.UNKNOWN,
        start_ns=invocation.time_ns,
        end_ns=None if end is None else end.time_ns,
        error=None if end is None else end.error,
        extra=invocation.extra if end is None else _merged(invocation, end),
    )


def _merged(invocation: Op, end: Op) -> Mapping[str, Value]:
    if not invocation.extra:
        return end.extra
    return {**invocation.extra, **end.extra} if end.extra else invocation.extra
