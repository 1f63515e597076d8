"""What each fault does to a target and its network, and what stands in the history of it."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from kv_jepsen.nemesis import Nemesis, unsupported
from kv_jepsen.schedule import fault, parse_schedule
from kv_jepsen.targets import memory
from kv_jepsen.targets.api import Target


class Bare(memory.MemoryTarget):
    """A target that takes what `Target` says of disks and clocks: nothing."""

    def refuses(self, kinds: Collection[str]) -> list[str]:
        """See `Target`."""
        return Target.refuses(self, kinds)


async def _done(text: str, leader: str | None = None) -> tuple[list[object], list[tuple[str, str]]]:
    """Apply a schedule; return what was done, and the notes."""
    target, cuts = memory.MemoryTarget(leader=leader), memory.NotedCuts()
    notes: list[tuple[str, str]] = []
    nemesis = Nemesis(target, cuts, lambda kind, where: notes.append((kind, where)))
    for one in parse_schedule(text):
        await nemesis.apply(one)
    return [*target.done, *cuts.done], notes


async def test_processes() -> None:
    """Crash, start, pause and resume reach the nodes they name; each node killed is noted by its name."""
    done, notes = await _done("1 crash *\n2 start n2\n3 start *\n4 pause n1\n5 resume *\n")
    assert done == [
        ("kill", "n1", "n2", "n3"),
        ("start", "n2"),
        ("start", "n1", "n2", "n3"),
        ("pause", "n1"),
        ("resume", "n1", "n2", "n3"),
    ]
    assert notes[:4] == [("crash", "n1"), ("crash", "n2"), ("crash", "n3"), ("start", "n2")]
    assert notes[4:] == [("start", "*"), ("pause", "n1"), ("resume", "*")]


async def test_network() -> None:
    """Splits, cuts one way and both, slowness, resets and weather reach the links they name."""
    done, notes = await _done(
        "1 partition n2/*\n2 cut n1>n3\n3 slow n1-n2 seconds=0.5\n4 reset n1-n2\n5 weather * loss=0.1\n6 weather *\n"
        "7 heal *\n"
    )
    assert set(done[:4]) == {
        ("cut", "n2", "n1"),
        ("cut", "n2", "n3"),
        ("cut", "n1", "n2"),
        ("cut", "n3", "n2"),
    }
    assert done[4:] == [
        ("cut", "n1", "n3"),
        ("slow", "n1", "n2", 0.5),
        ("slow", "n2", "n1", 0.5),
        ("reset", "n1", "n2"),
        ("reset", "n2", "n1"),
        ("weather", 0.1, 0.0, 0.3),
        ("weather", 0.0, 0.0, 0.3),
        ("heal",),
    ]
    assert ("partition", "n2/*") in notes
    assert notes[-2:] == [("stop-weather", "*"), ("heal", "*")]


@pytest.mark.parametrize(
    ("leader", "killed", "paused"), [("n2", "n2", "n1"), ("n1", "n1", "n2"), (None, "n1", "n2")]
)
async def test_roles(leader: str | None, killed: str, paused: str) -> None:
    """A role is the node that has it now; without a leader it is the first node."""
    done, _ = await _done("1 crash leader:1\n2 pause follower:1\n", leader)
    assert done == [("kill", killed), ("pause", paused)]


async def test_calm_undoes_everything() -> None:
    """Calm heals the network, lets everyone go on and starts who is down."""
    done, notes = await _done("1 calm *\n")
    assert sorted(done, key=str) == [("heal",), ("relieve",), ("resume", "n1", "n2", "n3"), ("start",)]
    assert notes == [("calm", "*")]


async def test_a_host_that_is_none() -> None:
    """A node that the cluster has not is named, with those that it has."""
    with pytest.raises(ValueError, match="no host 'n9', it has n1, n2, n3"):
        await _done("1 crash n9\n")


def test_what_cannot_be_done_is_told_before() -> None:
    """Faults that need more than processes and a network are named once each; the others pass."""
    schedule = [
        fault(1, "fill", "n1"),
        fault(2, "fill", "n2"),
        fault(3, "crash", "n1", power="yes"),
        fault(4, "heal", "*"),
        fault(5, "crash_at", "n1", point="after_sync"),
    ]
    problems = unsupported(schedule, memory.NotedCuts(), Bare())
    assert len(problems) == 3
    assert problems[0].startswith("crash_at is the simulator's")
    assert problems[1].startswith("fill cannot be done")
    assert problems[2].startswith("power cannot be done")
    assert unsupported(schedule[:4], memory.NotedCuts(), memory.MemoryTarget()) == []


async def test_routers() -> None:
    """The router of a node can be cut, and nothing else can be done to it; a network that cannot tell it says so."""
    done, notes = await _done("1 cut router:n1-n2\n")
    assert done == [("cut", "router:n1", "n2"), ("cut", "n2", "router:n1")]
    assert notes == [("cut", "router:n1-n2")]
    with pytest.raises(ValueError, match="no host 'n9'"):
        await _done("1 cut router:n9-n2\n")
    slow = [fault(1, "slow", "router:n1-n2")]
    assert "slow of a router cannot be done" in unsupported(slow, memory.NotedCuts(), Bare())[0]
    cut = [fault(1, "cut", "router:n1-n2")]
    assert "cut of a router cannot be done" in unsupported(cut, memory.NotedCuts(), Bare())[0]


def test_links_of_clients_are_refused_where_they_cannot_be_cut() -> None:
    """A network that knows no clients refuses faults of their links before the run; others are for it to do."""

    class Between(memory.NotedCuts):
        def offers(self, kind: str) -> bool:
            return kind in {"cut", "partition"}

    schedule = [
        fault(1, "cut", "clients>n1"),
        fault(2, "partition", "n1,clients/n2"),
        fault(3, "cut", "n1-n2"),
    ]
    assert unsupported(schedule, memory.NotedCuts(), Bare()) == []
    assert unsupported(schedule, Between(), Bare()) == [
        "cut of clients cannot be done by Between: take --cut proxy",
        "partition of clients cannot be done by Between: take --cut proxy",
    ]


def test_delays_are_refused_where_there_are_none() -> None:
    """A network that can lose packets and cannot delay them takes a weather of loss alone."""

    class Lossy(memory.NotedCuts):
        def offers(self, kind: str) -> bool:
            return kind == "weather"

    weather = [fault(1, "weather", "*", loss="0.1"), fault(2, "weather", "*", long_delay="0.1")]
    assert unsupported(weather[:1], Lossy(), Bare()) == []
    assert unsupported(weather, Lossy(), Bare()) == [
        "weather with long_delay cannot be done by Lossy: give loss alone"
    ]


async def test_disks_and_clocks() -> None:
    """Each fault of a host reaches the nodes it names with its value; a value that ends one is noted as an end."""
    done, notes = await _done(
        "1 slow_sync n1 seconds=0.3\n2 slow_sync n1 seconds=0\n3 fail_sync n2\n4 fill n1\n5 free n1\n6 flip n3\n"
        "7 clock_rate * rate=1.5\n8 clock_rate n1\n9 clock_jump n2 seconds=-30\n10 crash n1 power=yes\n"
    )
    assert done == [
        ("afflict", "n1", "slow_sync", 0.3),
        ("afflict", "n1", "slow_sync", 0.0),
        ("afflict", "n2", "fail_sync", 0.0),
        ("afflict", "n1", "fill", 0.0),
        ("afflict", "n1", "free", 0.0),
        ("afflict", "n3", "flip", 0.0),
        *[("afflict", node, "clock_rate", 1.5) for node in ("n1", "n2", "n3")],
        ("afflict", "n1", "clock_rate", 1.0),
        ("afflict", "n2", "clock_jump", -30.0),
        ("kill", "n1"),
        ("afflict", "n1", "power", 0.0),
    ]
    assert notes[:2] == [("slow_sync", "n1"), ("stop-slow_sync", "n1")]
    assert notes[-3:] == [("stop-clock_rate", "n1"), ("clock_jump", "n2"), ("crash", "n1")]
