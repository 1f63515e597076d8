"""The schedule language: what goes wrong, where, and when. Pure.

Here live the form of a fault, the list of all kinds, and the text of a schedule file. What a fault
does is in `kv.sim.injector` (virtual time); how a random schedule is drawn is in `kv.sim.schedule`.
The file is the same for real processes: DESIGN.md says what each fault means in both worlds.

A schedule file has one fault a line: seconds since the start, the kind, the target, then arguments.

    # the leader of partition 1 is cut off, then dies while it writes
    5.0   partition   leader:1/*
    9.5   heal        *
    10.0  crash_at    leader:1   point=before_sync count=2
    14.0  calm        *
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Final

from kv.errors import InvalidArgument

SCHEDULE_FAULTS_MAX: Final = 100_000
"""Lines of one schedule."""


class Target(Enum):
    """What stands in the third column. A host is `n1`, `leader:3` or `follower:3` (of partition 3)."""

    NODE = "a host, or * for every node"
    LINK = "one way n1>n2, or both ways n1-n2"
    SPLIT = "groups of hosts, n1,n2/n3: none reaches another group; * stands for all others"
    ALL = "*"


@dataclass(frozen=True, slots=True)
class Spec:
    """One kind of fault: its target, its arguments (name -> default; None: must be given), its meaning."""

    target: Target
    arguments: Mapping[str, str | None]
    meaning: str


POINTS: Final = (
    "before_append",
    "after_append",
    "before_sync",
    "after_sync",
    "before_send",
    "after_send",
    "before_vote",
    "after_vote",
    "before_apply",
    "after_apply",
    "before_checkpoint",
    "in_checkpoint",
    "after_checkpoint",
    "in_compaction",
    "in_segment_removal",
    "in_snapshot_copy",
    "in_snapshot_write",
    "before_install",
    "after_install",
)
"""Where `crash_at` can kill a process."""

KINDS: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        # network
        "cut": Spec(Target.LINK, {}, "messages stop; a connection is reset if it lasts"),
        "partition": Spec(Target.SPLIT, {}, "the groups do not reach each other"),
        "heal": Spec(Target.ALL, {}, "every cut and every slow link ends"),
        "slow": Spec(Target.LINK, {"seconds": "0.2"}, "messages take so much longer; 0 ends it"),
        "reset": Spec(Target.LINK, {}, "connections end, what was in flight is lost"),
        "weather": Spec(
            Target.ALL,
            {"loss": "0", "duplication": "0", "long_delay": "0", "seconds": "0.3"},
            "probabilities for each message (loss and duplication: datagrams only); all 0 ends it",
        ),
        # disk
        "slow_sync": Spec(Target.NODE, {"seconds": "0.1"}, "each sync takes so much longer; 0 ends it"),
        "fail_sync": Spec(Target.NODE, {}, "the next sync fails; the process must end"),
        "fill": Spec(Target.NODE, {}, "no file can be created, no checkpoint written"),
        "free": Spec(Target.NODE, {}, "there is room again"),
        "flip": Spec(Target.NODE, {}, "the process is killed, and one bit of its log is flipped"),
        # processes
        "crash": Spec(Target.NODE, {"power": "no"}, "killed; power=yes: unsynced data is lost in part"),
        "crash_at": Spec(
            Target.NODE,
            {"point": None, "count": "1", "power": "no"},
            "killed when it reaches the point for the count-th time",
        ),
        "start": Spec(Target.NODE, {}, "started, if it is down"),
        "pause": Spec(Target.NODE, {}, "stopped as by SIGSTOP"),
        "resume": Spec(Target.NODE, {}, "goes on"),
        "clock_rate": Spec(Target.NODE, {"rate": "1"}, "the host's clocks run so fast"),
        "clock_jump": Spec(Target.NODE, {"seconds": None}, "the host's wall clock jumps"),
        # the end of a spell
        "calm": Spec(Target.ALL, {}, "everything heals, everyone runs; progress is expected from now on"),
    }
)

_NUMBERS: Final = frozenset({"seconds", "rate", "loss", "duplication", "long_delay", "count"})
_FLAGS: Final = {"yes": True, "no": False}
_PROBABILITIES: Final = ("loss", "duplication", "long_delay")


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of a schedule. Build it with `fault`, which checks it."""

    at_s: float
    kind: str
    target: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str) -> float:
        """The argument `name` as a number."""
        return float(self._text(name))

    def flag(self, name: str) -> bool:
        """The argument `name` as yes or no."""
        return _FLAGS[self._text(name)]

    def text(self, name: str) -> str:
        """The argument `name`."""
        return self._text(name)

    def _text(self, name: str) -> str:
        given = self.arguments.get(name)
        default = KINDS[self.kind].arguments[name] if given is None else given
        assert default is not None, "`fault` has checked that it is given"
        return default

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to another process as what it was built from: a read-only mapping cannot."""
        return partial(fault, self.at_s, self.kind, self.target, **self.arguments), ()

    def __str__(self) -> str:
        words = [f"{self.at_s:.3f}", self.kind, self.target]
        words += [f"{name}={value}" for name, value in sorted(self.arguments.items())]
        return "  ".join(words)


def fault(at_s: float, kind: str, target: str, **arguments: str) -> Fault:
    """Return the fault; raises `InvalidArgument` that says what is wrong with it."""
    spec = KINDS.get(kind)
    if spec is None:
        raise InvalidArgument(f"there is no fault {kind!r}: give one of {', '.join(KINDS)}")
    if not 0 <= at_s < float("inf"):
        raise InvalidArgument(f"{kind}: the time must be seconds from 0 on, not {at_s}")
    _check_arguments(kind, spec, arguments)
    _check_target(kind, spec.target, target)
    return Fault(at_s, kind, target, MappingProxyType(dict(arguments)))


def parse_schedule(text: str) -> list[Fault]:
    """Read a schedule file; the faults come back in order of time. Raises `InvalidArgument` with the line."""
    faults: list[Fault] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            faults.append(_parse_line(words))
        except InvalidArgument as error:
            raise InvalidArgument(f"line {number} of the schedule: {error.message}") from error
        if len(faults) > SCHEDULE_FAULTS_MAX:
            raise InvalidArgument(f"a schedule has at most {SCHEDULE_FAULTS_MAX} faults")
    return sorted(faults, key=lambda one: one.at_s)


def format_schedule(faults: Iterable[Fault]) -> str:
    """Return the text that `parse_schedule` reads (times to the millisecond)."""
    return "".join(f"{one}\n" for one in faults)


def sides(target: str) -> list[tuple[str, str]]:
    """Return the one-way links of a LINK target."""
    if ">" in target:
        source, _, end = target.partition(">")
        return [(source, end)]
    source, _, end = target.partition("-")
    return [(source, end), (end, source)]


def groups(target: str) -> list[list[str]]:
    """Return the groups of a SPLIT target."""
    return [group.split(",") for group in target.split("/")]


def _parse_line(words: Sequence[str]) -> Fault:
    if len(words) < 3:
        raise InvalidArgument(f"{' '.join(words)!r} is not: seconds fault target [name=value ...]")
    try:
        at_s = float(words[0])
    except ValueError:
        raise InvalidArgument(f"{words[0]!r} is not a time in seconds") from None
    arguments: dict[str, str] = {}
    for word in words[3:]:
        name, equals, value = word.partition("=")
        if not equals or name in arguments:
            raise InvalidArgument(f"{word!r} is not name=value, or is given twice")
        arguments[name] = value
    return fault(at_s, words[1], words[2], **arguments)


def _check_arguments(kind: str, spec: Spec, arguments: Mapping[str, str]) -> None:
    for name, value in arguments.items():
        if name not in spec.arguments:
            known = ", ".join(spec.arguments) or "no arguments"
            raise InvalidArgument(f"{kind} has no argument {name!r}, it takes {known}")
        _check_value(kind, name, value)
    for name, default in spec.arguments.items():
        if default is None and name not in arguments:
            raise InvalidArgument(f"{kind} needs {name}=...")


def _check_value(kind: str, name: str, value: str) -> None:
    if name == "point":
        if value not in POINTS:
            raise InvalidArgument(f"there is no point {value!r}: give one of {', '.join(POINTS)}")
    elif name == "power":
        if value not in _FLAGS:
            raise InvalidArgument(f"power is yes or no, not {value!r}")
    elif name in _NUMBERS:
        _check_number(kind, name, value)


def _check_number(kind: str, name: str, value: str) -> None:
    try:
        number = float(value)
    except ValueError:
        raise InvalidArgument(f"{name} is a number, not {value!r}") from None
    low, high = (0.0, 1.0) if name in _PROBABILITIES else (0.0, 1e6)
    if kind == "clock_jump":
        low = -1e9
        high = 1e9
    if not low <= number <= high or (name in ("rate", "count") and number <= 0):
        raise InvalidArgument(f"{name}={value} is out of range")


def _check_target(kind: str, wanted: Target, target: str) -> None:
    match wanted:
        case Target.NODE:
            good = bool(target) and not set(target) & set(">-/,")
        case Target.LINK:
            one, other = sides(target)[0]
            good = bool(one) and bool(other) and one != other and not set(target) & set("/,*")
        case Target.SPLIT:
            split = groups(target)
            good = len(split) > 1 and all(all(group) for group in split)
        case _:
            good = target == "*"
    if not good:
        raise InvalidArgument(f"{kind} cannot have the target {target!r}: it needs {wanted.value}")
