"""Which checkers judge which workload, and all of them at once.

Pure; the clock is a parameter. A workload is known by its name and by the functions of its calls. Reads at levels that
promise no linearizability are measured, and left out where linearizability is judged; unless their level is declared
to be linearizable, which is how a harness shows that it would notice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from kv_jepsen import checkers, elle
from kv_jepsen.checkers import CheckResult
from kv_jepsen.checkers.evidence import LINEARIZABLE_LEVELS, SESSION_LEVELS, is_read, level
from kv_jepsen.erasable import Erasable
from kv_jepsen.history import Call, History, Op, OpType, Process
from kv_jepsen.linearizable import Limits, check
from kv_jepsen.models import KvString, Model, Mutex, Register
from kv_jepsen.periods import periods
from kv_jepsen.report import Run
from kv_jepsen.verdict import Failure, Verdict

Checker: TypeAlias = Callable[[Sequence[Call]], CheckResult]


@dataclass(frozen=True, slots=True)
class Workload:
    """How the calls of a workload are judged.

    Attributes:
        functions: those that belong to it; calls of others are left to other workloads.
        telling: of these the ones whose answers are held against the calls before; without one nothing is shown.
        model: for linearizability, if that is judged; None otherwise.
        transactions: whether cycles of list appends are judged.
        checks: further properties.
        evidence: whether revisions, session guarantees and staleness are judged.
    """

    functions: frozenset[str]
    telling: frozenset[str]
    model: Callable[[], Model] | None = None
    transactions: bool = False
    checks: tuple[Checker, ...] = ()
    evidence: bool = False


_CHECKED: Final = frozenset({"read", "cas"})

WORKLOADS: Final[Mapping[str, Workload]] = {
    "register": Workload(frozenset({"read", "write", "cas"}), _CHECKED, model=Register, evidence=True),
    "append": Workload(frozenset({"txn", "append", "read"}), frozenset({"txn", "read"}), transactions=True),
    "set": Workload(
        frozenset({"add", "read"}), frozenset({"read"}), checks=(checkers.final_set, checkers.set_full)
    ),
    "counter": Workload(
        frozenset({"add", "add_get", "read"}), frozenset({"add_get", "read"}), checks=(checkers.counter,)
    ),
    "queue": Workload(
        frozenset({"enqueue", "dequeue", "drain"}),
        frozenset({"dequeue", "drain"}),
        checks=(checkers.total_queue,),
    ),
    "bank": Workload(frozenset({"transfer", "read"}), frozenset({"read"}), checks=(checkers.bank,)),
    "ids": Workload(frozenset({"generate"}), frozenset({"generate"}), checks=(checkers.unique_ids,)),
    "kv": Workload(frozenset(KvString.functions), frozenset({"get"}), model=KvString),
    "lock": Workload(frozenset(Mutex.functions), frozenset({"acquire"}), model=Mutex),
    "delete": Workload(frozenset(Erasable.functions), _CHECKED, model=Erasable, evidence=True),
    "watch": Workload(
        frozenset({"read", "write", "cas", "delete", "watch"}),
        frozenset({"watch"}),
        checks=(checkers.watches,),
        evidence=True,
    ),
}
"""Every workload by the name users give it."""


def workload_for(calls: Sequence[Call]) -> str:
    """The workload that the functions of the calls speak of; the first in `WORKLOADS` that has them all.

    Raises:
        ValueError: none has them all.
    """
    used = {call.f for call in calls}
    if used == {"add", "read"}:
        numbers = any(call.f == "read" and isinstance(call.output, int) for call in calls)
        return "counter" if numbers else "set"
    for name, workload in WORKLOADS.items():
        if used <= workload.functions:
            return name
    names = ", ".join(sorted(used))
    raise ValueError(f"no workload has all of the functions {names}: name one of {', '.join(WORKLOADS)}")


def judge(
    run: Run,
    workload: str,
    *,
    levels: Collection[str] = LINEARIZABLE_LEVELS,
    limits: Limits | None = None,
    now: Callable[[], float] = float,
    recovery_ms_max: float | None = None,
) -> Run:
    """The run with its verdicts; checks that it has already (logs, replicas) are kept.

    Args:
        run: with its history.
        workload: a name in `WORKLOADS`.
        levels: read levels that are held to be linearizable.
        limits: of the search for linearizability.
        now: seconds from any zero; see `linearizable.check`.
        recovery_ms_max: within which every partition must serve again after a heal; None only measures.

    Raises:
        ValueError: no such workload, or calls that are not of it (the errors of the checkers).
    """
    if workload not in WORKLOADS:
        raise ValueError(f"no workload {workload!r}: choose one of {', '.join(WORKLOADS)}")
    chosen = WORKLOADS[workload]
    faults = run.faults or periods(run.history.notes)
    whole = tuple(call for call in run.history.calls if call.f in chosen.functions)
    strong = tuple(call for call in whole if not is_read(call) or level(call) in levels)
    checks = [*run.checks, checkers.successes(whole, chosen.telling), *(one(strong) for one in chosen.checks)]
    judged = replace(run, faults=faults)
    if chosen.model is not None:
        verdict = linearizable(run.history, strong, chosen.model(), limits, now)
        judged = replace(judged, linearizable=verdict)
    if chosen.transactions:
        txns = tuple(elle.transactions(strong))
        judged = replace(judged, elle=elle.check(txns), txns=txns)
    if chosen.evidence:
        checks += _by_evidence(whole, levels)
        judged = replace(judged, staleness=checkers.histograms(checkers.ages(whole)))
    if faults:
        recovered = checkers.recovery(run.history.calls, faults, recovery_ms_max)
        # Where nothing is asked of it, what cannot be measured is no doubt about the rest.
        checks += [recovered] if recovery_ms_max is not None or recovered.valid != "unknown" else []
    return replace(judged, checks=tuple(checks))


def linearizable(
    history: History, calls: Sequence[Call], model: Model, limits: Limits | None, now: Callable[[], float]
) -> Verdict:
    """The verdict on some of the calls of a history; the calls in it are those of the whole history."""
    chosen = part(history, calls)
    verdict = check(chosen, model, limits, now)
    # A history numbers its operations from 0 on, so what was found is told in the numbers of the part.
    whole = {of_part.id: call for of_part, call in zip(chosen.calls, calls, strict=True)}
    return replace(
        verdict, keys=tuple(replace(key, failure=_renamed(key.failure, whole)) for key in verdict.keys)
    )


def _renamed(failure: Failure | None, whole: Mapping[int, Call]) -> Failure | None:
    if failure is None:
        return None
    return Failure(
        tuple(whole[call.id] for call in failure.window),
        whole[failure.blocked.id],
        failure.entry_states,
        tuple(tuple(replace(step, call=whole[step.call.id]) for step in steps) for steps in failure.partials),
    )


def part(history: History, calls: Sequence[Call]) -> History:
    """The history of some of its calls, with all notes; its operations are numbered anew."""
    starts = {call.start for call in calls}
    kept: list[Op] = []
    running: set[Process] = set()
    for op in history.ops:
        if isinstance(op.process, str):
            kept.append(op)
        elif op.type is OpType.INVOKE:
            if op.index in starts:
                running.add(op.process)
                kept.append(op)
        elif op.process in running:
            running.discard(op.process)
            kept.append(op)
    return History(kept)


def _by_evidence(calls: Sequence[Call], levels: Collection[str]) -> list[CheckResult]:
    """What the evidence in the replies allows to judge; unknown results, for lack of it, are left out."""
    bounds = dict.fromkeys(levels, 0.0)
    found = [
        checkers.monotonic(calls, levels),
        checkers.session_guarantees(calls, levels={*SESSION_LEVELS, *levels}),
        checkers.staleness(calls, bounds),
    ]
    return [result for result in found if result.valid != "unknown"]
