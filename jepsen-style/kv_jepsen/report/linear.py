"""The smallest non-linearizable part of a history, drawn with its longest linearizations.

Pure. Each call is a bar on the lane of its process; a linearization is a line that goes through the calls in its order,
each between its start and its end, as far as it comes. The call that no linearization reaches is outlined. Distances
are those of the order of events, not of time, so that nothing is too small to see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kv_jepsen.history import Call, Process
from kv_jepsen.report.axes import label_at
from kv_jepsen.report.markup import Markup, counted, join, short, tag
from kv_jepsen.report.timeline import BAR, LEFT, describe, label, lanes
from kv_jepsen.verdict import Failure, KeyVerdict, Step

PARTIALS_MAX: Final = 4
"""Linearizations drawn; they are of the same length or nearly."""

CALLS_MAX: Final = 200
"""Calls of the window drawn: those begun last, where the contradiction is."""

WIDTH: Final = 1_060.0
EVENT_WIDTH_MIN, EVENT_WIDTH_MAX = 84.0, 110.0
"""Pixels from one event to the next: as many as let the drawing have `WIDTH`, within these bounds."""

ROW: Final = 38.0
"""Height of a lane, with room for the lines below the bar; pixels."""

NAME: Final = 36.0
"""Room for the names of the lanes at the end; pixels."""

LANES_MAX: Final = 24
"""With more processes some share a lane."""

STEPS_MAX: Final = 30
"""Steps listed in words, from the end."""


CONTEXT_MAX: Final = 4
"""Calls drawn that ended before the part begins, to show how the object came to its state."""


def failure(verdict: KeyVerdict, calls: Sequence[Call] = ()) -> Markup:
    """One key that is not linearizable: what cannot be explained, the picture, the linearizations in words.

    `calls` are those of the key; the last ones before the part are drawn faintly.
    """
    assert verdict.failure is not None, "asked for keys with a failure"
    shown = verdict.failure
    window = shown.window[-CALLS_MAX:]
    if shown.blocked not in window:
        window = (*window, shown.blocked)
    name = "The history" if verdict.key is None else f"Key {short(verdict.key)}"
    states = " or ".join(short(state) for state in shown.entry_states[:8])
    said = (
        f"{name} is not linearizable: no order of the calls explains operation {shown.blocked.id}, {label(shown.blocked)}"
        f" by process {shown.blocked.process}. Before the part that shows it the state is {states or 'not known'}."
    )
    hidden = len(shown.window) - len(window)
    cut = f"{hidden} earlier calls of the part are not drawn." if hidden > 0 else None
    return tag(
        "section",
        None,
        tag("p", None, said),
        tag("p", {"class": "soft"}, cut) if cut else None,
        _drawing(window, _before(calls, window), shown),
        *(_in_words(place, steps, shown) for place, steps in enumerate(_longest(shown), start=1)),
    )


def _longest(shown: Failure) -> Sequence[tuple[Step, ...]]:
    return sorted(shown.partials, key=len, reverse=True)[:PARTIALS_MAX]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each call of the window is drawn."""

    places: Mapping[int, tuple[int, int]]
    """Call id to its start and end, counted in events of the window."""
    rows: Mapping[Process, int]
    event_width: float

    def x(self, place: float) -> float:
        return round(LEFT + self.event_width * (place + 0.3), 1)

    def y(self, process: Process) -> float:
        return round(self.rows[process] * ROW + 8, 1)


def _layout(window: Sequence[Call]) -> _Layout:
    """By the order of events; a call that never succeeded may take effect at any time, and ends after all."""
    events = sorted({call.start for call in window} | {call.end for call in window if call.ok})
    place = {event: i for i, event in enumerate(events)}
    places = {call.id: (place[call.start], place[call.end] if call.ok else len(events)) for call in window}
    width = min(max((WIDTH - LEFT) / (len(events) + 1), EVENT_WIDTH_MIN), EVENT_WIDTH_MAX)
    processes = dict.fromkeys(call.process for call in window)
    own = {process: row for row, process in enumerate(processes)}
    return _Layout(places, own if len(own) <= LANES_MAX else lanes(window, keep_open=True), width)


def _before(calls: Sequence[Call], window: Sequence[Call]) -> list[Call]:
    """The last calls that had succeeded before any of the window did."""
    inside = {call.id for call in window}
    first = min(call.end for call in window)
    ended = [call for call in calls if call.ok and call.end < first and call.id not in inside]
    return sorted(ended, key=lambda call: call.end)[-CONTEXT_MAX:]


def _drawing(window: Sequence[Call], context: Sequence[Call], shown: Failure) -> Markup:
    layout = _layout([*context, *window])
    width = layout.x(max(end for _, end in layout.places.values()) + 0.5)
    height = (max(layout.rows.values()) + 1) * ROW + 12
    bars = [_bar(call, layout, "context") for call in context]
    bars += [_bar(call, layout, "blocked" if call == shown.blocked else "") for call in window]
    names = {layout.y(process): process for process in layout.rows}
    # At both ends: what is wider than the screen is seen at its end first.
    words = [
        label_at(x, y + 13, f"p {short(process, 6)}", anchor)
        for x, anchor in ((4, "start"), (width + NAME, "end"))
        for y, process in names.items()
    ]
    paths = [_path(steps, layout, colour) for colour, steps in enumerate(_longest(shown))]
    wide = width + NAME + 4
    view = {"viewBox": f"0 0 {wide:g} {height:g}", "width": f"{wide:g}", "height": f"{height:g}"}
    told = "calls of the part that is not linearizable, and its longest linearizations"
    drawing = tag("svg", {**view, "role": "img", "aria-label": told}, join(words), join(bars), join(paths))
    return tag("div", {"class": "plot long end"}, drawing)


def _bar(call: Call, layout: _Layout, kind: str) -> Markup:
    start, end = layout.places[call.id]
    left, width = layout.x(start), layout.event_width * (end - start) - 4
    kinds = f"call f-{call.outcome} {kind}" + ("" if call.ok else " open")
    place = {"x": left, "y": layout.y(call.process), "width": round(width, 1), "height": BAR, "rx": 3}
    words = short(label(call), max(3, int(width / 7.2)))
    return tag(
        "g",
        None,
        tag("title", None, describe(call)),
        tag("rect", {**place, "class": kinds}),
        label_at(left + 4, layout.y(call.process) + 13, words, "start", "in"),
    )


def _path(steps: Sequence[Step], layout: _Layout, colour: int) -> Markup:
    """A line through the calls of a linearization; each point as early as the order allows."""
    points: list[str] = []
    marks: list[Markup] = []
    at = -1.0
    for step in steps:
        if step.call.id in layout.places:
            start, end = layout.places[step.call.id]
            # Linearizations that agree would hide each other at the same height.
            at = min(max(start + 0.15, at + 0.12), end - 0.1)
            x, y = layout.x(at), round(layout.y(step.call.process) + BAR + 2 + colour * 2.5, 1)
            points.append(f"{x:g},{y:g}")
            told = tag("title", None, f"{label(step.call)} → {step.state}")
            marks.append(tag("circle", {"cx": x, "cy": y, "r": 3, "class": f"f-l{colour}"}, told))
    return join([tag("polyline", {"class": f"curve s-l{colour}", "points": " ".join(points)}), *marks])


def _in_words(place: int, steps: Sequence[Step], shown: Failure) -> Markup:
    first = max(0, len(steps) - STEPS_MAX)
    items = [
        tag("li", None, f"{label(step.call)} (process {step.call.process}) → state {short(step.state)}")
        for step in steps[first:]
    ]
    end = tag("p", None, f"After that operation {shown.blocked.id}, {label(shown.blocked)}, is impossible.")
    listing = (
        tag("ol", {"start": first + 1}, *items)
        if items
        else tag("p", None, "No call of the part fits at all.")
    )
    return tag(
        "details",
        None,
        tag("summary", None, _swatch(place), f"Linearization {place}: {counted(len(steps), 'call')}"),
        listing,
        end,
    )


def _swatch(place: int) -> Markup:
    return tag("i", {"class": "swatch", "style": f"background:var(--l{place - 1})"})
