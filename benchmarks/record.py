"""What a run leaves behind: samples, what was skipped, and the facts of the run, each one JSON line.

Pure. How samples are judged is in `goals`, how they are shown in `report`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

FORMAT: Final = 1
"""Of the file; it only grows."""

Metrics: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured slice: numbers of one work on one system in one round.

    `series` are operations in each second, where the row shows them over time.
    """

    row: int
    system: str
    work: str
    round: int
    metrics: Metrics
    series: Sequence[float] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """A slice that was skipped or that failed, and why."""

    row: int
    system: str
    round: int
    why: str


@dataclass(frozen=True, slots=True)
class Run:
    """Everything of one run."""

    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    samples: Sequence[Sample] = ()
    missing: Sequence[Missing] = ()


def facts_line(facts: Mapping[str, str]) -> str:
    """Return the first line of a run: machine, versions, options."""
    return _line({"kind": "facts", "format": FORMAT, "facts": dict(facts)})


def command_line(command: str) -> str:
    """Return the line of one command that the run used."""
    return _line({"kind": "command", "command": command})


def sample_line(sample: Sample) -> str:
    """Return the line of one sample."""
    return _line(
        {
            "kind": "sample",
            "row": sample.row,
            "system": sample.system,
            "work": sample.work,
            "round": sample.round,
            "metrics": {name: round(value, 6) for name, value in sample.metrics.items()},
            "series": list(sample.series),
            "note": sample.note,
        }
    )


def missing_line(missing: Missing) -> str:
    """Return the line of what is missing."""
    return _line(
        {
            "kind": "missing",
            "row": missing.row,
            "system": missing.system,
            "round": missing.round,
            "why": missing.why,
        }
    )


def read_run(lines: Iterable[str]) -> Run:
    """Return the run that the lines tell of. Raises `ValueError` that names the line which is none of ours."""
    facts: dict[str, str] = {}
    commands: dict[str, None] = {}
    samples: list[Sample] = []
    missing: list[Missing] = []
    for number, text in enumerate(lines, 1):
        try:
            item = json.loads(text)
            match item["kind"]:
                case "facts":
                    facts |= _facts(item)
                case "command":
                    commands[item["command"]] = None
                case "sample":
                    samples.append(_sample(item))
                case "missing":
                    missing.append(Missing(item["row"], item["system"], item["round"], item["why"]))
                case other:
                    raise ValueError(f"there is no kind {other!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} is no line of a run: {error}") from error
    return Run(facts, tuple(commands), tuple(samples), tuple(missing))


def _facts(item: Mapping[str, Any]) -> dict[str, str]:
    if item["format"] > FORMAT:
        raise ValueError(
            f"format {item['format']} is newer than {FORMAT}: render it with the code that wrote it"
        )
    return {str(name): str(value) for name, value in item["facts"].items()}


def _sample(item: Mapping[str, Any]) -> Sample:
    return Sample(
        row=int(item["row"]),
        system=str(item["system"]),
        work=str(item["work"]),
        round=int(item["round"]),
        metrics={str(name): float(value) for name, value in item["metrics"].items()},
        series=tuple(map(float, item["series"])),
        note=str(item["note"]),
    )


def _line(item: Mapping[str, object]) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))
