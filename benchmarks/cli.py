"""The command line: `run` measures, `report` renders again what was measured, `rows` lists the goals."""

from __future__ import annotations

import argparse
import asyncio
import compileall
import contextlib
import datetime as dt
import importlib.metadata
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

import kv
from benchmarks.goals import GOALS
from benchmarks.options import Options
from benchmarks.proc import check_disk, machine
from benchmarks.processes import Failed, Unavailable
from benchmarks.record import facts_line, read_run
from benchmarks.report.html_page import page
from benchmarks.report.markdown import document
from benchmarks.runner import Log, run
from benchmarks.systems import etcd, nats

RESULTS: Final = "results.jsonl"
MARKDOWN: Final = "report.md"
HTML: Final = "report.html"
PACKAGES: Final = ("grpcio", "protobuf", "uvloop", "lmdb", "pysyncobj", "nats-py")
USAGE_STATUS: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status: 1 if nothing was measured, 2 for bad usage."""
    parsed = parser().parse_args(arguments)
    try:
        match parsed.command:
            case "run":
                return measure(parsed)
            case "report":
                render(parsed.out)
            case _:
                for goal in GOALS:
                    print(
                        f"{goal.id:>4}  {goal.text}: {'<=' if goal.at_most else '>='} {goal.bound:g} {goal.unit}"
                    )
    except (Failed, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_STATUS
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser; each field of `Options` is an option."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="measure, side by side, and write the report")
    defaults = Options()
    for field in fields(Options):
        flag, default = f"--{field.name.replace('_', '-')}", getattr(defaults, field.name)
        if field.name == "rows":
            runs.add_argument(flag, type=rows, default=default, help="such as 0,1,2,7-9; all, if not given")
        else:
            runs.add_argument(flag, type=type(default), default=default, help=f"default {default:g}")
    runs.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of results and report")
    runs.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure"
    )
    reports = commands.add_parser("report", help="render the report of a run again")
    reports.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of the run")
    commands.add_parser("rows", help="list the goals")
    return made


def rows(text: str) -> tuple[int, ...]:
    """Read "0,1,4-6"."""
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found |= dict.fromkeys(range(int(first), int(last if dash else first) + 1))
    return tuple(found)


def measure(parsed: argparse.Namespace) -> int:
    """Run, and write the report of what was measured, also when the run is broken off."""
    options = Options(**{field.name: getattr(parsed, field.name) for field in fields(Options)})
    check_disk(parsed.folder)
    compile_product()
    parsed.out.mkdir(parents=True, exist_ok=True)
    with (parsed.out / RESULTS).open("w", encoding="utf-8") as file:
        file.write(facts_line(facts(options, parsed.folder)) + "\n")
        log = Log(file, lambda line: print(line, flush=True))
        log.command(shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
        try:
            # Not uvloop: it forks for each process, which a process with gRPC threads should not.
            asyncio.run(until_stopped(options, parsed.folder, log))
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("stopped; the report has what was measured until now", file=sys.stderr)
    render(parsed.out)
    return 0 if log.samples else 1


async def until_stopped(options: Options, folder: Path, log: Log) -> None:
    """Run; SIGTERM ends it as Ctrl-C does, so that every process that was started is ended."""
    task = asyncio.current_task()
    assert task is not None, "this is a coroutine of a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await run(options, folder, log)


def compile_product() -> None:
    """Make the bytecode of the product, as its installation does: in a checkout a node may have to compile itself at each start.

    `PYTHONDONTWRITEBYTECODE` costs each start 0.4 s of CPU, which is no part of row 11.
    """
    compileall.compile_dir(Path(kv.__file__).parent, quiet=1)


def render(out: Path) -> None:
    """Write Markdown and HTML from the results in `out`."""
    with (out / RESULTS).open(encoding="utf-8") as file:
        found = read_run(file)
    (out / MARKDOWN).write_text(document(found), encoding="utf-8")
    (out / HTML).write_text(page(found), encoding="utf-8")
    print(f"wrote {out / MARKDOWN} and {out / HTML}")


def facts(options: Options, folder: Path) -> dict[str, str]:
    """Return what the report says of machine, versions and parameters."""
    now = dt.datetime.now(dt.UTC)
    found = {"date": f"{now:%Y-%m-%d %H:%M} UTC", **machine(folder)}
    found["ringkv"] = first_line(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"])
    for name, words, program in (
        ("etcd", ["--version"], etcd.program),
        ("nats-server", ["--version"], nats.program),
    ):
        with contextlib.suppress(Unavailable):  # the rows that need it say so
            found[name] = first_line([program(), *words])
    found["h2load"] = first_line(["h2load", "--version"])
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    found |= {f"option {field.name}": str(getattr(options, field.name)) for field in fields(Options)}
    return found


def first_line(command: Sequence[str]) -> str:
    """Return the first line that a program prints, or that it is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return "not installed"
    return next(iter((done.stdout or done.stderr).splitlines()), "unknown").strip()
