"""Running seeds: time limits, replays, what a violation looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from kv.errors import InvalidArgument
from kv.raft.group import Group
from kv.raft.guard import Rules
from kv.sim.faults import parse_schedule
from kv.sim.node import SimNode
from kv.sim.runner import Totals, Wishes, describe, parse_mixes, parse_seeds, run_seeds

STALE_READS = tuple(parse_schedule("12 clock_rate leader:1 rate=0.05\n12 partition leader:1,c1/*\n30 calm *"))


class Unconfirmed:
    """A mutant that reads without asking a quorum."""

    name = "unconfirmed"
    rules = Rules(confirm_reads=False)

    def started(self, node: SimNode) -> None:
        assert node.up

    def group_started(self, node: SimNode, group: Group) -> None:
        assert group.group_id in node.cluster.wal.groups()


def run(seeds: Iterable[int], wishes: Wishes, seconds: float | None = None, step: float = 0.0) -> object:
    """Run with a wall clock that advances by `step` at each look."""
    return run_seeds(seeds, replace(wishes, seconds=seconds), wall=_ticking(step), tell=lambda _: None)


def _ticking(step: float) -> Callable[[], float]:
    now = 0.0

    def wall() -> float:
        nonlocal now
        now += step
        return now

    return wall


def test_no_seed_begins_after_the_time_is_over() -> None:
    """The wall clock decides when to stop; the seed under way is finished, and progress is told on the way."""
    told: list[Totals] = []
    totals, broken = run_seeds(
        range(1, 100), Wishes(minutes_each=0.4, seconds=5.0), wall=_ticking(0.6), tell=told.append
    )
    assert broken is None
    assert totals.seeds == 1
    assert told
    assert totals.simulated_s > told[0].simulated_s > 0


def test_a_violation_stops_the_run_and_can_be_replayed() -> None:
    """The description names seed, property and command; replaying the seed gives the same violation."""
    wishes = Wishes(
        nodes=3, schedule=STALE_READS, schedule_file="s.txt", minutes_each=0.5, mutant=Unconfirmed()
    )
    totals, broken = run_seeds(range(1, 9), wishes, wall=_ticking(0.0), tell=lambda _: None)
    assert broken is not None
    assert broken.violation is not None
    text = "\n".join(describe(broken, wishes.replay(broken.seed)))
    assert broken.violation.name in ("linearizable", "evidence-is-true"), (
        "what is not confirmed is no proof either"
    )
    assert f"seed {broken.seed} violates {broken.violation.name}" in text
    assert f"kv sim --seed {broken.seed} --nodes 3 --minutes-each 0.5 --schedule s.txt" in text
    again = run_seeds([broken.seed], wishes, wall=_ticking(0.0), tell=lambda _: None)[1]
    assert again is not None
    assert (again.violation, again.digest) == (broken.violation, broken.digest)
    assert totals.seeds >= 1


def test_seeds_and_families_are_read() -> None:
    """Good texts are read, bad ones refused."""
    assert list(parse_seeds("3:6")) == [3, 4, 5]
    assert parse_mixes("disk,network") == ("disk", "network")
    for text in ("3", "6:3", "a:b", "3:3"):
        with pytest.raises(InvalidArgument):
            parse_seeds(text)
    with pytest.raises(InvalidArgument, match="weather"):
        parse_mixes("weather")
