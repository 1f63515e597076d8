"""The fuzzer without a library: what a target is, and the seeded loop that feeds it.

What lives here: `Target`, `Finding`, and `explore`, which mutates a corpus of valid inputs. What must not:
targets, printing, and any clock or randomness that is not a parameter.

A check takes bytes and returns, as a short text, what became of them; anything it raises is a finding. An
outcome that was not seen before makes its input part of the corpus: a poor man's coverage, which also
shows how deep a target gets.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeAlias

from kv.errors import KVError
from tests.fuzz.mutate import without_one_field

CORPUS_INPUTS_MAX = 2000
"""Inputs that one exploration keeps; beyond it new outcomes are counted and not kept."""

OUTCOMES_MAX = CORPUS_INPUTS_MAX
"""Outcomes that are told apart."""

MUTATIONS_MAX = 4
"""Mutations on the way from an input of the corpus to the next one."""

SHRINK_TRIES_MAX = 3000
"""Executions spent on making the input of a finding shorter."""

INPUT_BYTES_MAX = 1 << 16
"""Longer inputs are cut: they find what shorter ones find, more slowly."""


class Hang(KeyboardInterrupt):
    """One input took too long. An interrupt, because an event loop keeps any other exception to itself."""


Check: TypeAlias = Callable[[bytes], str]
"""Runs one input; returns its outcome, raises what should not be."""

Mutate: TypeAlias = Callable[[bytes, bytes, Random], bytes]
"""One mutation of the first input; the second one lends material."""


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder with what is expected of it."""

    name: str
    what: str
    """One sentence: what must hold for any input."""
    seeds: Callable[[], list[bytes]]
    """Valid inputs, the same at each call."""
    make: Callable[[Path], AbstractContextManager[Check]]
    """Prepares the check, and cleans up after it; the directory is its own, empty, and exists."""
    mutate: Mutate


def gist(refusal: KVError) -> str:
    """A refusal without what varies: the reason, and the words before and after anything quoted."""
    text = re.sub(r"""(['"]).*\1|[0-9.]+""", "_", refusal.message, flags=re.DOTALL)
    words = re.findall(r"[a-z_]{2,}", text)
    return f"{refusal.reason}: {' '.join([*words[:4], *words[4:][-3:]])}"


def plain(check: Check) -> Callable[[Path], AbstractContextManager[Check]]:
    """The `make` of a check that needs nothing."""
    return lambda _: nullcontext(check)


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that a target should have survived."""

    target: str
    data: bytes
    where: str
    """Kind of the exception and the line that raised it: findings with the same are one defect."""
    detail: str
    """The traceback."""

    def told(self) -> str:
        """What a person needs to see it again."""
        return (
            f"{self.target}: {self.where}\n{self.detail}"
            f"input: {self.data.hex()}\n"
            f"replay: python -m tools.fuzz --replay {self.target} {self.data.hex()}"
        )


@dataclass(slots=True)
class Report:
    """What an exploration did."""

    target: str
    executions: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    """By `Finding.where`: the first input of each."""

    def note(self, outcome: str) -> bool:
        """Count an outcome; True if it is a new one. Beyond `OUTCOMES_MAX` new ones count as one."""
        if outcome not in self.outcomes and len(self.outcomes) >= OUTCOMES_MAX:
            outcome = "others"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        return self.outcomes[outcome] == 1


def run_one(target: str, check: Check, data: bytes) -> str | Finding:
    """Run one input; returns its outcome, or the finding."""
    try:
        return check(data)
    except (Exception, Hang) as error:  # noqa: BLE001 - whatever comes out of a check is what this looks for
        last = _last_frame(error)
        where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        return Finding(target, data, where, "".join(traceback.format_exception(error)))


def shrink(finding: Finding, check: Check) -> Finding:
    """A shorter input with the same finding, as far as leaving out fields and pieces goes."""
    tries = SHRINK_TRIES_MAX
    again = True
    while again and tries > 0 and not finding.where.startswith(Hang.__name__):
        again = False
        for data in _shorter(finding.data):
            tries -= 1
            result = run_one(finding.target, check, data)
            if isinstance(result, Finding) and result.where == finding.where:
                finding, again = result, True
                break
            if tries <= 0:
                break
    return finding


def _shorter(data: bytes) -> Iterator[bytes]:
    yield from without_one_field(data)
    size = len(data) // 2
    while size:
        for at in range(0, len(data), size):
            yield data[:at] + data[at + size :]
        size //= 2


def _last_frame(error: BaseException) -> traceback.FrameSummary:
    """Where it was raised; for a hang, where the code under test was."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f for f in reversed(frames) if "/kv/" in f.filename), frames[-1])


def explore(
    target: Target, check: Check, rng: Random, go_on: Callable[[int], bool], report: Report | None = None
) -> Report:
    """Run all seeds once, then mutations, while `go_on(executions)`.

    With the same `rng` and number of executions it is the same run.
    """
    report = report or Report(target.name)
    corpus = list(target.seeds())
    waiting = list(reversed(corpus))
    while go_on(report.executions):
        data = waiting.pop() if waiting else _next(target, corpus, rng)
        report.executions += 1
        result = run_one(target.name, check, data)
        if isinstance(result, Finding):
            if result.where not in report.findings:
                report.findings[result.where] = shrink(result, check)
        elif report.note(result) and len(corpus) < CORPUS_INPUTS_MAX:
            corpus.append(data)
    return report


def _next(target: Target, corpus: list[bytes], rng: Random) -> bytes:
    data = rng.choice(corpus)
    for _ in range(rng.randint(1, MUTATIONS_MAX)):
        data = target.mutate(data, rng.choice(corpus), rng)
    return data[:INPUT_BYTES_MAX]
