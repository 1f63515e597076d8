"""Mutants of ringkv that real faults provoke, and how each is hunted. Pure.

A mutant is a build of the store with one duty left out, the simulator's (`kv/sim/mutants.py`), in a real process: the target's option
`mutant`. Here is for each what faults and clients are likely to show it. Whoever finds nothing with the right build, and these with the wrong
ones, may be believed. What is hunted with which result is in MUTANTS.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

FIRST_S: Final = 3.0
"""Before the first fault: clients have written."""
CLINGING: Final = {"leader-fallback-ms": "60000"}
"""A leader that nobody answers goes on; else it would step down before it shows what it does wrong."""
ONE: Final = {"partitions": "1"}
"""All keys are in the partition whose leader the schedule names."""
OWN: Final = {**ONE, "reads": "own"}
"""Each client reads from a node of its own, also from one that is cut off."""
SMALL_LOGS: Final = {"checkpoint-ops-max": "20", "log-retain-entries": "5", "log-retain-bytes": "8192"}


def again(lines: str, every_s: float, times: int) -> str:
    """Return a schedule: the lines, whose times count from 0, so often one after another, and a calm."""
    spells = [
        " ".join([f"{FIRST_S + number * every_s + float(words[0]):.2f}", *words[1:]])
        for number in range(times)
        for words in map(str.split, lines.splitlines())
    ]
    return "\n".join([*spells, f"{FIRST_S + times * every_s:.2f} calm *", ""])


@dataclass(frozen=True, slots=True)
class Hunt:
    """The circumstances in which a mutant is looked for.

    Attributes:
        mutant: its name in the simulator.
        breaks: what it leaves out.
        schedule: the faults, in the schedule language.
        seconds: of load, of one run.
        workload: of the clients.
        levels: of their reads.
        options: of the nodes.
    """

    mutant: str
    breaks: str
    schedule: str
    seconds: float
    workload: str = "register"
    levels: tuple[str, ...] = ("linearizable",)
    options: Mapping[str, str] = field(default_factory=lambda: dict(ONE))


def _hunt(mutant: str, breaks: str, lines: str, every_s: float, times: int, **more: object) -> Hunt:
    seconds = FIRST_S + every_s * times + 2
    return Hunt(mutant, breaks, again(lines, every_s, times), seconds, **more)  # type: ignore[arg-type]


def _without_one(lines: str, every_s: float) -> str:
    """The lines for each of three nodes in the place of X, with the other two in those of Y and Z."""
    turns = (("n1", "n2", "n3"), ("n2", "n3", "n1"), ("n3", "n1", "n2"))
    spells = []
    for number, names in enumerate(turns):
        for line in lines.splitlines():
            seconds, _, rest = line.partition(" ")
            for letter, name in zip("XYZ", names, strict=True):
                rest = rest.replace(letter, name)
            spells.append(f"{float(seconds) + number * every_s:g} {rest}")
    return "\n".join(spells)


_DEPOSED: Final = "0 partition leader:1/*\n5 heal *"
_KILLED: Final = "0 crash *\n0.3 start *"

HUNTS: Final[tuple[Hunt, ...]] = (
    _hunt(
        "reply-when-proposed",
        "a put is answered before it is committed and applied",
        _DEPOSED,
        8,
        2,
    ),
    _hunt(
        "follower-reads",
        "a follower answers linearizable reads from its own state",
        _DEPOSED,
        8,
        2,
        options=OWN,
    ),
    _hunt(
        "read-unconfirmed",
        "a leader serves reads without asking a quorum whether it still leads",
        _DEPOSED,
        8,
        2,
        options={**OWN, **CLINGING},
    ),
    _hunt(
        "any-proof-is-young",
        "a BOUNDED read takes any proof, however old",
        "0 partition follower:1/*\n5 heal *",
        8,
        2,
        levels=("bounded:500ms",),
        options=OWN,
    ),
    _hunt(
        "retry-applied-twice",
        "a request that is sent again is applied again",
        "0 cut leader:1>n1\n0 cut leader:1>n2\n0 cut leader:1>n3\n1.5 heal *\n3 crash leader:1\n3.2 start *",
        7,
        4,
        workload="counter",
    ),
    _hunt(
        "checkpoint-without-sessions",
        "a checkpoint does not hold the session table",
        _KILLED,
        6,
        4,
        workload="append",
        options={**ONE, **SMALL_LOGS},
    ),
    _hunt(
        "snapshot-without-sessions",
        "the session table is forgotten when a snapshot is installed",
        "0 crash n1\n3 start *",
        9,
        1,
        workload="append",
        options={**ONE, **SMALL_LOGS},
    ),
    _hunt(
        "session-expiry-by-wall-clock",
        "each replica expires sessions by its own clock",
        "0 clock_jump n1 seconds=1000000",
        6,
        1,
        workload="append",
    ),
    _hunt(
        "checkpoint-without-index",
        "a checkpoint does not move the applied index: entries are applied again after a crash",
        _KILLED,
        6,
        4,
        workload="append",
        options={**ONE, "checkpoint-ops-max": "20"},
    ),
    _hunt(
        "compact-above-checkpoint",
        "the log drops entries that no checkpoint holds",
        _KILLED,
        6,
        3,
        options={**ONE, "checkpoint-ops-max": "200", "log-retain-entries": "5", "log-retain-bytes": "8192"},
    ),
    _hunt(
        "ack-before-sync",
        "a follower acknowledges entries that are not on its disk",
        _without_one(
            "0 slow_sync * seconds=0.6\n0 slow_sync X seconds=0\n2.5 crash * power=yes\n2.6 start Y\n2.6 start Z\n"
            "2.6 slow_sync * seconds=0\n8 start X",
            11,
        ),
        33,
        1,
        options={"partitions": "4"},
    ),
    _hunt(
        "ignore-failed-sync",
        "a sync that failed counts as done",
        "0 fail_sync *\n1.5 crash * power=yes\n1.8 start *",
        8,
        3,
    ),
    _hunt(
        "trust-stored-commit",
        "a restarted member takes the end of its log for committed",
        "0 partition leader:1/*\n0.6 crash leader:1\n1 start *\n6 heal *",
        9,
        2,
        workload="append",
    ),
    _hunt(
        "truncation-not-logged",
        "a truncation is not written: the removed entries are back after a restart",
        "0 partition leader:1/*\n4 heal *\n5.5 crash *\n5.8 start *",
        10,
        3,
        workload="append",
    ),
    _hunt(
        "lost-when-deposed",
        "a leader that steps down calls what it had proposed definitely failed",
        "0 cut n1>leader:1\n0 cut n2>leader:1\n0 cut n3>leader:1\n1.5 heal *",
        5,
        5,
        workload="append",
    ),
)
"""In the order of the table."""


def hunt_of(mutant: str) -> Hunt:
    """Return how a mutant is hunted.

    Raises:
        KeyError: it is not hunted with real processes.
    """
    return {hunt.mutant: hunt for hunt in HUNTS}[mutant]
