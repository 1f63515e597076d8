"""The lab of one partition: who saw what while the leader was cut off, as a timeline in text. Pure.

A lane for each read level and for the writes, on each side of the cut; a cell for each half second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kv_jepsen.checkers.evidence import is_read, level
from kv_jepsen.checkers.staleness import ages
from kv_jepsen.history import Call, Value
from kv_jepsen.report import Run
from kv_jepsen.report.markup import Markup, tag
from kv_jepsen.report.template import page

CELL_NS: Final = 500_000_000

FRESH, STALE, REFUSED, WAITING, NOTHING = "=", "s", "x", ".", " "
WRITES: Final = "writes"
LEGEND: Final = (
    f"{FRESH} answered, nothing newer was acknowledged before it was asked   {STALE} answered with an older value\n"
    f"{REFUSED} refused, or its outcome is unknown   {WAITING} asked and still waiting\n"
)
_WORST: Final = (STALE, REFUSED, FRESH, WAITING, NOTHING)
"""Of what happened in one cell the first is shown."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One line: who, and a sign for each half second."""

    name: str
    cells: str
    worst_stale_ns: int = 0


def lanes(run: Run, nodes: Sequence[str]) -> list[Lane]:
    """The lanes of a run of `watchers.Watchers`: writes, then each level, at the isolated node and at the others.

    Args:
        run: judged, so that it has its fault periods.
        nodes: of the cluster; process p belongs to node `p % len(nodes)`.
    """
    alone = isolated(run)
    calls = run.history.calls
    stale = {age.read.id: age.stale_ns for age in ages(calls) if age.stale_ns > 0}
    until = max((call.end_ns or call.start_ns for call in calls), default=0)
    by_side: dict[tuple[str, bool], list[Call]] = {}
    for call in calls:
        if isinstance(call.process, int):
            name = level(call) if is_read(call) else WRITES
            by_side.setdefault((name, nodes[call.process % len(nodes)] == alone), []).append(call)
    order = [WRITES, *(one.partition(":")[0] for one in run.facts.get("levels", "").split(", "))]
    found: list[Lane] = []
    for name in [*order, *sorted({name for name, _ in by_side} - {*order})]:
        for inside in (True, False):
            part = by_side.get((name, inside), [])
            where = f"at {alone}, cut off" if inside else "at the others"
            worst = max((stale.get(call.id, 0) for call in part), default=0)
            found += [Lane(f"{name} {where}", _cells(part, stale, until), worst)] if part else []
    return found


def isolated(run: Run) -> str:
    """The node that was cut off; empty if none was."""
    return next((p.target.partition("/")[0] for p in run.faults if p.kind == "partition"), "")


def _cells(calls: Iterable[Call], stale: Mapping[int, int], until_ns: int) -> str:
    seen: list[set[Value]] = [set() for _ in range(until_ns // CELL_NS + 1)]
    for call in calls:
        end = until_ns if call.end_ns is None else call.end_ns
        for cell in range(call.start_ns // CELL_NS, end // CELL_NS):
            seen[cell].add(WAITING)
        seen[end // CELL_NS].add(_sign(call, stale))
    return "".join(next(sign for sign in _WORST if sign in cell or sign == NOTHING) for cell in seen)


def _sign(call: Call, stale: Mapping[int, int]) -> str:
    if not call.ok:
        return REFUSED
    return STALE if call.id in stale else FRESH


def timeline_text(run: Run, found: Sequence[Lane]) -> str:
    """The timeline, with the faults above it and its legend below."""
    wide = max(len(lane.name) for lane in found)
    length = max(len(lane.cells) for lane in found)
    seconds = "".join(f"{second:<10}" for second in range(0, length // 2 + 1, 5))[:length]
    lines = [f"{'seconds':<{wide}}  {seconds}", f"{'cut':<{wide}}  {_cut(run, length)}"]
    for lane in found:
        worst = f"  up to {lane.worst_stale_ns / 1e6:.0f} ms stale" if lane.worst_stale_ns else ""
        lines.append(f"{lane.name:<{wide}}  {lane.cells:<{length}}{worst}".rstrip())
    return "\n".join([*lines, "", LEGEND])


def _cut(run: Run, length: int) -> str:
    """Where the leader was cut off."""
    cells = [" "] * length
    for period in run.faults:
        end = length if period.end_ns is None else min(length, period.end_ns // CELL_NS + 1)
        for cell in range(period.start_ns // CELL_NS, end):
            cells[cell] = "#"
    return "".join(cells)


def timeline_page(run: Run, text: str) -> str:
    """The same as a page."""
    facts = " · ".join(f"{name} {value}" for name, value in run.facts.items())
    parts: list[Markup] = [
        tag("h1", None, "One partition: what each read level and a write saw"),
        tag("p", {"class": "soft small"}, facts),
        tag("p", None, tag("a", {"href": "report.html"}, "the whole run"), ", with its plots"),
        tag("pre", None, text),
    ]
    return page("One partition", *parts)
