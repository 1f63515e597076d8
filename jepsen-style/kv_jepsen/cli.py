"""The command `kv-jepsen`: what a person types. It opens files, reads the clock, prints; others judge.

Exit status of `check`: 0 linearizable, 1 not, 3 unknown, 2 for bad usage or input that cannot be read,
70 for an error of the program itself.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Final

import typer

from kv_jepsen import text as words
from kv_jepsen.cli_lab import lab_command
from kv_jepsen.cli_minimize import minimize_command
from kv_jepsen.cli_replay import replay_command
from kv_jepsen.cli_report import report_command
from kv_jepsen.cli_run import clean_command, run_command
from kv_jepsen.cli_tour import campaign_command, mutants_command
from kv_jepsen.formats import UnreadableHistory, decoded, line_of, parse
from kv_jepsen.linearizable import Limits, check
from kv_jepsen.models import MODELS, UnsuitableHistory
from kv_jepsen.verdict import EXIT_BAD_INPUT, EXIT_STATUS, Verdict, worst

HISTORY: Final = "history.jsonl"
"""In the folder of a run."""
EXIT_INTERNAL: Final = 70
"""An error of the checker itself, which is no verdict (`EX_SOFTWARE` of sysexits)."""

app = typer.Typer(
    name="kv-jepsen",
    help="Partition-tolerance tests: histories, faults, checkers.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def main_options() -> None:
    """Partition-tolerance tests: histories, faults, checkers."""


app.command("report")(report_command)
app.command("run")(run_command)
app.command("minimize")(minimize_command)
app.command("replay")(replay_command)
app.command("campaign")(campaign_command)
app.command("mutants")(mutants_command)
app.command("clean")(clean_command)
app.command("lab")(lab_command)


@app.command("check")
def check_command(
    files: Annotated[
        list[Path], typer.Argument(help="Histories, or folders of runs; the format is recognized.")
    ],
    model: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(MODELS)}; by default the one that suits.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file.")] = False,
    time_limit: Annotated[float, typer.Option(min=0.001, help="Seconds for each file.")] = 60.0,
    memory_limit: Annotated[int, typer.Option(min=1, help="MiB that a search may hold.")] = 1500,
    search_only: Annotated[bool, typer.Option(help="Do not use the evidence in replies.")] = False,
) -> None:
    """Judge whether recorded histories are linearizable.

    Exit status: 0 linearizable, 1 not linearizable, 3 unknown (a limit was reached), 2 bad usage or unreadable input. Of several
    files the worst counts: unreadable, then not linearizable, then unknown.
    """
    if model is not None and model not in MODELS:
        raise typer.BadParameter(f"no model {model!r}; there are {', '.join(MODELS)}", param_hint="--model")
    limits = Limits(seconds=time_limit, memory_mib=memory_limit)
    judgements = []
    unreadable = False
    for file in files:
        began = time.monotonic()
        verdict = _judged(file, model, limits, not search_only)
        if verdict is None:
            unreadable = True
            continue
        judgements.append(verdict.judgement)
        _show(file, verdict, time.monotonic() - began, as_json)
    raise typer.Exit(EXIT_BAD_INPUT if unreadable else EXIT_STATUS[worst(judgements)])


def _judged(file: Path, model: str | None, limits: Limits, use_evidence: bool) -> Verdict | None:
    """Return the verdict of one file; None, and the reason on stderr, if it cannot be read or judged."""
    text = ""
    try:
        text = decoded((file / HISTORY if file.is_dir() else file).read_bytes())
        history = parse(text)
        if not history.calls:
            raise UnreadableHistory(
                "there is no call of a client to judge: clients are processes with numbers"
            )
        chosen = MODELS[model]() if model is not None else None
        verdict = check(history, chosen, limits, time.monotonic, use_evidence=use_evidence)
    except (OSError, UnreadableHistory) as error:
        typer.echo(f"{file}: {error}", err=True)
        return None
    except UnsuitableHistory as error:
        where = "" if error.index is None else f"line {line_of(text, error.index)}: "
        typer.echo(f"{file}: {where}{error}", err=True)
        return None
    if not any(call.ok for call in history.calls):
        typer.echo(f"{file}: no call succeeded, so this shows nothing", err=True)
    return verdict


def _show(file: Path, verdict: Verdict, seconds: float, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"file": str(file), **words.data(verdict, seconds)}))
        return
    summary, *details = words.lines(verdict, seconds)
    typer.echo(f"{file}: {summary}")
    for line in details:
        typer.echo(line)


def main() -> None:
    """Run the command. An error that nobody expected ends it with a status of its own: Python's would be that of a violation."""
    try:
        app()
    except Exception:  # noqa: BLE001 - whatever it is, it is no verdict
        traceback.print_exc()
        typer.echo("kv-jepsen: an error of kv-jepsen itself, so there is no verdict", err=True)
        sys.exit(EXIT_INTERNAL)
