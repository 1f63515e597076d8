"""Runs made again: whether a violation comes back, and with how few faults.

A shell around `perform`: it runs clusters, reads the clock, writes folders. What to leave out `kv_jepsen.minimize` says.
A violation of a real system comes by chance: a schedule counts as harmless after so many runs without it, no more and no less.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kv_jepsen.choice import Choice
from kv_jepsen.draw import COOL_DOWN_S
from kv_jepsen.minimize import Complaint, Spell, complaints, schedule_of, shrink, spells
from kv_jepsen.perform import Say, judged, perform
from kv_jepsen.report.markup import counted
from kv_jepsen.results import write_index
from kv_jepsen.schedule import Fault, fault, format_schedule


@dataclass(slots=True)
class Reruns:
    """A run, to be made again.

    Attributes:
        choice: what it was.
        complaint: what is to come back.
        folder: for the runs; those in which it did not come back are removed.
        attempts: runs of one schedule before it counts as harmless.
        deadline: on the monotonic clock; no run begins after it.
        say: takes a line for a person.
        runs: how many were made.
        reproduced: in how many of them it came back.
    """

    choice: Choice
    complaint: Complaint
    folder: Path
    attempts: int
    deadline: float
    say: Say
    runs: int = 0
    reproduced: int = 0
    made: list[dict[str, object]] = field(default_factory=list)
    """One for each schedule that was tried."""

    def over(self) -> bool:
        """Whether no further run may begin."""
        return time.monotonic() >= self.deadline

    def shows(self, schedule: Sequence[Fault]) -> bool:
        """Whether it comes back in one of the attempts; those after the first success are spared."""
        seen, tried = False, 0
        while not seen and tried < self.attempts and not self.over():
            tried += 1
            seen = self._once(schedule)
        self.made.append({"faults": len(spells(schedule)), "runs": tried, "reproduced": int(seen)})
        return seen

    def _once(self, schedule: Sequence[Fault]) -> bool:
        self.runs += 1
        # What follows the last fault is needed for recovery only.
        seconds = min(self.choice.seconds, schedule[-1].at_s + COOL_DOWN_S)
        name = f"{self.choice.name}-{len(spells(schedule))}-faults"
        chosen = replace(self.choice, name=name, seconds=seconds)
        folder, run = perform(chosen, schedule, self.folder, self.say)
        done = judged(chosen, run)
        seen = self.complaint in complaints(done)
        if seen:
            folder.save(done)
            self.reproduced += 1
        else:
            shutil.rmtree(folder.path)
        write_index(self.folder)
        self.say(f"{counted(len(spells(schedule)), 'fault')}: {'reproduced' if seen else 'not reproduced'}")
        return seen


def smallest_schedule(reruns: Reruns, schedule: Sequence[Fault], folder: Path, say: Say) -> bool:
    """Leave faults out of a schedule as long as the violation comes back; writes what is left.

    Returns:
        Whether every fault that is left was left out in vain; also True if the violation did not come back at all.
    """
    whole = _until_calm(schedule)
    began = spells(whole)
    if not reruns.shows(whole):
        say(f"the whole schedule did not show it again in {reruns.runs} runs: it stays as it is")
        _write(folder, whole, reruns, minimal=False)
        return not reruns.over()
    shrunk = shrink(began, _attempt(reruns, whole), reruns.over)
    left = schedule_of(whole, shrunk.kept)
    _write(folder, left, reruns, minimal=shrunk.minimal)
    told = f"{counted(len(began), 'fault')} became {len(shrunk.kept)}; {reruns.reproduced} of {reruns.runs} runs reproduced it"
    how = f"none of them can be left out, as far as {counted(reruns.attempts, 'run')} each can tell"
    how = how if shrunk.kept else "it takes none"
    say(f"{told}: {how if shrunk.minimal else 'the time was over before every one had been tried'}")
    say(f"schedule: {folder / 'schedule'}")
    return shrunk.minimal


def _attempt(
    reruns: Reruns, whole: Sequence[Fault]
) -> Callable[[tuple[Spell, ...]], tuple[Spell, ...] | None]:
    def attempt(kept: tuple[Spell, ...]) -> tuple[Spell, ...] | None:
        return kept if reruns.shows(schedule_of(whole, kept)) else None

    return attempt


def _until_calm(schedule: Sequence[Fault]) -> list[Fault]:
    """The schedule with calm at its end."""
    last = schedule[-1] if schedule else None
    if last is not None and last.kind == "calm":
        return list(schedule)
    return [*schedule, fault(0.0 if last is None else last.at_s + 1.0, "calm", "*")]


def _write(folder: Path, schedule: Sequence[Fault], reruns: Reruns, *, minimal: bool) -> None:
    (folder / "schedule").write_text(format_schedule(schedule), encoding="utf-8")
    facts = {
        "complaint": str(reruns.complaint),
        "faults": len(spells(schedule)),
        "runs": reruns.runs,
        "reproduced": reruns.reproduced,
        "minimal": minimal,
        "schedules": reruns.made,
    }
    (folder / "minimize.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
