"""Line plots in SVG: scales, ticks, curves. Pure; what is plotted is up to the caller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from kv.bench.markup import Markup, tag

LEFT, RIGHT, TOP, BOTTOM = 60.0, 14.0, 12.0, 36.0
"""Room around the plot, in pixels."""

Point: TypeAlias = tuple[float, float | None]
"""A place and a value; None interrupts the curve."""

Tick: TypeAlias = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot."""

    name: str
    colour: int
    """Which of the colours of the page, from 0."""
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Frame:
    """The area of a plot: a linear scale to the right, a linear or logarithmic one upwards."""

    end: float
    low: float
    high: float
    log: bool = False
    width: float = 720.0
    height: float = 260.0

    def x(self, at: float) -> float:
        """Return where a place is, in pixels."""
        return round(LEFT + (self.width - LEFT - RIGHT) * min(max(at / self.end, 0.0), 1.0), 1)

    def y(self, value: float) -> float:
        """Return where a value is, in pixels; below the lowest it is at the lowest."""
        value = max(value, self.low)
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return round(self.height - BOTTOM - (self.height - TOP - BOTTOM) * part, 1)

    def draw(self, label: str, units: tuple[str, str], across: Sequence[Tick], *inside: object) -> Markup:
        """Return the plot; `label` tells it to those who do not see it, `units` are those of x and y."""
        view = {"viewBox": f"0 0 {self.width:g} {self.height:g}", "role": "img", "aria-label": label}
        axes = [self._level(at, f"{at:g}") for at in self._levels()]
        axes += [self._place(at, name) for at, name in across]
        axes.append(words(self.width - RIGHT, self.height - 4, units[0], "end"))
        axes.append(words(4, self.height - 4, units[1], "start"))
        return tag("div", {"class": "plot"}, tag("svg", view, *axes, *inside))

    def _levels(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high, 5)
        first, last = (round(math.log10(end)) for end in (self.low, self.high))
        return [10.0**power for power in range(first, last + 1)]

    def _level(self, at: float, name: str) -> Markup:
        y = self.y(at)
        return Markup(line(LEFT, y, self.width - RIGHT, y) + words(LEFT - 6, y + 4, name, "end"))

    def _place(self, at: float, name: str) -> Markup:
        x, foot = self.x(at), self.height - BOTTOM
        return Markup(line(x, foot, x, foot + 4) + words(x, foot + 17, name, "middle"))

    def curve(self, curve: Curve) -> Markup:
        """Return a curve; what is at the same pixel is drawn once, a lone point as a dot."""
        parts: list[str] = []
        last: tuple[float, float] | None = None
        for at, value in curve.points:
            if value is None:
                last = None
                continue
            here = (self.x(at), self.y(value))
            if here != last:
                parts.append(f"{'M' if last is None else 'L'}{here[0]:g} {here[1]:g}")
                if last is None:
                    parts.append("h0")
            last = here
        return tag(
            "path", {"class": f"curve c{curve.colour}", "d": "".join(parts)}, tag("title", None, curve.name)
        )

    def mark(self, at: float, name: str) -> Markup:
        """Return an upright line with a word."""
        x = self.x(at)
        return Markup(
            line(x, TOP, x, self.height - BOTTOM, "mark") + words(x - 4, TOP + 10, name, "end", "soft")
        )


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about so many round values from `low` to `high`."""
    rough = (high - low) / count
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 9) for place in range(first, last + 1)]


def decades(low: float, high: float) -> tuple[float, float]:
    """Return whole powers of ten around a range of positive values, at least one apart."""
    first = math.floor(math.log10(low))
    return 10.0**first, 10.0 ** max(math.ceil(math.log10(high)), first + 1)


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> Markup:
    """Return a straight line."""
    return tag("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def words(x: float, y: float, text: str, anchor: str, kind: str = "soft") -> Markup:
    """Return text at a place; `anchor` start, middle or end."""
    return tag("text", {"x": x, "y": y, "text-anchor": anchor, "class": kind}, text)


def legend(curves: Sequence[Curve]) -> Markup:
    """Return which colour is which curve."""
    return tag(
        "p",
        {"class": "legend"},
        *(tag("span", None, tag("i", {"class": f"b{curve.colour}"}), curve.name) for curve in curves),
    )


COLOURS: Final = 6
"""Curves that the page can tell apart by colour; of more the colours repeat."""
