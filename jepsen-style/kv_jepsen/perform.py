"""One run from its choice to its folder: cluster, load and faults, with the files that it leaves.

The shell between the commands and `runner`. It makes folders and reads the clock; `judge` judges.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TypeAlias

from kv_jepsen.checkers import CheckResult, Finding, log_patterns, replicas_equal
from kv_jepsen.choice import Choice
from kv_jepsen.cuts.api import Cuts
from kv_jepsen.cuts.netns import NetnsCuts
from kv_jepsen.cuts.proxy import ProxyCuts
from kv_jepsen.draw import draw_schedule
from kv_jepsen.judge import judge
from kv_jepsen.linearizable import Limits
from kv_jepsen.nemesis import unsupported
from kv_jepsen.records import Records, clean
from kv_jepsen.report import Run
from kv_jepsen.results import ResultFolder, create
from kv_jepsen.runner import Plan, Recorded, campaign
from kv_jepsen.schedule import Fault, format_schedule
from kv_jepsen.targets import Places, Target, by_name
from kv_jepsen.unsupported import Unsupported
from kv_jepsen.workloads import WORKLOADS, Workload

Say: TypeAlias = Callable[[str], None]
"""Takes a line for a person."""

Load: TypeAlias = Callable[[int, Sequence[str]], Workload]
"""Makes what clients do, from their number and the read levels."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM; the folder has what was recorded until then."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; `kv-jepsen report {folder}` judges what was recorded")


def nodes_of(choice: Choice) -> list[str]:
    """Names of the nodes."""
    return [f"n{number}" for number in range(1, choice.nodes + 1)]


def drawn(choice: Choice) -> list[Fault]:
    """Return the schedule that the seed gives.

    Raises:
        BadSchedule: an unknown family, or too few nodes for one.
    """
    families = [] if choice.faults in {"", "none"} else choice.faults.split(",")
    return draw_schedule(Random(choice.seed), nodes_of(choice), families, choice.seconds)


def perform(
    choice: Choice,
    schedule: Sequence[Fault],
    results: Path,
    say: Say,
    load: Load | None = None,
) -> tuple[ResultFolder, Run]:
    """Run it; plan, history, schedule and logs are in the folder.

    Args:
        choice: what is asked for.
        schedule: of faults.
        results: where the folder is made.
        say: takes a line for a person.
        load: makes what clients do from their number and the read levels; that of the choice's workload if None. With one there is
            no plan in the folder, so that the run cannot be made again from it.

    Raises:
        Unsupported: it cannot do what is asked for.
        ValueError, OSError, TimeoutError: it cannot be done, or the cluster did not become ready.
        Interrupted: by Ctrl-C or SIGTERM, which end its nodes as well.
    """
    if choice.workload not in WORKLOADS:
        raise Unsupported(f"no workload {choice.workload!r}: choose one of {', '.join(WORKLOADS)}")
    for line in clean():
        say(f"clean: {line}")
    started = datetime.now(UTC)
    records = Records.fresh(choice.name.replace("/", "-"))
    try:
        cuts = _cuts(choice, records)
        folder = create(results, choice.name, started)
        folder.schedule_file.write_text(format_schedule(schedule), encoding="utf-8")
        if load is None:  # else the choice does not tell what the clients did
            folder.plan_file.write_text(json.dumps(choice.document(), indent=1) + "\n", encoding="utf-8")
        target = _target(choice, folder, cuts, records)
        if problems := unsupported(schedule, cuts, target):
            raise Unsupported("; ".join(problems))
        workload = (load or WORKLOADS[choice.workload])(choice.processes, _levels(choice, target))
        plan = Plan(choice.processes, choice.seconds, choice.rate, choice.seed, schedule)
        say(f"{choice.name}: {choice.seconds:g} s, seed {choice.seed}, {folder.path}")
        recorded = _run(plan, target, cuts, workload, folder)
    finally:
        records.close()  # ends also what a campaign could not, as when it was interrupted twice
    checks = _checks(folder, target, recorded)
    facts = {**choice.facts(), "levels": ", ".join(workload.levels)}
    when = started.isoformat(timespec="seconds")
    return folder, Run(choice.name, when, recorded.history, facts, checks=checks)


def judged(choice: Choice, run: Run, seconds: float = 60.0) -> Run:
    """Return the run with its verdicts, as the choice wants it judged.

    Args:
        choice: what was asked for; its workload is known.
        run: as recorded.
        seconds: for linearizability.
    """
    return judge(
        run,
        WORKLOADS[choice.workload].judged_as,
        levels=choice.held(),
        limits=Limits(seconds),
        now=time.monotonic,
        recovery_ms_max=choice.recovery_ms_max,
    )


def _checks(folder: ResultFolder, target: Target, recorded: Recorded) -> tuple[CheckResult, ...]:
    """What is judged without the history: the nodes' logs, what the harness saw itself, what the replicas hold."""
    logs = {
        node: (folder.path / log).read_text("utf-8", "replace").splitlines()
        for node, log in folder.logs().items()
    }
    broken = tuple(Finding("broken", problem) for problem in recorded.problems)
    checks = [CheckResult("cluster", not broken, broken, {"problems": len(broken)})]
    if any(logs.values()):
        checks.insert(0, log_patterns(logs, allowed=target.log_allowed))
    if recorded.replicas:
        checks.append(replicas_equal(recorded.replicas))
    return tuple(checks)


def _cuts(choice: Choice, records: Records) -> Cuts:
    if choice.cut == "proxy":
        return ProxyCuts(nodes_of(choice), Random(choice.seed))
    if choice.cut == "netns":
        return NetnsCuts(nodes_of(choice), records)
    raise Unsupported(f"no way {choice.cut!r} to cut the network: choose proxy or netns")


def _target(choice: Choice, folder: ResultFolder, cuts: Cuts, records: Records) -> Target:
    logs = folder.path / "logs"
    logs.mkdir()
    places = Places(records.folder(), logs)
    return by_name(choice.target, nodes_of(choice), places, cuts, records, options_of(choice.options))


def options_of(given: Sequence[str]) -> Mapping[str, str]:
    """Return name=value words as a map.

    Raises:
        Unsupported: a word that is not one.
    """
    options: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise Unsupported(f"--option {one!r} is not name=value")
        options[name] = value
    return options


def _levels(choice: Choice, target: Target) -> Sequence[str]:
    levels = target.levels if choice.levels == ("*",) else choice.levels
    unknown = [
        one for one in levels if one.partition(":")[0] not in {x.partition(":")[0] for x in target.levels}
    ]
    if unknown:
        raise Unsupported(
            f"{choice.target} has no read level {unknown[0]!r}, it has {', '.join(target.levels)}"
        )
    return levels


def _run(plan: Plan, target: Target, cuts: Cuts, workload: Workload, folder: ResultFolder) -> Recorded:
    """Run the campaign until its end, or until Ctrl-C or SIGTERM, which end its nodes as well."""

    async def until_told() -> Recorded:
        task = asyncio.current_task()
        assert task is not None, "asyncio.run runs it in one"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await campaign(plan, target, cuts, workload, folder.history_file)

    try:
        return asyncio.run(until_told())
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        raise Interrupted(folder.path) from error
