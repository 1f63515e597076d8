"""The schedule language: what goes wrong, where, and when. Pure.

The same text that the store's simulator reads, with a reader of its own, since this package knows nothing of the
store but its client. What a fault does to real processes is in `nemesis`; how random schedules are drawn in `draw`.

One fault a line: seconds since the start, the kind, the target, then arguments. `#` begins a comment.

    5.0   partition   leader:1/*
    9.5   heal        *
    14.0  calm        *
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from types import MappingProxyType
from typing import Final

FAULTS_MAX: Final = 100_000
"""Lines of one schedule."""


class BadSchedule(ValueError):
    """A schedule that cannot be read; the message names the line and what to write instead."""


class Where(Enum):
    """What stands in the third column. A host is `n1`, `leader:3` or `follower:3` (of partition 3)."""

    NODE = "a host, or * for every node"
    LINK = "one way n1>n2, or both ways n1-n2"
    SPLIT = "groups of hosts, n1,n2/n3; * stands for all others"
    ALL = "*"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: its target and its arguments, name to default (None: must be given)."""

    where: Where
    arguments: Mapping[str, str | None] = field(default_factory=dict)


POINTS: Final = frozenset(
    f"{when}_{what}"
    for when in ("before", "after")
    for what in ("append", "sync", "send", "vote", "apply", "checkpoint", "install")
) | {"in_checkpoint", "in_compaction", "in_segment_removal", "in_snapshot_copy", "in_snapshot_write"}
"""Where the simulator can kill a process. Real processes die at a time, not at a point."""

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "cut": Kind(Where.LINK),
        "partition": Kind(Where.SPLIT),
        "heal": Kind(Where.ALL),
        "slow": Kind(Where.LINK, {"seconds": "0.2"}),
        "reset": Kind(Where.LINK),
        "weather": Kind(Where.ALL, {"loss": "0", "duplication": "0", "long_delay": "0", "seconds": "0.3"}),
        "slow_sync": Kind(Where.NODE, {"seconds": "0.1"}),
        "fail_sync": Kind(Where.NODE),
        "fill": Kind(Where.NODE),
        "free": Kind(Where.NODE),
        "flip": Kind(Where.NODE),
        "crash": Kind(Where.NODE, {"power": "no"}),
        "crash_at": Kind(Where.NODE, {"point": None, "count": "1", "power": "no"}),
        "start": Kind(Where.NODE),
        "pause": Kind(Where.NODE),
        "resume": Kind(Where.NODE),
        "clock_rate": Kind(Where.NODE, {"rate": "1"}),
        "clock_jump": Kind(Where.NODE, {"seconds": None}),
        "calm": Kind(Where.ALL),
    }
)
"""Every kind of fault; what each means is told in `docs` of the simulator, and in README.md here."""

_PROBABILITIES: Final = frozenset({"loss", "duplication", "long_delay"})
_POSITIVE: Final = frozenset({"rate", "count"})
_NUMBER_MAX: Final = 1e6
_JUMP_SECONDS_MAX: Final = 1e9


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of a schedule. Build it with `fault`, which checks it."""

    at_s: float
    kind: str
    target: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The argument `name`, or its default."""
        value = self.arguments.get(name, KINDS[self.kind].arguments[name])
        assert value is not None, "`fault` has checked that it is given"
        return value

    def number(self, name: str) -> float:
        """The argument `name` as a number."""
        return float(self.text(name))

    def __str__(self) -> str:
        words = [f"{self.at_s:.3f}", self.kind, self.target]
        return "  ".join(words + [f"{name}={value}" for name, value in sorted(self.arguments.items())])


def fault(at_s: float, kind: str, target: str, **arguments: str) -> Fault:
    """Return the fault.

    Raises:
        BadSchedule: what is wrong with it.
    """
    known = KINDS.get(kind)
    if known is None:
        raise BadSchedule(f"there is no fault {kind!r}: give one of {', '.join(KINDS)}")
    if not (isfinite(at_s) and at_s >= 0):
        raise BadSchedule(f"{kind}: the time must be seconds from 0 on, not {at_s}")
    for name, value in arguments.items():
        if name not in known.arguments:
            raise BadSchedule(f"{kind} takes {', '.join(known.arguments) or 'no arguments'}, not {name!r}")
        _check_value(kind, name, value)
    missing = [n for n, default in known.arguments.items() if default is None and n not in arguments]
    if missing:
        raise BadSchedule(f"{kind} needs {missing[0]}=...")
    if not _fits(known.where, target):
        raise BadSchedule(f"{kind} cannot have the target {target!r}: it needs {known.where.value}")
    return Fault(at_s, kind, target, MappingProxyType(dict(arguments)))


def parse_schedule(text: str) -> list[Fault]:
    """Read a schedule; the faults come back in order of time, those of one moment in the order of the file.

    Raises:
        BadSchedule: naming the line.
    """
    faults: list[Fault] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            faults.append(_parse_line(words))
        except BadSchedule as error:
            raise BadSchedule(f"line {number} of the schedule: {error}") from error
        if len(faults) > FAULTS_MAX:
            raise BadSchedule(f"a schedule has at most {FAULTS_MAX} faults")
    return sorted(faults, key=lambda one: one.at_s)


def format_schedule(faults: Iterable[Fault]) -> str:
    """Return the text that `parse_schedule` reads (times to the millisecond)."""
    return "".join(f"{one}\n" for one in faults)


def links(target: str) -> list[tuple[str, str]]:
    """Return the one-way links of a LINK target."""
    one_way, arrow, end = target.partition(">")
    if arrow:
        return [(one_way, end)]
    left, _, right = target.partition("-")
    return [(left, right), (right, left)]


def groups(target: str) -> list[list[str]]:
    """Return the groups of a SPLIT target."""
    return [group.split(",") for group in target.split("/")]


def _parse_line(words: Sequence[str]) -> Fault:
    if len(words) < 3:
        raise BadSchedule(f"{' '.join(words)!r} is not: seconds fault target [name=value ...]")
    try:
        at_s = float(words[0])
    except ValueError:
        raise BadSchedule(f"{words[0]!r} is not a time in seconds") from None
    arguments: dict[str, str] = {}
    for word in words[3:]:
        name, equals, value = word.partition("=")
        if not equals or name in arguments:
            raise BadSchedule(f"{word!r} is not name=value, or is given twice")
        arguments[name] = value
    return fault(at_s, words[1], words[2], **arguments)


def _check_value(kind: str, name: str, value: str) -> None:
    if name == "point":
        if value not in POINTS:
            raise BadSchedule(f"there is no point {value!r}: give one of {', '.join(sorted(POINTS))}")
        return
    if name == "power":
        if value not in {"yes", "no"}:
            raise BadSchedule(f"power is yes or no, not {value!r}")
        return
    try:
        number = float(value)
    except ValueError:
        raise BadSchedule(f"{name} is a number, not {value!r}") from None
    low, high = (0.0, 1.0) if name in _PROBABILITIES else (0.0, _NUMBER_MAX)
    if kind == "clock_jump":
        low, high = -_JUMP_SECONDS_MAX, _JUMP_SECONDS_MAX
    if not low <= number <= high or (name in _POSITIVE and number <= 0):
        raise BadSchedule(f"{name}={value} is out of range")


def _fits(where: Where, target: str) -> bool:
    match where:
        case Where.NODE:
            return bool(target) and not set(target) & set(">-/,")
        case Where.LINK:
            one, other = links(target)[0]
            return bool(one) and bool(other) and one != other and not set(target) & set("/,*")
        case Where.SPLIT:
            split = groups(target)
            return len(split) > 1 and all(all(group) for group in split)
        case Where.ALL:
            return target == "*"
