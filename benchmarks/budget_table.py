"""The budget as Markdown: tables of microseconds and of bytes for each operation. Pure; what is measured is in `budget`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.budget_fold import KERNEL, ROLES, Cpu, split

NATIVE: Final = "threads without Python"
SYSTEM: Final = "kernel"


@dataclass(frozen=True, slots=True)
class Process:
    """One column: a process, and what the operations of a slice cost it."""

    title: str
    cpu: Cpu
    """In the slice without profilers."""
    roles: Mapping[str, int]
    """Samples of py-spy, in the slice with profilers."""
    libraries: Mapping[str, int]
    """Samples of perf, in the same; empty, if perf does not work here."""
    counts: Mapping[str, float]
    """Bytes and events in the slice without profilers, by name."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One kind of operation at one concurrency. `counted` operations belong to `Process.counts`."""

    kind: str
    tasks: int
    operations: int
    counted: int
    failed: int
    seconds: float
    p50_ms: float
    profiled_per_s: float
    processes: Sequence[Process] = field(default=())

    def __post_init__(self) -> None:
        if self.operations < 1 or self.counted < 1 or self.seconds <= 0:
            raise ValueError(f"a slice without operations has no budget: {self.kind} with {self.tasks} tasks")

    def per_operation_us(self, seconds: float) -> float:
        """Return CPU seconds of the slice as microseconds for each operation."""
        return 1e6 * seconds / self.operations


def slice_text(found: Slice) -> str:
    """Return the section of one slice: time by role, time by library, bytes and events."""
    head = f"### {found.kind}, {found.tasks} at a time\n\n{summary(found)}"
    parts = [head, time_by_role(found)]
    if any(process.libraries for process in found.processes):
        parts.append("The same microseconds by the library that used them (perf):")
        parts.append(time_by_library(found))
    parts += ["Bytes and events for each operation:", counts_table(found)]
    return "\n\n".join(parts) + "\n"


def summary(found: Slice) -> str:
    """Return rate, latency, CPU, and how much the profilers took."""
    total_us = sum(found.per_operation_us(process.cpu.total_s) for process in found.processes)
    cores = sum(process.cpu.total_s for process in found.processes) / found.seconds
    failed = f" {found.failed} calls failed." if found.failed else ""
    return (
        f"{found.operations / found.seconds:,.0f} operations/s, p50 {found.p50_ms:.2f} ms; {total_us:,.0f} µs of CPU for "
        f"each operation in all processes, which used {cores:.2f} cores; with the profilers {found.profiled_per_s:,.0f} "
        f"operations/s.{failed}"
    )


def time_by_role(found: Slice) -> str:
    """Return microseconds of CPU for each operation: a row for each role, a column for each process."""
    columns = []
    for process in found.processes:
        column = split(process.roles, found.per_operation_us(process.cpu.python_s))
        column[NATIVE] = found.per_operation_us(process.cpu.native_s)
        column[SYSTEM] = found.per_operation_us(process.cpu.system_s)
        columns.append(column)
    bottom = ["samples of py-spy", *(f"{sum(process.roles.values())}" for process in found.processes), "", ""]
    return _times("where", (*ROLES, NATIVE, SYSTEM), found, columns, [bottom])


def time_by_library(found: Slice) -> str:
    """Return microseconds of CPU for each operation by shared object; the whole of a process is that of /proc."""
    columns = [
        split(process.libraries, found.per_operation_us(process.cpu.total_s)) for process in found.processes
    ]
    names = dict.fromkeys(name for column in columns for name in column)
    order = sorted(
        names, key=lambda name: (name == KERNEL, -sum(column.get(name, 0.0) for column in columns))
    )
    bottom = [
        "samples of perf",
        *(f"{sum(process.libraries.values())}" for process in found.processes),
        "",
        "",
    ]
    return _times("library", order, found, columns, [bottom])


def _times(
    first: str,
    names: Sequence[str],
    found: Slice,
    columns: Sequence[Mapping[str, float]],
    bottom: Sequence[Sequence[str]],
) -> str:
    """Return a table of microseconds with sums, and the share of each row in all of it."""
    whole = sum(sum(column.values()) for column in columns)
    rows = []
    for name in names:
        values = [column.get(name, 0.0) for column in columns]
        if any(values):
            rows.append([name, *map(_us, values), _us(sum(values)), _share(sum(values), whole)])
    sums = [sum(column.values()) for column in columns]
    rows.append(["**sum**", *map(_us, sums), _us(whole), _share(whole, whole)])
    return table([first, *(process.title for process in found.processes), "all", "share"], [*rows, *bottom])


def counts_table(found: Slice) -> str:
    """Return bytes and events for each operation."""
    names = dict.fromkeys(name for process in found.processes for name in process.counts)
    rows = []
    for name in names:
        shown = _number_of(name)
        values = [process.counts.get(name) for process in found.processes]
        rows.append([name, *("" if value is None else shown(value / found.counted) for value in values)])
    return table(["for each operation", *(process.title for process in found.processes)], rows)


def _number_of(name: str) -> Callable[[float], str]:
    """Bytes are whole numbers, events may be few for each operation."""
    return (lambda value: f"{value:,.0f}") if "bytes" in name else (lambda value: f"{value:.3f}")


def ceilings_text(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of ceilings: the result of `benchmarks.ceilings`."""
    rows = [
        [
            work,
            f"{metrics['per_s']:,.0f}",
            _us(1e6 / metrics["per_s"]),
            f"{metrics['p50_ms']:.3f}" if "p50_ms" in metrics else "",
            f"{metrics['p99_ms']:.3f}" if "p99_ms" in metrics else "",
        ]
        for work, metrics in found.items()
    ]
    return "### Ceilings\n\n" + table(["ceiling", "a second", "µs each", "p50 ms", "p99 ms"], rows) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [list(head), ["---", *("---:" for _ in head[1:])], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _us(value: float) -> str:
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


def _share(value: float, whole: float) -> str:
    return f"{100 * value / whole:.1f} %" if whole else ""
