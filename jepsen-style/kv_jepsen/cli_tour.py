"""The commands `campaign` and `mutants`: many runs, one table. They read the clock, write files and print."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random, SystemRandom
from typing import Annotated, Final

import typer

from kv_jepsen.checkers.finding import Valid
from kv_jepsen.choice import Choice
from kv_jepsen.cli_report import EXIT, WORD, judged_as
from kv_jepsen.cli_run import SEED_MAX, TargetOption, performed, tell, write_the_index
from kv_jepsen.cuts import delays, firewall
from kv_jepsen.cuts.netns import possible
from kv_jepsen.draw import FAMILIES
from kv_jepsen.judge import judge
from kv_jepsen.mutants import HUNTS, Hunt, hunt_of
from kv_jepsen.report import Run
from kv_jepsen.table import Caught, Done, campaign_table, mutant_table, read_caught, write_caught
from kv_jepsen.targets.clocks import MISSING, library
from kv_jepsen.targets.panel import source_tree
from kv_jepsen.tour import RUN_S, Leg, tour
from kv_jepsen.verdict import EXIT_BAD_INPUT
from kv_jepsen.workloads import WORKLOADS

RUN_S_MIN: Final = 15.0
"""A run is not shorter, even if that is past the end."""
OF_TEST_BUILD: Final = ("power", "disk", "flip", "skew")
OF_HOSTS: Final = (*OF_TEST_BUILD, "clock")
"""Families of faults that need the store's test build; and those that are done to machines, not to processes or networks."""
NOTES: Final = "mutants.jsonl"
"""In the folder of results: every hunt that was made there."""
ATTEMPTS_S: Final = 300.0
"""How long one mutant is hunted, at most."""
ATTEMPT_SEEDS: Final = 1000
"""Between the seeds of one attempt and the next."""
CONTROLS_MAX: Final = 3
"""Runs of one control until one shows something; then it is unknown, and the exit status 3."""


def campaign_command(
    target: TargetOption = "ringkv",
    seconds: Annotated[
        float, typer.Option(min=1, help="Of wall time; the last run may end a little later.")
    ] = 180.0,
    faults: Annotated[str, typer.Option(help="Families, with commas; * for all.")] = "*",
    workloads: Annotated[str, typer.Option(help="With commas; * for all.")] = "*",
    cut: Annotated[
        str, typer.Option(help="proxy, netns; both: in turn; auto: both, if namespaces can be made.")
    ] = "auto",
    rate: Annotated[float, typer.Option(min=0.1, help="Operations a second, of all clients.")] = 80.0,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    results: Annotated[Path, typer.Option(help="Where result folders are made.")] = Path("results"),
) -> None:
    """Run after run with other workloads, read levels and faults, until the time is over; one table at the end.

    Exit status: the worst of all runs: 0 valid, 1 a violation, 3 unknown; 2 if one could not be run.
    """
    seed = SystemRandom().randrange(SEED_MAX) if seed is None else seed
    typer.echo(f"campaign: seed {seed}", err=True)
    families = _available(target) if faults == "*" else faults.split(",")
    cuts = _cuts(cut)
    works = list(WORKLOADS) if workloads == "*" else workloads.split(",")
    end = time.monotonic() + seconds
    done: list[Done] = []
    for leg in tour(Random(seed), works, families, cuts, target, late=delays.offered()):
        left = end - time.monotonic()
        if done and left < RUN_S / 2:
            break
        choice = Choice(
            f"campaign-{leg.workload}", target, leg.workload, ",".join(leg.families),
            min(RUN_S, max(left, RUN_S_MIN)), leg.cut, 3, 6, rate, leg.seed, leg.options, leg.levels,
        )  # fmt: skip
        done.append(_leg(leg, choice, results))
        table = campaign_table(done, seed)
        results.mkdir(parents=True, exist_ok=True)
        (results / "campaign.md").write_text(table, encoding="utf-8")
    typer.echo(campaign_table(done, seed))
    raise typer.Exit(_worst([one.valid for one in done]))


def _cuts(cut: str) -> list[str]:
    # Without nftables namespaces offer cuts alone, and most families need more.
    if cut == "both" or (cut == "auto" and possible() and firewall.offered()):
        return ["proxy", "netns"]
    return ["proxy" if cut == "auto" else cut]


def _available(target: str) -> list[str]:
    """The families that can be done to a target here; what is left out is told."""
    left = dict.fromkeys((*OF_HOSTS, "router"), "it is for ringkv alone") if target != "ringkv" else {}
    if target == "ringkv" and source_tree() is None:
        left |= dict.fromkeys(OF_TEST_BUILD, "the store's test build is not here: this is no checkout")
    if target == "ringkv" and library() is None:
        left["clock"] = MISSING
    for family, why in left.items():
        typer.echo(f"campaign: without {family}: {why}", err=True)
    return [family for family in FAMILIES if family not in left]


def _worst(verdicts: list[Valid]) -> int:
    return EXIT[False if False in verdicts else "unknown" if "unknown" in verdicts else True]


def _leg(leg: Leg, choice: Choice, results: Path) -> Done:
    judged, folder, _ = _judged(choice, None, results)
    calls = judged.history.calls
    ok = sum(call.ok for call in calls)
    return Done(folder.name, leg, len(calls), ok, _faults(judged), judged.valid)


def _judged(choice: Choice, schedule: Path | None, results: Path) -> tuple[Run, Path, float]:
    """Run and judge; the last is the seconds that it took."""
    began = time.monotonic()
    folder, run = performed(choice, schedule, results)
    judged = judge(run, judged_as(choice), levels=choice.held(), now=time.monotonic)
    folder.save(judged)
    write_the_index(results)
    tell(judged)
    typer.echo(f"{choice.name}: {len(judged.history.calls)} calls: {WORD[judged.valid]}: {folder.path}")
    return judged, folder.path, time.monotonic() - began


def _faults(run: Run) -> Counter[str]:
    """How many faults of each kind there were, by the notes of the nemesis."""
    ends = {"heal", "start", "resume", "free", "calm"}
    kinds = [op.f for op in run.history.ops if op.process == "nemesis"]
    return Counter(kind for kind in kinds if kind not in ends and not kind.startswith("stop-"))


def mutants_command(
    only: Annotated[
        str | None, typer.Option(help="Mutants, with commas; by default all that are hunted.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="How often each is hunted, from other seeds.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the first run.")] = 1,
    table: Annotated[Path | None, typer.Option(help="Where the table is written.")] = None,
    control: Annotated[
        bool, typer.Option("--control", help="The same runs of the store as it is: nothing may be found.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Where result folders are made.")] = Path("results"),
) -> None:
    """Hunt builds of ringkv that leave out one duty, each with its own faults and clients: are they caught?

    The table is of all hunts in the folder of results, the last ones of each mutant: so some can be made again.

    Exit status: 0 if each was caught each time, 1 if one was not; with `--control` that of `campaign`, where a
    run that shows nothing is made again from another seed, at most three times.
    """
    try:
        hunts = HUNTS if only is None else tuple(map(hunt_of, only.split(",")))
    except KeyError as error:
        names = ", ".join(hunt.mutant for hunt in HUNTS)
        typer.echo(f"kv-jepsen: {error} is not hunted with real processes; these are: {names}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
    if control:
        found = [_controlled(hunt, seed + number, results) for hunt in hunts for number in range(runs)]
        typer.echo(
            f"{len(found)} runs without a mutant: {found.count(True)} valid, {found.count(False)} invalid, "
            f"{found.count('unknown')} that showed nothing"
        )
        raise typer.Exit(_worst(found))
    caught = [
        _noted(_hunted(hunt, seed + number, results), results) for hunt in hunts for number in range(runs)
    ]
    page = mutant_table(read_caught((results / NOTES).read_text(encoding="utf-8")), runs)
    if table is not None:
        table.write_text(page, encoding="utf-8")
    typer.echo(page)
    raise typer.Exit(0 if all(one.by for one in caught) else 1)


def _noted(one: Caught, results: Path) -> Caught:
    """Note a hunt beside its results, so that the table of all can be made of hunts one after another."""
    with (results / NOTES).open("a", encoding="utf-8") as notes:
        notes.write(write_caught(one))
    return one


def _hunted(hunt: Hunt, seed: int, results: Path) -> Caught:
    """Hunt a mutant until it is caught, or the time is over."""
    began = time.monotonic()
    attempt = 0
    while attempt == 0 or time.monotonic() - began < ATTEMPTS_S - hunt.seconds:
        mutant = (f"mutant={hunt.mutant}",)
        judged = _attempt(hunt, mutant, seed + ATTEMPT_SEEDS * attempt, results)
        attempt += 1
        if judged.valid is False:
            return Caught(hunt, _checkers(judged), attempt, time.monotonic() - began)
    return Caught(hunt, (), attempt, time.monotonic() - began)


def _controlled(hunt: Hunt, seed: int, results: Path) -> Valid:
    """The verdict on the store as it is in the circumstances of a hunt; a run that shows nothing is made again."""
    for attempt in range(CONTROLS_MAX):
        valid = _attempt(hunt, (), seed + ATTEMPT_SEEDS * attempt, results).valid
        if valid != "unknown":
            return valid
        typer.echo(
            f"control-{hunt.mutant}: run {attempt + 1} of at most {CONTROLS_MAX} showed nothing", err=True
        )
    return "unknown"


def _attempt(hunt: Hunt, mutant: tuple[str, ...], seed: int, results: Path) -> Run:
    """One run in the circumstances of a hunt."""
    results.mkdir(parents=True, exist_ok=True)
    schedule = results / f"{hunt.mutant}.schedule"
    schedule.write_text(hunt.schedule, encoding="utf-8")
    name = f"mutant-{hunt.mutant}" if mutant else f"control-{hunt.mutant}"
    choice = Choice(
        name, "ringkv", hunt.workload, schedule.name, hunt.seconds, "proxy", 3, 6, 100.0,
        seed, (*(f"{a}={b}" for a, b in hunt.options.items()), *mutant), hunt.levels,
    )  # fmt: skip
    judged, _, _ = _judged(choice, schedule, results)
    return judged


def _checkers(judged: Run) -> tuple[str, ...]:
    """Who noticed."""
    found = {check.checker: check.valid for check in judged.checks}
    if judged.linearizable is not None:
        found["linearizability"] = not judged.linearizable.failures
    if judged.elle is not None:
        found["cycles"] = judged.elle.valid
    return tuple(sorted(name for name, valid in found.items() if valid is False))
