"""The circumstances in which mutants are hunted: set-ups, schedules, and what looks on. No mutant is named here.

Here live the conditions under which a class of mistakes shows soon: what the seed draws is faults within a
family (`Setup.mixes`), or only times and choices where a schedule is given. Scenes are in `kv.sim.scripted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kv.sim.levels import SIDE_BY_SIDE
from kv.sim.scripted import Scene
from kv.sim.setup import Setup
from kv.sim.workload import Pace
from kv.sim.world import Task, World

Watch = Callable[[], Callable[[World], None]]
"""Makes, for one run, what looks at the world each simulated second."""

KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Hunt:
    """The circumstances in which a mutant is looked for."""

    setup: Setup
    schedule: str | None = None
    """Drawn from the seed if None."""
    scene: Scene | None = None
    watch: Watch | None = None
    work: Callable[[World], Sequence[Task]] | None = None
    """The tasks of the clients; the usual ones if None."""


DENSE: Final = Setup(
    nodes=3,
    partitions=1,
    scale=1,
    duration_s=40.0,
    clients=3,
    pace=Pace(think_mean_s=0.1, tasks=2),
    window_bytes=8 * KIB,
)
"""One busy partition in production's own times: much happens in little of the simulator's."""
BUSY: Final = DENSE.but(pace=Pace(think_mean_s=0.2, tasks=2))
MANY: Final = DENSE.but(pace=Pace(think_mean_s=1.0, tasks=8))
"""Many tasks that ask seldom: some have not been caught in a write that waits when it matters."""
SMALL_LOGS: Final = {
    "checkpoint_ops_max": 10,
    "checkpoint_interval_ms": 1000,
    "log_retain_entries": 5,
    "log_retain_bytes": 8 * KIB,
    "segment_bytes": 16 * KIB,
}
LONG_LOGS: Final = {**SMALL_LOGS, "log_retain_entries": 10_000, "log_retain_bytes": KIB * KIB}
LOSSY: Final = DENSE.but(mixes=("network", "process"), lossy=True)
DISK: Final = DENSE.but(mixes=("disk",))
CRASHES: Final = DENSE.but(mixes=("process",), limits=SMALL_LOGS)
SNAPSHOTS: Final = DENSE.but(mixes=("process", "network"), limits={**SMALL_LOGS, "session_ttl_s": 3600})


def _again(lines: str, first_s: float, every_s: float, times: int) -> str:
    """The schedule `lines`, whose times count from 0, several times after one another, and a calm."""
    faults = [
        " ".join([f"{first_s + number * every_s + float(words[0]):.2f}", *words[1:]])
        for number in range(times)
        for words in map(str.split, lines.splitlines())
    ]
    return "\n".join([*faults, f"{first_s + times * every_s} calm *"])


POWER_LOSS: Final = _again(
    """0 slow_sync * seconds=0.03
0.1 crash_at leader:1 point=before_sync count=4 power=yes
1.5 start *
2 crash_at follower:1 point=before_sync count=4 power=yes
3.5 start *""",
    4,
    4,
    7,
)
"""Power fails between a write and its sync: of what was written some sectors are there."""
OWN_TAIL: Final = _again(
    """0 partition leader:1,c1,c2/*
0.4 crash leader:1
0.6 start *
1.5 heal *""",
    4,
    5,
    5,
)
"""A leader that is cut off together with clients dies with entries that nobody else has."""
DEPOSED: Final = _again(
    """0 clock_rate leader:1 rate=0.3
0.5 partition leader:1,c1/*
3.5 heal *
3.6 clock_rate n1 rate=1
3.6 clock_rate n2 rate=1
3.6 clock_rate n3 rate=1""",
    4,
    7,
    4,
)
"""A leader with a slow clock, and a client, are cut off: both go on for a while as if nothing had happened."""
LEFT_BEHIND: Final = _again(
    """0 partition follower:1/*
2 crash leader:1
2 heal *
3.5 start *""",
    4,
    6,
    5,
)
"""The leader dies at the moment when a member that missed much is back."""
SLOW_START: Final = _again(
    """0 slow_sync * seconds=0.3
1.5 cut leader:1>n1
1.5 cut leader:1>n2
1.5 cut leader:1>n3
2.2 crash leader:1
2.2 heal *
3.8 start *
4 slow_sync * seconds=0""",
    4,
    6,
    5,
)
"""The leader commits what nobody else learns of and dies; its successor's first entry takes long to be durable."""
OLD_REPLIES: Final = _again(
    """0 clock_rate leader:1 rate=0.3
0 slow n1>leader:1 seconds=1.8
0 slow n2>leader:1 seconds=1.8
0 slow n3>leader:1 seconds=1.8
2.5 cut leader:1>n1
2.5 cut leader:1>n2
2.5 cut leader:1>n3
2.5 cut c1-leader:1
2.5 cut c2-leader:1
6 heal *
6.1 clock_rate n1 rate=1
6.1 clock_rate n2 rate=1
6.1 clock_rate n3 rate=1""",
    4,
    9,
    3,
)
"""The followers' replies take long to reach a leader that does not reach them any more."""
OVERWRITTEN: Final = _again(
    """0 partition leader:1,c1,c2/*
2 heal *
3 crash *
3.3 start *""",
    4,
    5,
    5,
)
"""A leader that was cut off comes back, its tail is replaced, and everybody dies."""
SLOW_FOLLOWER: Final = _again(
    """0 slow_sync follower:1 seconds=0.6
1.5 crash follower:1
2.5 start *
2.6 slow_sync * seconds=0""",
    4,
    4,
    6,
)
"""A follower whose disk is slow dies."""
UNHEARD: Final = _again(
    """0 cut n1>leader:1
0 cut n2>leader:1
0 cut n3>leader:1
0.72 heal *""",
    4,
    3,
    10,
)
"""What the leader sends arrives, what it is answered does not: it steps down, and all that is committed.

It is heard again before there is another leader: whoever asks then is refused everywhere, definitely.
"""
NO_ANSWER: Final = _again(
    """0 cut c1-leader:1
0 cut c2-leader:1
0 cut c3-leader:1
0.5 cut leader:1>follower:1
5.5 heal *""",
    4,
    6.5,
    5,
)
"""Clients reach the leader by way of followers: what one forwards is applied, the answers are lost, then the connection."""


CLINGING: Final = SIDE_BY_SIDE.but(limits={"leader_fallback_ms": 60_000})
"""A leader that nobody answers goes on: a lease must end by itself, and not because its leader steps down."""
CUT_OFF: Final = _again(
    """0 partition leader:1,c2,c5/*
3 heal *""",
    4,
    5,
    4,
)
"""A leader is cut off together with a client that reads by LEASE (`readers_and_writers`)."""
WILD: Final = SIDE_BY_SIDE.but(sober_clocks=False)
"""c3 reads LINEARIZABLE all the time (`readers_and_writers`), and nobody reads by LEASE."""
LEVELS: Final = SIDE_BY_SIDE.but(mixes=("network",))
AGED: Final = _again(
    """0 slow leader:1>follower:1 seconds=0.4
3 heal *""",
    4,
    4,
    5,
)
"""What a leader sends to one of its followers, entries and answers alike, takes long."""
APART: Final = _again(
    """0 partition follower:1,c7/*
3 heal *""",
    4,
    4,
    5,
)
"""A follower is cut off together with the client that reads by BOUNDED (`readers_and_writers`)."""
PAGES: Final = DENSE.but(
    duration_s=20.0,
    pace=Pace(think_mean_s=0.05, tasks=4),
    limits={"scan_page_items": 2, "pending_requests_max": 4096},
)
"""A scan has many pages, and much is written meanwhile."""
SCANS: Final = "10 calm *"
"""No fault is needed."""


def undisturbed() -> Callable[[World], None]:
    """A member that was cut off comes back: whoever leads meanwhile goes on in the same term."""
    led: dict[str, int] = {}

    def look(world: World) -> None:
        leaders = {
            node.name: node.cluster.engine.groups[1].term
            for node in world.nodes
            if node.up and (group := node.cluster.engine.groups.get(1)) is not None and group.is_leader
        }
        if ISOLATED_S - 1.5 < world.loop.time() < ISOLATED_S:
            led.update(leaders)
        elif world.loop.time() > ISOLATED_S + 3 and led != leaders and led:
            text = f"group 1 was led by {led}, is led by {leaders} after a member that was cut off came back"
            world.fail("undisturbed-leader", text, sorted(led | leaders))

    return look


ISOLATED_S: Final = 10.0
RETURN: Final = f"4 partition follower:1/*\n{ISOLATED_S} heal *\n{ISOLATED_S + 6} calm *"
