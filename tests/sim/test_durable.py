"""What was durable stays: the book of it, and the property that a whole run holds against each start."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kv.raft.group import Group
from kv.raft.guard import Rules
from kv.sim.durable import DurableMarks, HardState, follows
from kv.sim.faults import parse_schedule
from kv.sim.inside import inside
from kv.sim.node import SimNode
from kv.sim.properties import Ledger
from kv.sim.setup import Setup
from kv.sim.workload import Pace
from kv.sim.world import Report, World

PROPERTY = "durable-state-never-goes-back"
SMALL = Setup(
    partitions=1, scale=1, clients=3, pace=Pace(think_mean_s=0.2), limits={"checkpoint_interval_ms": 1000}
)
SCHEDULE = "5 crash n1 power=yes\n6 start n1\n8 calm *"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((5, None), (5, None), True),
        ((5, None), (5, "n1"), True),
        ((5, "n1"), (5, "n1"), True),
        ((5, "n1"), (6, None), True),
        ((5, "n1"), (5, None), False),
        ((5, "n1"), (5, "n2"), False),
        ((5, None), (4, "n1"), False),
    ],
)
def test_terms_grow_and_votes_stay(before: HardState, after: HardState, expected: bool) -> None:
    """A later hard state has a greater term, or the same with the same vote or one where there was none."""
    assert follows(before, after) is expected


def test_a_start_that_finds_what_was_synced_is_right() -> None:
    """The last marks, later ones, and the first start of a replica are all in order."""
    marks = DurableMarks()
    assert marks.found("n1", 1, (0, None), 1) is None
    marks.synced("n1", 1, (3, "n2"))
    marks.checkpointed("n1", 1, 9)
    assert marks.found("n1", 1, (3, "n2"), 9) is None
    assert marks.found("n1", 1, (4, None), 12) is None


@pytest.mark.parametrize(
    ("hard_state", "checkpoint", "word"),
    [((2, "n2"), 9, "term and vote"), ((3, None), 9, "term and vote"), ((3, "n2"), 8, "checkpoint")],
)
def test_each_mark_that_goes_back_is_told(hard_state: HardState, checkpoint: int, word: str) -> None:
    """A lower term, a lost vote and a lower checkpoint are each noticed; another replica's do not count."""
    marks = DurableMarks()
    marks.synced("n1", 1, (3, "n2"))
    marks.checkpointed("n1", 1, 9)
    assert marks.found("n2", 1, hard_state, checkpoint) is None
    assert word in (marks.found("n1", 1, hard_state, checkpoint) or "")


def test_what_a_start_found_counts_as_durable() -> None:
    """A second start that finds less than the first is wrong, though no sync came between."""
    marks = DurableMarks()
    assert marks.found("n1", 1, (7, None), 20) is None
    assert marks.found("n1", 1, (6, None), 20) is not None


@dataclass
class Forgetful:
    """n1 finds less at its second start than its disk had; the ledger's look at the death is switched off."""

    what: str
    rules: Rules = field(default_factory=Rules)
    name: str = "forgetful"
    ledger: Ledger | None = None

    def started(self, node: SimNode) -> None:
        """Nothing is wrong before there is a replica."""

    def group_started(self, node: SimNode, group: Group) -> None:
        """Take back what the start found."""
        if node.name != "n1" or node.starts < 2 or group.group_id != 1:
            return
        assert self.ledger is not None
        inside(self.ledger, "_remains").clear()
        if self.what == "term":
            vars(group.journal)["_term"] -= 1
        else:
            store = inside(group.machine, "_store")
            vars(store)["last"] = store.last._replace(applied_index=store.last.applied_index - 1)


def _run(mutant: Forgetful | None) -> Report:
    world = World(4, setup=SMALL, schedule=parse_schedule(SCHEDULE), mutant=mutant)
    if mutant is not None:
        mutant.ledger = world.ledger
    return world.run()


@pytest.mark.parametrize("what", ["term", "checkpoint"])
def test_a_start_that_lost_something_durable_is_a_violation(what: str) -> None:
    """A run in which a disk goes back by one term, or by one index of a checkpoint, ends with this property."""
    violation = _run(Forgetful(what)).violation
    assert violation is not None
    assert violation.name == PROPERTY, violation
    assert violation.nodes == ("n1",)


def test_the_same_schedule_without_the_loss_is_no_violation() -> None:
    """A power loss and a start with all of its disk break nothing."""
    report = _run(None)
    assert report.violation is None, report.violation
    assert report.checkpoints > 0
