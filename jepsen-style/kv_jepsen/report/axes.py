"""Scales, ticks and frames of a plot.

Pure. A `Frame` maps values to places in an SVG and draws its axes; what is plotted is up to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kv_jepsen.periods import Period
from kv_jepsen.report.markup import Markup, tag

LEFT, RIGHT, TOP, BOTTOM = 60.0, 12.0, 12.0, 34.0
"""Room around the plot, in pixels."""

FAULT_COLOURS: Final = 4
"""Classes `fault0` and on of the style."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The area of a plot: seconds to the right, a value upwards, linear or logarithmic."""

    end_s: float
    low: float
    high: float
    log: bool = False
    width: float = 900.0
    height: float = 260.0

    def x(self, at_s: float) -> float:
        """Where a time is."""
        return round(LEFT + (self.width - LEFT - RIGHT) * at_s / self.end_s, 1)

    def y(self, value: float) -> float:
        """Where a value is; below the lowest it is at the lowest."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        at = math.log10(max(value, self.low)) if self.log else max(value, self.low)
        return round(self.height - BOTTOM - (self.height - TOP - BOTTOM) * (at - low) / (high - low), 1)

    def draw(self, unit: str, label: str, *inside: object) -> Markup:
        """The plot: axes, and what is inside; `label` tells it to those who do not see it."""
        view = {"viewBox": f"0 0 {self.width:g} {self.height:g}", "role": "img", "aria-label": label}
        return tag("div", {"class": "plot"}, tag("svg", view, self._axes(unit), *inside))

    def _axes(self, unit: str) -> Markup:
        parts: list[Markup] = []
        for value in self._value_ticks():
            y = self.y(value)
            parts.append(line(LEFT, y, self.width - RIGHT, y, "axis"))
            parts.append(label_at(LEFT - 6, y + 4, f"{value:g}", "end"))
        for at_s in ticks(0.0, self.end_s, 10):
            x = self.x(at_s)
            parts.append(line(x, self.height - BOTTOM, x, self.height - BOTTOM + 4, "axis"))
            parts.append(label_at(x, self.height - BOTTOM + 17, f"{at_s:g}", "middle"))
        parts.append(label_at(self.width - RIGHT, self.height - 4, "seconds", "end"))
        parts.append(label_at(4, self.height - 4, unit, "start"))
        return Markup("".join(parts))

    def _value_ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high, 5)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1)]

    def shade(self, periods: Sequence[Period]) -> Markup:
        """The faults, each as a band from its start to its end."""
        colours = fault_classes(periods)
        bands: list[Markup] = []
        for period in periods:
            start = self.x(min(period.start_ns / 1e9, self.end_s))
            end = self.x(self.end_s if period.end_ns is None else min(period.end_ns / 1e9, self.end_s))
            place = {
                "x": start,
                "y": TOP,
                "width": max(end - start, 1.0),
                "height": self.height - TOP - BOTTOM,
            }
            name = tag("title", None, f"{period.kind} {period.target}")
            bands.append(tag("rect", {**place, "class": f"fault {colours[period.kind]}"}, name))
        return Markup("".join(bands))


def fault_classes(periods: Sequence[Period]) -> dict[str, str]:
    """A colour class for each kind of fault, in the order of their first."""
    kinds = list(dict.fromkeys(period.kind for period in periods))
    return {kind: f"fault{place % FAULT_COLOURS}" for place, kind in enumerate(kinds)}


def ticks(low: float, high: float, count: int) -> list[float]:
    """About so many round values from `low` to `high`."""
    rough = (high - low) / max(count, 1)
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 9) for place in range(first, last + 1)]


def decades(low: float, high: float) -> tuple[float, float]:
    """Whole powers of ten around a range, at least one apart."""
    first = math.floor(math.log10(low))
    last = max(math.ceil(math.log10(high)), first + 1)
    return 10.0**first, 10.0**last


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return tag("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def label_at(x: float, y: float, words: object, anchor: str, kind: str = "soft") -> Markup:
    """A word at a place; `anchor` start, middle or end."""
    return tag("text", {"x": x, "y": y, "text-anchor": anchor, "class": kind}, words)
