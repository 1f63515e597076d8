"""Tables of many runs, as Markdown: a campaign, and a hunt for mutants. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kv_jepsen.checkers.finding import Valid
from kv_jepsen.mutants import HUNTS, Hunt
from kv_jepsen.schedule import Fault, parse_schedule
from kv_jepsen.tour import Leg

WORD: Final[Mapping[Valid, str]] = {True: "valid", False: "INVALID", "unknown": "unknown"}


@dataclass(frozen=True, slots=True)
class Done:
    """One run of a campaign: its folder, what it was, its calls and those that succeeded, its faults, the verdict."""

    folder: str
    leg: Leg
    calls: int
    ok: int
    faults: Counter[str]
    valid: Valid


@dataclass(frozen=True, slots=True)
class Caught:
    """One hunt: who noticed the mutant (nobody: it was not caught), in how many runs, after how many seconds of wall time."""

    hunt: Hunt
    by: tuple[str, ...]
    attempts: int
    seconds: float


def campaign_table(done: Sequence[Done], seed: int) -> str:
    """Return the page of a campaign."""
    faults: Counter[str] = sum((one.faults for one in done), Counter())
    rows = [
        f"| {one.folder} | {one.leg.workload} | {one.leg.cut} | {', '.join(one.leg.families)} | {', '.join(one.leg.levels)} "
        f"| {', '.join(one.leg.options)} | {one.calls} | {one.ok} | {WORD[one.valid]} |"
        for one in done
    ]
    verdicts = Counter(WORD[one.valid] for one in done)
    return "\n".join(
        [
            f"# A campaign of {len(done)} runs (seed {seed})",
            "",
            f"{sum(one.calls for one in done)} calls, {sum(one.ok for one in done)} ok. Runs: "
            + ", ".join(f"{count} {word}" for word, count in sorted(verdicts.items()))
            + ".",
            f"Faults: {', '.join(f'{count} {kind}' for kind, count in sorted(faults.items())) or 'none'}.",
            "",
            "| run | workload | cut | families of faults | levels | options | calls | ok | verdict |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def write_caught(one: Caught) -> str:
    """Return a hunt as a line of JSON."""
    noted = {"mutant": one.hunt.mutant, "by": one.by, "attempts": one.attempts, "seconds": one.seconds}
    return json.dumps(noted) + "\n"


def read_caught(lines: str) -> list[Caught]:
    """Read lines of hunts; those of mutants that are not hunted any more are left out."""
    known = {hunt.mutant: hunt for hunt in HUNTS}
    return [
        Caught(known[one["mutant"]], tuple(one["by"]), one["attempts"], one["seconds"])
        for one in map(json.loads, lines.splitlines())
        if one["mutant"] in known
    ]


def mutant_table(caught: Sequence[Caught], runs: int) -> str:
    """Return the page of hunted mutants: one row for each, of its last `runs` hunts."""
    rows = []
    for hunt in HUNTS:
        hunts = [one for one in caught if one.hunt is hunt][-runs:]
        if not hunts:
            continue
        kinds = dict.fromkeys(_kind(line) for line in parse_schedule(hunt.schedule))
        by = dict.fromkeys(name for one in hunts for name in one.by)
        rows.append(
            f"| `{hunt.mutant}` | {hunt.breaks} | {', '.join(kind for kind in kinds if kind)} | {hunt.workload} "
            f"| {', '.join(by) or '-'} | {sum(bool(one.by) for one in hunts)} of {len(hunts)} "
            f"| {', '.join(f'{one.seconds:.0f}' for one in hunts)} |"
        )
    return "\n".join([*_HEAD, *rows, *_TAIL])


_QUIET: Final = frozenset({"heal", "start", "free", "resume", "calm"})
_HEAD: Final = (
    "# Mutants with real processes",
    "",
    "Each row is a build of ringkv that leaves out one duty (`python -m tests.faulty_node --mutant NAME`, the names are those of",
    "`kv sim --list-mutants`), run as three real processes under the faults named, and judged by the harness as any store",
    "would be. Seconds are of wall time from the start of the first node to the verdict, of each hunt, on a shared machine; a hunt",
    "that finds nothing is repeated with another seed for up to 300 s. This page is written by",
    "`kv-jepsen mutants --table jepsen-style/MUTANTS.md`; the circumstances are in `kv_jepsen/mutants.py`.",
    "",
    "| mutant | what is broken | faults | workload | who noticed | caught | seconds |",
    "|---|---|---|---|---|---|---|",
)

_TAIL: Final = (
    "",
    "A checker named `cluster` is the harness itself: a node that refused to start, or a cluster that did not come back; `logs` are",
    "assertions of the store in the nodes' logs. The other names are those of CHECKERS.md.",
    "",
    "The same runs of the store as it is must find nothing: `kv-jepsen mutants --control`.",
    "",
    "## Not caught with real processes",
    "",
    "`lease-too-long`, `lease-unconfirmed`, `torn-tail-accepted`, `vote-for-any-log` and `router-lost-is-definite`",
    "were hunted for one run of about 30 s each, under faults like those of the simulator's hunts, and nothing",
    "was found. They need an order of messages, or clients that only read, which chance gives seldom; the simulator finds them within",
    "seconds, and has the scenes for those that need a single message to be late.",
    "The others of the simulator's list were not tried.",
    "",
)


def _kind(line: Fault) -> str:
    """The kind of a fault as the table shows it; empty for what ends one."""
    if line.kind in _QUIET:
        return ""
    return "power cut" if line.arguments.get("power") == "yes" else line.kind
