"""When there were faults: periods from what the nemesis noted.

Pure. A note is an operation of a process with a name. Its function `f` is a kind of the schedule language (`partition`,
`crash`, `heal`, ...) or one of Jepsen's (`start-partition`, `stop-partition`, `kill`); its key, or else its value, the
target. What ends what is in the tables below. A fault that nothing ends lasts until the end of the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kv_jepsen.history import Op, Value

ENDED_BY: Final = {
    "cut": "heal",
    "partition": "heal",
    "slow": "heal",
    "weather": "heal",
    "crash": "start",
    "crash_at": "start",
    "kill": "start",
    "fail_sync": "start",
    "flip": "start",
    "pause": "resume",
    "fill": "free",
    "slow_sync": "calm",
    "clock_rate": "calm",
}
"""Kinds of fault that last, and what ends them; `calm` ends every one."""

MOMENTS: Final = frozenset({"reset", "clock_jump"})
"""Kinds of fault that are over at once."""

EVERYWHERE: Final = (None, "*", "all")
"""Targets of an end that ends all faults of its kind."""


@dataclass(frozen=True, slots=True)
class Period:
    """A fault from its start to its end, in nanoseconds since the run began; `end_ns` None: until the history's end."""

    kind: str
    target: str
    start_ns: int
    end_ns: int | None


def periods(notes: Iterable[Op]) -> tuple[Period, ...]:
    """The faults in the notes, by start. A repeated note of the same thing (Jepsen writes two) counts once."""
    found: list[Period] = []
    for note in notes:
        kind, target = _canonical(note.f), _target(note)
        if kind in MOMENTS:
            found.append(Period(kind, target, note.time_ns, note.time_ns))
        elif kind in ENDED_BY or note.f.startswith("start-"):
            if not any(p.end_ns is None and (p.kind, p.target) == (kind, target) for p in found):
                found.append(Period(kind, target, note.time_ns, None))
        else:
            found = [_ended(p, note, target) for p in found]
    return tuple(found)


def _canonical(f: str) -> str:
    return f.removeprefix("start-").replace("-", "_")


def _target(note: Op) -> str:
    value: Value = note.value if note.key is None else note.key
    if value is None:
        return "*"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _ended(period: Period, note: Op, target: str) -> Period:
    if period.end_ns is not None:
        return period
    ends = (
        note.f in {"calm", ENDED_BY.get(period.kind)}
        or note.f.removeprefix("stop-").replace("-", "_") == period.kind
    )
    # Notes of an end that are about nodes end what was done to these; those about links end all.
    everywhere = target in EVERYWHERE or note.f in {"heal", "calm"} or note.f.startswith("stop-")
    return (
        replace(period, end_ns=note.time_ns) if ends and (everywhere or target == period.target) else period
    )


def calm_spells(found: Sequence[Period]) -> list[tuple[int, int | None]]:
    """From when to when there was no fault, each after at least one; None: until the end of the history."""
    spells: list[tuple[int, int | None]] = []
    until = 0
    for period in sorted(found, key=lambda p: p.start_ns):
        if spells and period.start_ns > until:
            spells[-1] = (until, period.start_ns)
        elif spells:
            spells.pop()
        if period.end_ns is None:
            return spells
        until = max(until, period.end_ns)
        spells.append((until, None))
    return spells
