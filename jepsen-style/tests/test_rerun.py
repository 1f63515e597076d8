"""Schedules made smaller by running again: what is tried, when it ends, what is written."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kv_jepsen.choice import Choice
from kv_jepsen.minimize import Complaint, spells
from kv_jepsen.rerun import Reruns, smallest_schedule
from kv_jepsen.schedule import Fault, parse_schedule

CHOICE = Choice("a run", "none", "register", "", 9.0, "proxy", 3, 3, 10.0, 1)
COMPLAINT = Complaint("linearizable", "not linearizable")
WHOLE = parse_schedule(
    "1 crash n1\n2 start n1\n3 pause n2\n4 resume n2\n5 crash n3\n6 start n3\n7 partition n1/*"
)


@dataclass(slots=True)
class Rehearsed(Reruns):
    """Runs that are not made: a schedule shows it if it has these kinds of faults, at every so-many-th run of it."""

    needed: frozenset[str] = frozenset()
    every: int = 1
    seen: dict[str, int] = field(default_factory=dict)

    def _once(self, schedule: Sequence[Fault]) -> bool:
        self.runs += 1
        name = str([str(one) for one in schedule])
        self.seen[name] = self.seen.get(name, 0) + 1
        shows = (
            self.needed <= {str(s.fault.target) for s in spells(schedule)}
            and not self.seen[name] % self.every
        )
        self.reproduced += shows
        return shows


def _reruns(
    tmp_path: Path, needed: set[str], attempts: int = 1, every: int = 1, seconds: float = 60.0
) -> Rehearsed:
    deadline = time.monotonic() + seconds
    return Rehearsed(
        CHOICE, COMPLAINT, tmp_path, attempts, deadline, lambda _: None, needed=frozenset(needed), every=every
    )


def test_only_the_faults_that_do_it_are_left(tmp_path: Path) -> None:
    """Of four faults the two that it takes stay, with their ends, and calm is added; the figures are written."""
    said: list[str] = []
    reruns = _reruns(tmp_path, {"n2", "n3"})
    assert smallest_schedule(reruns, WHOLE, tmp_path, said.append)
    left = parse_schedule((tmp_path / "schedule").read_text())
    assert [one.kind for one in left] == ["pause", "resume", "crash", "start", "calm"]
    written = json.loads((tmp_path / "minimize.json").read_text())
    assert (written["faults"], written["minimal"]) == (2, True)
    assert written["runs"] == reruns.runs == sum(one["runs"] for one in written["schedules"])
    assert written["reproduced"] == sum(one["reproduced"] for one in written["schedules"])
    assert "4 faults became 2" in said[0]


def test_a_violation_by_chance_needs_attempts(tmp_path: Path) -> None:
    """One that shows at every third run of a schedule is found with three attempts each, not with two."""
    assert smallest_schedule(_reruns(tmp_path, {"n3"}, attempts=3, every=3), WHOLE, tmp_path, lambda _: None)
    assert json.loads((tmp_path / "minimize.json").read_text())["faults"] == 1
    said: list[str] = []
    assert smallest_schedule(_reruns(tmp_path, {"n3"}, attempts=2, every=3), WHOLE, tmp_path, said.append)
    assert "did not show it again in 2 runs" in said[0]
    assert json.loads((tmp_path / "minimize.json").read_text())["minimal"] is False


def test_the_time_limit_is_told(tmp_path: Path) -> None:
    """Without time nothing is run, and it is not called minimal."""
    reruns = _reruns(tmp_path, {"n1"}, seconds=-1.0)
    assert not smallest_schedule(reruns, WHOLE, tmp_path, lambda _: None)
    assert reruns.runs == 0


@pytest.mark.parametrize("needed", [set(), {"n1/*"}])
def test_no_fault_and_one(tmp_path: Path, needed: set[str]) -> None:
    """What shows without any fault leaves none; a schedule without an end gets one."""
    assert smallest_schedule(_reruns(tmp_path, needed), WHOLE, tmp_path, lambda _: None)
    left = parse_schedule((tmp_path / "schedule").read_text())
    assert [one.kind for one in left][: len(needed)] == ["partition"][: len(needed)]
    assert left[-1].kind == "calm"
