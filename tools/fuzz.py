"""Feed every decoder of bytes from sockets and disks with mutated input: `python -m tools.fuzz --minutes 10`.

Each target of tests/fuzz gets an equal share of the time. A finding is printed with its input in hex and the
command that replays it; the exit status is then 1. With `--engine atheris` (the extra `fuzz`) a target is
guided by coverage, in a process of its own; the default engine needs nothing.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import structlog

from tests.fuzz.engine import Finding, Report, Target, explore, run_one
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import watched

SEED_BITS = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all targets together")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="only this one; repeatable"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbits(SEED_BITS), help="of the mutations")
    parser.add_argument("--engine", choices=("plain", "atheris"), default="plain")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "HEX"), help="run one input")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if options.replay:
        return _replay(*options.replay)
    targets = [TARGETS[name] for name in options.target or TARGETS]
    seconds = options.minutes * 60 / len(targets)
    print(f"seed {options.seed}, engine {options.engine}, {len(targets)} targets of {seconds:.0f} s each")
    guided = options.engine == "atheris"
    reports = [_guided(t, seconds) if guided else _plain(t, seconds, options.seed) for t in targets]
    found = [finding for report in reports for finding in report.findings.values()]
    for finding in found:
        print(f"\nFINDING {finding.told()}")
    executions = sum(report.executions for report in reports)
    print(f"\n{executions} executions, {len(found)} findings")
    return 1 if found else 0


def _replay(name: str, data: str) -> int:
    result = _run(TARGETS[name], bytes.fromhex(data))
    print(result.told() if isinstance(result, Finding) else f"{name}: {result}")
    return 1 if isinstance(result, Finding) else 0


def _run(target: Target, data: bytes) -> str | Finding:
    with tempfile.TemporaryDirectory() as directory, target.make(Path(directory)) as check:
        return run_one(target.name, watched(check), data)


def _plain(target: Target, seconds: float, seed: int) -> Report:
    report = Report(target.name)
    with tempfile.TemporaryDirectory() as directory, target.make(Path(directory)) as check:
        end = time.monotonic() + seconds
        explore(
            target, watched(check), Random(f"{seed}:{target.name}"), lambda _: time.monotonic() < end, report
        )
    _tell(report, seconds)
    return report


def _guided(target: Target, seconds: float) -> Report:
    """Run the target under atheris in a process of its own: libFuzzer ends the process it runs in."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tests.fuzz.guided", target.name, str(int(seconds)), directory]
        ended = subprocess.run(command, capture_output=True, check=False)
        report = Report(target.name)
        for line in (Path(directory) / "report").read_text().splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "executions":
                report.executions += int(rest)
            elif kind == "outcome":
                report.note(rest)
            else:
                _note_finding(report, bytes.fromhex(rest), target)
        if ended.returncode:
            tail = ended.stderr.decode(errors="replace")[-2000:]
            report.findings["process"] = Finding(target.name, b"", f"exit {ended.returncode}", tail)
    _tell(report, seconds)
    return report


def _note_finding(report: Report, data: bytes, target: Target) -> None:
    result = _run(target, data)
    if not isinstance(result, Finding):
        result = Finding(target.name, data, "not reproduced", "The input alone does not fail.\n")
    report.findings.setdefault(result.where, result)


def _tell(report: Report, seconds: float) -> None:
    print(
        f"{report.target:18} {report.executions:9} executions  {report.executions / seconds:8.0f}/s"
        f"  {len(report.outcomes):4} outcomes  {len(report.findings)} findings",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
