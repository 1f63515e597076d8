"""The smallest part of a history that a checker still complains about. Pure; the clock is a parameter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from kv_jepsen.checkers.evidence import LINEARIZABLE_LEVELS
from kv_jepsen.history import Call, History, Op, OpType, Value
from kv_jepsen.judge import judge
from kv_jepsen.linearizable import Limits
from kv_jepsen.minimize.complaint import ABOUT_NO_CALL, Complaint, complaints
from kv_jepsen.minimize.rests import RULES, Keep
from kv_jepsen.minimize.shrink import shrink
from kv_jepsen.report.run import Run


class NothingToMinimize(ValueError):
    """No checker complains of the calls; the message says what was found instead."""


@dataclass(frozen=True, slots=True)
class Minimized:
    """What is left of a history.

    Attributes:
        history: the calls that are left, with all notes.
        complaint: what is still wrong with them.
        before: calls there were.
        tests: how often a part was judged.
        minimal: whether every single call was left out in vain; False if the time was over before.
    """

    history: History
    complaint: Complaint
    before: int
    tests: int
    minimal: bool

    def words(self) -> str:
        """In one sentence."""
        left = f"{self.before} calls became {len(self.history.calls)} ({self.complaint}; {self.tests} parts judged)"
        if self.minimal:
            return f"{left}: none of them can be left out."
        return f"{left}; the time was over before every one had been tried."


def minimize(
    history: History,
    workload: str,
    levels: Collection[str] = LINEARIZABLE_LEVELS,
    limits: Limits | None = None,
    now: Callable[[], float] = float,
    complaint: Complaint | None = None,
) -> Minimized:
    """Leave out calls as long as the same checker has the same complaint.

    Args:
        history: of which something is wrong.
        workload: as for `judge`.
        levels: as for `judge`.
        limits: of time for all of it, and of memory for each judgement.
        now: seconds from any zero.
        complaint: what must stay; the gravest one if None.

    Raises:
        NothingToMinimize: there is no such complaint, within the limits.
        ValueError: as of `judge`.
    """
    limits = limits or Limits()
    task = _Task(
        history, workload, levels, limits, now, now() + limits.seconds, RULES[workload](history.calls)
    )
    whole = task.judged(history)
    chosen = _chosen(whole, complaint, f"the workload {workload} within {limits.seconds:g} s")

    def attempt(ids: tuple[int, ...]) -> list[int] | None:
        left = task.keep(ids)
        return [call.id for call in left] if chosen in task.complaints(history_of(history, left)) else None

    tests = 0
    ids: Sequence[int] = [call.id for call in history.calls]
    for part in _promising(history.calls, whole.suspects()):
        tests += 1
        if len(part) < len(ids) and (found := attempt(part)) is not None:
            ids = found
            break
    shrunk = shrink(ids, attempt, task.expired)
    smallest = history_of(history, task.keep(shrunk.kept), notes=True)
    return Minimized(smallest, chosen, len(history.calls), tests + shrunk.tests, shrunk.minimal)


@dataclass(frozen=True, slots=True)
class _Task:
    """What all attempts have in common."""

    history: History
    workload: str
    levels: Collection[str]
    limits: Limits
    now: Callable[[], float]
    deadline: float
    keep: Keep

    def expired(self) -> bool:
        return self.now() >= self.deadline

    def judged(self, history: History) -> Run:
        left = Limits(max(0.0, self.deadline - self.now()), self.limits.memory_mib)
        return judge(Run("", "", history), self.workload, levels=self.levels, limits=left, now=self.now)

    def complaints(self, history: History) -> tuple[Complaint, ...]:
        """What is wrong with some of the calls; nothing with none."""
        return complaints(self.judged(history)) if history.calls else ()


def _chosen(whole: Run, complaint: Complaint | None, where: str) -> Complaint:
    """The complaint to keep: the one that is asked for, else the gravest one about calls."""
    found = [one for one in complaints(whole) if one.checker not in ABOUT_NO_CALL]
    if not found or (complaint is not None and complaint not in found):
        wanted = "no violation" if complaint is None else f"no {complaint}"
        raise NothingToMinimize(f"the checkers find {wanted} in the calls of {where}")
    return found[0] if complaint is None else complaint


def _promising(calls: Sequence[Call], suspects: Collection[int]) -> Iterable[tuple[int, ...]]:
    """Parts to try first: the calls of the keys that something is wrong with, those of the first one before."""
    keys = list(dict.fromkeys(call.key for call in calls if call.id in suspects))
    for some in (keys[:1], keys):
        yield tuple(call.id for call in calls if call.key in some)


def history_of(whole: History, left: Sequence[Call], *, notes: bool = False) -> History:
    """The history of these calls; an answer that was adapted is that of its completion."""
    by_start = {call.start: call for call in left}
    by_end = {call.end: call for call in left}
    running: dict[Value, int] = {}
    ops: list[Op] = []
    for op in whole.ops:
        if isinstance(op.process, str):
            ops += [op] if notes else []
        elif op.type is OpType.INVOKE:
            if op.index in by_start:
                running[op.process] = op.index
                ops.append(op)
        elif running.pop(op.process, None) is not None:
            ended = by_end.get(op.index)  # none, if its outcome is unknown
            ops.append(op if ended is None or op.type is not OpType.OK else replace(op, value=ended.output))
    return History(ops)
