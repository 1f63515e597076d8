"""Looks at processes from outside for the budget: /proc, ss, the metrics of a node, and py-spy and perf while a load runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.budget_fold import Socket, Thread, fold, read_metrics, read_perf, read_raw, read_ss, read_stat
from benchmarks.processes import Failed, Unavailable, output_of

RATE_HZ: Final = 250
PERF_HZ: Final = 499
"""Not a divisor of timers that run at round rates."""
PROFILER_MARGIN_S: Final = 30.0
METRICS_TIMEOUT_S: Final = 5.0
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

MAY_NOT: Final = (
    "py-spy may not read another process here: it needs the right to ptrace. Run as root, give the container SYS_PTRACE, or "
    "set kernel.yama.ptrace_scope to 0"
)


def pyspy_program() -> str:
    """Return py-spy of this environment, else of PATH. Raises `Unavailable`."""
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise Unavailable("the budget needs py-spy: install the extra `bench`")
    return found


def threads(pid: int) -> dict[int, Thread]:
    """Return the threads of a process and their CPU so far."""
    found = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        try:
            found[int(folder.name)] = read_stat((folder / "stat").read_text(encoding="utf-8"))
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
    return found


async def sockets() -> list[Socket] | None:
    """Return all TCP sockets of this machine, or None where iproute2 is not installed."""
    return read_ss(await output_of(["ss", "-tinpHO"], PROFILER_MARGIN_S)) if shutil.which("ss") else None


async def metrics(address: str) -> dict[str, float]:
    """Return the metrics of the node that serves HTTP at `address`."""

    def get() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=METRICS_TIMEOUT_S) as reply:
            return str(reply.read().decode())

    return read_metrics(await asyncio.to_thread(get))


async def profile_python(pids: Mapping[str, int], folder: Path, seconds: float) -> dict[str, dict[str, int]]:
    """Return the samples of each process by role, all taken at the same time.

    Processes are not paused: on a busy machine pausing takes most of their time, and then shares are those of py-spy. Some
    samples are torn in exchange, which py-spy finds and drops. Raises `Failed` with the reason if py-spy may not look.
    """
    program = pyspy_program()

    async def one(name: str, pid: int) -> dict[str, int]:
        path = folder / f"{name}.raw"
        command = [program, "record", "--pid", f"{pid}", "--gil", "--threads", "--nonblocking"]
        command += ["--rate", f"{RATE_HZ}", "--duration", f"{max(1, round(seconds))}"]
        command += ["--format", "raw", "--output", str(path)]
        try:
            await output_of(command, seconds + PROFILER_MARGIN_S)
        except Failed as error:
            denied = "permission denied" in str(error).lower() or "not permitted" in str(error).lower()
            raise Failed(f"{MAY_NOT}. It said: {error}" if denied else str(error)) from None
        return fold(read_raw(path.read_text(encoding="utf-8")))

    found = await asyncio.gather(*(one(name, pid) for name, pid in pids.items()))
    return dict(zip(pids, found, strict=True))


async def profile_native(pids: Mapping[str, int], folder: Path, seconds: float) -> dict[str, dict[str, int]]:
    """Return the samples of each process by library; nothing where perf is not installed or not allowed."""
    perf, path = shutil.which("perf"), folder / "perf.data"
    if perf is None:
        return {}
    who = ",".join(map(str, pids.values()))
    record = [perf, "record", "-e", "cpu-clock", "-F", f"{PERF_HZ}", "-o", str(path), "-p", who]
    try:
        await output_of([*record, "--", "sleep", f"{seconds}"], seconds + PROFILER_MARGIN_S)
        text = await output_of([perf, "script", "-i", str(path), "-F", "pid,ip,dso"], PROFILER_MARGIN_S)
    except Failed as error:
        print(f"no table by library: {error}", file=sys.stderr)
        return {}
    found = read_perf(text)
    return {name: found.get(pid, {}) for name, pid in pids.items()}
