"""The plots of the page, as inline SVG. Pure.

One kind for the rows: a line for each work, a dot for each round, a bar at the median. One for the goals: how far beyond
its bound each is. One over time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.goals import Judgement, Verdict
from benchmarks.report.figures import Line, margin, number
from benchmarks.stats import median
from kv_jepsen.report.markup import Markup, tag

WIDTH: Final = 880
LEFT: Final = 310
RIGHT: Final = 90
LINE: Final = 26
TOP: Final = 8
BOTTOM: Final = 30
TICKS: Final = 5
LABEL_CHARS_MAX: Final = 46
SYSTEM_CLASSES: Final = ("s0", "s1", "s2", "s3")
SERIES_HEIGHT: Final = 220
SERIES_POINTS_MAX: Final = 600
MARGIN_SPAN_MIN: Final = 2.0
MARGIN_MAX: Final = 1000.0
"""A goal that is further beyond its bound is drawn here: a logarithm has no infinity."""


def strip(lines: Sequence[Line], unit: str, title: str) -> Markup:
    """Return the dots of each line of a row, from zero."""
    shown = [line for line in lines if line.values]
    top = nice(max((max(line.values) for line in shown), default=1.0))
    systems = list(dict.fromkeys(line.system for line in shown))
    parts = axis(len(shown), [(top * n / TICKS, n / TICKS) for n in range(TICKS + 1)], unit)
    for place, line in enumerate(shown):
        kind = SYSTEM_CLASSES[systems.index(line.system) % len(SYSTEM_CLASSES)]
        y, middle = _y(place), median(line.values)
        parts.append(_label(y, f"{line.system}: {line.work}"))
        parts.append(_rect(LEFT, y - 7, middle / top * _span(), 14, f"bar {kind}"))
        parts += [_dot(_x(value / top), y, kind) for value in line.values]
        parts.append(_text(_x(max(line.values) / top) + 8, y, number(middle), "value"))
    return svg(len(shown), title, parts)


def goals(judgements: Iterable[Judgement]) -> Markup:
    """Return how far each goal is from its bound, on a logarithmic axis with the bound in the middle."""
    shown = [(j, min(m, MARGIN_MAX)) for j in judgements if (m := margin(j)) is not None]
    reach = max([MARGIN_SPAN_MIN, *(max(m, 1 / m) for _, m in shown if m > 0)])
    span = math.log(reach) * 1.05
    ticks = [(value, 0.5 + math.log(value) / span / 2) for value in _decades(reach)]
    parts = axis(len(shown), ticks, "x")
    parts.append(_vertical(0.5, len(shown), "bound"))
    for place, (judgement, beyond) in enumerate(shown):
        y = _y(place)
        share = 0.5 + math.log(max(beyond, 1 / reach)) / span / 2
        kind = "good" if judgement.verdict is Verdict.MET else "bad"
        parts.append(_label(y, f"{judgement.goal.id}. {judgement.goal.text}"))
        parts.append(_rect(min(_x(0.5), _x(share)), y - 7, abs(share - 0.5) * _span(), 14, f"bar {kind}"))
        parts.append(_text(_x(max(share, 0.5)) + 8, y, f"{number(beyond)} x", "value"))
    return svg(len(shown), "how far beyond its bound each goal is: right of the line it is met", parts)


def series(values: Sequence[float], title: str) -> Markup:
    """Return operations in each second over time."""
    width = max(1, -(-len(values) // SERIES_POINTS_MAX))
    means = [sum(values[n : n + width]) / len(values[n : n + width]) for n in range(0, len(values), width)]
    top = nice(max(means, default=1.0))
    base, left, span = SERIES_HEIGHT - BOTTOM, 80, WIDTH - 100
    step = span / max(len(means) - 1, 1)
    points = " ".join(
        f"{left + n * step:.1f},{base - v / top * (base - TOP):.1f}" for n, v in enumerate(means)
    )
    parts: list[Markup] = []
    for n in range(TICKS + 1):
        y = base - n / TICKS * (base - TOP)
        parts.append(
            tag("line", {"class": "axis", "x1": left, "x2": left + span, "y1": f"{y:.1f}", "y2": f"{y:.1f}"})
        )
        parts.append(_text(left - 8, y, number(top * n / TICKS), "tick end"))
    parts.append(tag("polyline", {"class": "curve", "points": points}))
    parts.append(_text(left + span, SERIES_HEIGHT - 10, f"{len(values)} s", "tick end"))
    attributes = {"viewBox": f"0 0 {WIDTH} {SERIES_HEIGHT}", "role": "img", "aria-label": title}
    return tag("figure", None, tag("svg", attributes, tag("title", None, title), *parts))


def svg(count: int, title: str, parts: Iterable[Markup]) -> Markup:
    """Return the figure of `count` lines."""
    height = TOP + count * LINE + BOTTOM
    attributes = {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": title}
    return tag("figure", None, tag("svg", attributes, tag("title", None, title), *parts))


def axis(count: int, ticks: Iterable[tuple[float, float]], unit: str) -> list[Markup]:
    """Return vertical lines with their values; a tick is a value and its place from 0 to 1."""
    parts = []
    for value, share in ticks:
        parts.append(_vertical(share, count, "axis"))
        text = f"{number(value)}{unit}" if value else "0"
        parts.append(_text(_x(share), TOP + count * LINE + 16, text, "tick middle"))
    return parts


def nice(value: float) -> float:
    """Return a round number at or above `value`: 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)


def _decades(reach: float) -> list[float]:
    """Return what an axis from 1/reach to reach shows: powers of ten, or halves and doubles on a short one."""
    base = 10.0 if reach >= 10 else 2.0
    steps = int(math.log(reach, base) + 1e-9)
    return [base**n for n in range(-steps, steps + 1)]


def _span() -> float:
    return WIDTH - LEFT - RIGHT


def _x(share: float) -> float:
    return LEFT + share * _span()


def _y(place: int) -> float:
    return TOP + place * LINE + LINE / 2


def _vertical(share: float, count: int, kind: str) -> Markup:
    x = f"{_x(share):.1f}"
    return tag("line", {"class": kind, "x1": x, "x2": x, "y1": TOP, "y2": TOP + count * LINE})


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{max(width, 0):.1f}", "height": f"{height:.1f}"}
    return tag("rect", {"class": kind, **place})


def _dot(x: float, y: float, kind: str) -> Markup:
    return tag("circle", {"class": f"dot {kind}", "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3"})


def _label(y: float, text: str) -> Markup:
    shown = text if len(text) <= LABEL_CHARS_MAX else text[: LABEL_CHARS_MAX - 1] + "…"
    return tag("text", {"x": LEFT - 10, "y": f"{y + 4:.1f}", "class": "end"}, tag("title", None, text), shown)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return tag("text", {"x": f"{x:.1f}", "y": f"{y + 4:.1f}", "class": kind}, text)
