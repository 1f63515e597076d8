"""What each fault does to a target and its network, and what stands in the history of it."""

from __future__ import annotations

import pytest

from kv_jepsen.nemesis import Nemesis, unsupported
from kv_jepsen.schedule import fault, parse_schedule
from kv_jepsen.targets import memory


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
    assert sorted(done, key=str) == [("heal",), ("resume", "n1", "n2", "n3"), ("start",)]
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
    ]
    problems = unsupported(schedule, memory.NotedCuts())
    assert len(problems) == 2
    assert problems[0].startswith("fill cannot be done")
    assert "power=yes" in problems[1]
