"""The timeline: each call as a bar on the lane of its process.

Pure. Of a long history the part around the first violation is drawn, else its beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from kv_jepsen.checkers.evidence import is_read
from kv_jepsen.history import Call, Outcome, Process
from kv_jepsen.report.axes import label_at
from kv_jepsen.report.markup import Markup, join, short, tag

CALLS_MAX: Final = 1_500
"""Calls drawn; a browser shows so many at ease."""

LANE, BAR, LEFT = 24.0, 18.0, 64.0
"""Height of a lane and of a bar, room for names; pixels."""

WIDTH_MIN, WIDTH_MAX = 680.0, 16_000.0
CALL_WIDTH: Final = 56.0
"""Pixels for each call on a lane, on average: with fewer their words do not fit."""


def part_to_draw(calls: Sequence[Call], suspects: Collection[int]) -> tuple[Call, ...]:
    """At most `CALLS_MAX` calls: around the first suspect, with as many before as after; else the first."""
    if len(calls) <= CALLS_MAX:
        return tuple(calls)
    place = next((i for i, call in enumerate(calls) if call.id in suspects), 0)
    first = max(0, min(place - CALLS_MAX // 2, len(calls) - CALLS_MAX))
    return tuple(calls[first : first + CALLS_MAX])


def timeline(calls: Sequence[Call], suspects: Collection[int] = ()) -> Markup:
    """The calls, by time where the history has times, else by order; suspects are outlined."""
    if not calls:
        return tag("p", {"class": "soft"}, "There are no calls.")
    rows = lanes(calls)
    spans = _spans(calls, rows, by_time=any(call.end_ns for call in calls))
    first, last = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
    width = min(max(WIDTH_MIN, len(calls) / (max(rows.values()) + 1) * CALL_WIDTH), WIDTH_MAX)
    scale = (width - LEFT - 10) / max(last - first, 1)
    bars: list[Markup] = [_lane_names(rows)]
    for call in calls:
        start, end = spans[call.id]
        left, wide = LEFT + (start - first) * scale, max((end - start) * scale, 3.0)
        bars.append(_bar(call, left, wide, rows[call.process], suspect=call.id in suspects))
    height = (max(rows.values()) + 1) * LANE + 8
    view = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    drawing = tag("svg", {**view, "role": "img", "aria-label": "calls of each process over time"}, join(bars))
    return tag("div", {"class": "plot long"}, drawing)


def _spans(
    calls: Sequence[Call], rows: Mapping[Process, int], *, by_time: bool
) -> dict[int, tuple[int, int]]:
    """Start and end of each call; one that was never heard of again ends where its lane has the next, or at the end."""
    starts = {call.id: call.start_ns if by_time else call.start for call in calls}
    ends = {call.id: _end(call, by_time) for call in calls}
    last = max([*starts.values(), *(end for end in ends.values() if end is not None)])
    following: dict[int, int] = {}
    spans: dict[int, tuple[int, int]] = {}
    for call in sorted(calls, key=lambda c: c.start, reverse=True):
        lane, end = rows[call.process], ends[call.id]
        spans[call.id] = (starts[call.id], following.get(lane, last) if end is None else end)
        following[lane] = starts[call.id]
    return spans


def _end(call: Call, by_time: bool) -> int | None:
    if by_time:
        return call.end_ns
    return None if call.outcome is Outcome.UNKNOWN else call.end


def lanes(calls: Sequence[Call], *, keep_open: bool = False) -> dict[Process, int]:
    """A lane for each process; one that begins after another's last call takes its place, as Jepsen's do.

    With `keep_open` a call of unknown outcome occupies its lane to the end.
    """
    spans: dict[Process, tuple[int, int]] = {}
    for call in calls:
        start = spans.get(call.process, (call.start, 0))[0]
        # A call of unknown outcome ends the process, and its bar is drawn to where nothing else follows.
        ended = call.outcome is not Outcome.UNKNOWN or keep_open
        spans[call.process] = (start, call.end if ended else call.start)
    rows: dict[Process, int] = {}
    free_from: list[int] = []
    for process, (start, end) in sorted(spans.items(), key=lambda item: item[1][0]):
        lane = next((i for i, free in enumerate(free_from) if free < start), len(free_from))
        free_from[lane : lane + 1] = [end]
        rows[process] = lane
    return rows


def _lane_names(rows: Mapping[Process, int]) -> Markup:
    """Each lane by its first process."""
    names: dict[int, Process] = {}
    for process, lane in rows.items():
        names.setdefault(lane, process)
    return join(label_at(4, lane * LANE + 19, f"p {short(name, 6)}", "start") for lane, name in names.items())


def _bar(call: Call, left: float, width: float, lane: int, *, suspect: bool) -> Markup:
    kinds = [
        "call",
        f"f-{call.outcome}",
        "blocked" if suspect else "",
        "open" if call.outcome is Outcome.UNKNOWN else "",
    ]
    place = {"x": round(left, 1), "y": lane * LANE + 6, "width": round(width, 1), "height": BAR, "rx": 3}
    words = label(call)
    room = int(width / 7)
    inner = None
    if room >= 3:
        at = {"x": round(left + 4, 1), "y": lane * LANE + 19, "class": "in"}
        inner = tag("text", at, short(words, room))
    rect = tag("rect", {**place, "class": " ".join(filter(None, kinds))})
    return tag("g", {"id": f"op-{call.id}"}, tag("title", None, describe(call)), rect, inner)


def label(call: Call) -> str:
    """The call in a few words: function, argument, result."""
    if call.f == "cas" and isinstance(call.input, tuple) and len(call.input) == 2:
        expected, new = map(short, call.input)
        return f"cas {expected}→{new}{' refused' if call.output is False else ''}"
    asked = "" if call.input is None else f" {short(call.input)}"
    if call.ok and is_read(call):
        return f"{call.f}{asked} → {short(call.output)}"
    answered = "" if call.output is None or call.output == call.input else f" → {short(call.output)}"
    return f"{call.f}{asked}{answered}"


def describe(call: Call) -> str:
    """The call with all that is known of it."""
    key = "" if call.key is None else f" of {short(call.key)}"
    took = "" if call.end_ns is None else f", {(call.end_ns - call.start_ns) / 1e6:.3f} ms"
    evidence = "".join(f", {name} {short(value)}" for name, value in call.extra.items())
    why = f", {call.error}" if call.error else ""
    at = f"at {call.start_ns / 1e9:.3f} s"
    return f"operation {call.id}, process {call.process}: {label(call)}{key}, {call.outcome}{why}, {at}{took}{evidence}"
