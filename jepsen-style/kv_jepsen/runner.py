"""One campaign: a cluster, clients that load it, faults meanwhile, and the history of what the clients saw.

The shell around `workloads`, `nemesis` and a target. It reads the clock and writes the history as it goes, so that a run
that is killed can still be judged. What it started ends with it, whatever ends it; `records` has the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, TextIO

from kv_jepsen.checkers.replicas import ReplicaState
from kv_jepsen.cuts.api import Cuts
from kv_jepsen.formats import jsonl_line
from kv_jepsen.history import NOTHING, History, Op, OpType, Process, Value
from kv_jepsen.nemesis import Nemesis
from kv_jepsen.schedule import Fault, fault
from kv_jepsen.targets.api import Answer, Client, Refused, Target, Unknown
from kv_jepsen.unsupported import Unsupported
from kv_jepsen.workloads import Step, Workload

CALL_TIMEOUT_S: Final = 10.0
"""Of one operation, above what a target's client takes: the harness does not wait for ever for a client that hangs."""

LAST_ATTEMPT_PAUSE_S: Final = 0.5
LAST_TIMEOUT_S: Final = 30.0
"""For what is done at the end, when all is well again."""

SETTLED_TIMEOUT_S: Final = 20.0
"""For all replicas to come to the same index when nobody writes any more."""
SETTLED_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign does.

    Attributes:
        processes: clients, each with one operation at a time.
        seconds: of load.
        rate: operations a second of all clients together, at most.
        seed: of everything that the harness chooses.
        schedule: of faults.
    """

    processes: int
    seconds: float
    rate: float
    seed: int
    schedule: Sequence[Fault]


@dataclass(slots=True)
class Recorder:
    """The history as it grows, in memory and in a file."""

    file: TextIO
    ops: list[Op] = field(default_factory=list)
    _began: int = field(default_factory=time.monotonic_ns)

    def add(
        self,
        process: Process,
        type: OpType,  # noqa: A002 - the name of the field
        step: Step,
        answer: Answer | None = None,
        error: str | None = None,
    ) -> None:
        """Record a line."""
        extra = step.extra if answer is None else {**step.extra, **answer.evidence}
        value: Value = step.value if answer is None else answer.value
        now = time.monotonic_ns() - self._began
        op = Op(len(self.ops), process, type, step.f, step.key, value, now, error, extra or NOTHING)
        self.ops.append(op)
        self.file.write(jsonl_line(op) + "\n")
        self.file.flush()

    def note(self, kind: str, target: str) -> None:
        """Record what the nemesis did."""
        self.add("nemesis", OpType.INFO, Step(kind, None, target))


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a campaign saw.

    Attributes:
        history: of the clients, with the notes of the nemesis.
        problems: what the harness itself saw go wrong, one sentence each: a node that ended, a cluster that did not come back.
        replicas: looks at what the replicas hold after the end; none if the system does not tell.
    """

    history: History
    problems: tuple[str, ...]
    replicas: tuple[ReplicaState, ...] = ()


async def campaign(plan: Plan, target: Target, cuts: Cuts, workload: Workload, path: Path) -> Recorded:
    """Run it; the history is also in the file `path`, line by line as it is recorded.

    Raises:
        TimeoutError: the cluster did not become ready at its start.
        Unsupported: it cannot do what the plan asks for.
    """
    problems: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        clients: list[Client] = []
        try:
            await cuts.open()
            await target.start()
            await target.ready()
            clients += [target.client(process) for process in range(plan.processes)]
            await workload.prepare(clients[0])
            await asyncio.gather(*(workload.greet(client) for client in clients))
            recorder = Recorder(file)  # here, since its clock begins with it
            await _load(plan, target, cuts, workload, clients, recorder)
            problems += await _recovered(target)
            await _finish(workload, clients[0], recorder)
            replicas = await _settled(target)
        finally:
            for client in clients:
                await client.close()
            await target.stop()
            await cuts.close()
    return Recorded(History(recorder.ops), (*target.ended(), *problems), tuple(replicas))


async def _recovered(target: Target) -> list[str]:
    """Wait until all is well after the last fault; what is wrong if it does not become so."""
    try:
        await target.ready()
    except TimeoutError:
        return ["the cluster did not become ready after the last fault had ended"]
    except Unsupported as error:
        return [str(error)]
    return []


async def _settled(target: Target) -> list[ReplicaState]:
    """Look at all replicas until those of each partition stand at one index; the last looks, if they never do."""
    end = asyncio.get_running_loop().time() + SETTLED_TIMEOUT_S
    while True:
        looks = await target.contents()
        indexes = {(look.partition, look.index) for look in looks}
        together = len(indexes) == len({partition for partition, _ in indexes})
        if together or asyncio.get_running_loop().time() > end:
            return looks
        await asyncio.sleep(SETTLED_POLL_S)  # there is no event of another system's replication


async def _load(
    plan: Plan, target: Target, cuts: Cuts, workload: Workload, clients: Sequence[Client], recorder: Recorder
) -> None:
    nemesis = Nemesis(target, cuts, recorder.note)
    end = asyncio.get_running_loop().time() + plan.seconds
    pause = plan.processes / plan.rate
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(nemesis.run(plan.schedule))
            for process, client in enumerate(clients):
                rng = Random(f"{plan.seed}/{process}")
                group.create_task(_process(process, client, workload, recorder, rng, pause, end))
    except ExceptionGroup as several:
        raise several.exceptions[0] from several  # the first is what ended the others
    await nemesis.apply(fault(plan.seconds, "calm", "*"))


async def _process(
    process: int,
    client: Client,
    workload: Workload,
    recorder: Recorder,
    rng: Random,
    pause: float,
    end: float,
) -> None:
    """One client until the end of the load."""
    loop = asyncio.get_running_loop()
    due = loop.time() + rng.uniform(0, pause)
    while due < end:
        await asyncio.sleep(due - loop.time())
        await _call(process, client, workload, recorder, workload.next(process, rng))
        due = max(due + rng.uniform(0, 2 * pause), loop.time())


async def _call(process: int, client: Client, workload: Workload, recorder: Recorder, step: Step) -> bool:
    """Invoke an operation and record how it ends; whether it happened."""
    recorder.add(process, OpType.INVOKE, step)
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            answer = await workload.apply(client, step)
    except Refused as refused:
        recorder.add(process, OpType.FAIL, step, error=str(refused) or "refused")
        return False
    except (Unknown, TimeoutError, OSError) as unknown:
        recorder.add(process, OpType.INFO, step, error=f"{type(unknown).__name__}: {unknown}")
        return False
    recorder.add(process, OpType.OK, step, answer)
    workload.seen(step, answer)
    return True


async def _finish(workload: Workload, client: Client, recorder: Recorder) -> None:
    """Do what comes last, each until it happens; what does not is in the history as it ended."""
    end = asyncio.get_running_loop().time() + LAST_TIMEOUT_S
    for step in workload.last():
        while not await _call(0, client, workload, recorder, step):
            if asyncio.get_running_loop().time() > end:
                return
            await asyncio.sleep(LAST_ATTEMPT_PAUSE_S)  # there is no event of another system's recovery
