"""Three short schedules and the digests that they must give, on any machine.

After a change of behaviour that is meant (other messages, other times, another drawing of limits) renew the
table with `python -m tests.sim.golden --write`, and say in the commit why the runs differ. After a
change that is meant to change nothing, a digest that differs is a finding.

What depends on the machine stays out of these runs: a digest holds times as IEEE doubles, names and serialized
messages, no paths, numbers of processes or hashes of Python. Only the chunks of a snapshot
carry a file of LMDB, whose layout follows the size of a page; so the limits here are such that no log is compacted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from kv.sim.faults import parse_schedule
from kv.sim.setup import Setup
from kv.sim.world import World

TABLE: Final = Path(__file__).with_name("golden_digests.txt")
LIMITS: Final = {"log_retain_entries": 10_000, "log_retain_bytes": 1 << 30, "map_bytes_initial": 16 << 20}
PLAIN: Final = Setup(scale=1, partitions=2, limits=LIMITS)
CASES: Final = {
    1: (
        PLAIN,
        """
        2   crash leader:1 power=yes
        4   start *
        5   fail_sync n2
        6.5 start *
        7   calm *
        """,
    ),
    2: (
        PLAIN,
        """
        2   partition n1/n2,n3
        5   heal *
        5   clock_rate n2 rate=1.5
        6   pause n3
        7   resume n3
        7.5 crash_at n1 point=after_sync count=2
        9   calm *
        """,
    ),
    3: (
        PLAIN.but(lossy=True),
        """
        1   weather * loss=0.1 duplication=0.1 long_delay=0.1
        2   slow_sync n1 seconds=0.02
        4   cut n2>n3
        5   crash * power=yes
        6   start *
        7   calm *
        """,
    ),
}
"""By seed: the setup and the schedule."""


def line(seed: int) -> str:
    """The line of the table that a seed gives now: seed, events, log entries committed, digest."""
    setup, schedule = CASES[seed]
    report = World(seed, setup=setup, schedule=parse_schedule(schedule)).run()
    assert report.violation is None, report.violation
    assert report.snapshots == 0, "a snapshot carries a file of LMDB: choose other limits"
    return f"{seed} {report.events} {report.commits} {report.digest}"


def table() -> str:
    """The whole table as it is now."""
    return "".join(line(seed) + "\n" for seed in CASES)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        TABLE.write_text(table())
    else:
        sys.stdout.write(table())
