"""Plots over time: latency of each call, its quantiles, the rate; and the histogram of staleness.

Pure. Faults are shaded in each plot over time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kv_jepsen.checkers.staleness import BUCKETS_MS, Histogram
from kv_jepsen.history import Call, Outcome
from kv_jepsen.periods import Period
from kv_jepsen.report.axes import Frame, decades, fault_classes, label_at, line
from kv_jepsen.report.markup import Markup, join, tag

POINTS_MAX: Final = 20_000
"""Calls drawn in one plot of latencies; of more every so-many-th of those that succeeded, and all others."""

WINDOWS: Final = 80
"""Parts of the run for which quantiles and rates are computed."""

QUANTILES: Final = (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99), ("maximum", 1.0))

LATENCY_MIN_MS: Final = 0.01
"""Shorter ones are drawn here, since a logarithm has no zero."""


def end_s(calls: Iterable[Call], periods: Iterable[Period] = ()) -> float:
    """The end of the run in seconds: of its last call or fault, at least a millisecond."""
    ends = [call.end_ns or call.start_ns for call in calls]
    ends += [period.end_ns or period.start_ns for period in periods]
    return max([*ends, 1_000_000]) / 1e9


def latency_points(calls: Sequence[Call], periods: Sequence[Period], until_s: float) -> Markup:
    """Each completed call as a dot: when it began, how long it took, how it ended."""
    shown = thinned([call for call in calls if call.end_ns is not None])
    if not shown:
        return tag("p", {"class": "soft"}, "No call completed.")
    frame = _latency_frame([_latency_ms(call) for call in shown], until_s)
    dots = [
        tag(
            "path",
            {
                "class": f"dots s-{outcome}",
                "d": "".join(_dot(frame, c) for c in shown if c.outcome is outcome),
            },
        )
        for outcome in Outcome
        if any(call.outcome is outcome for call in shown)
    ]
    return frame.draw("ms", "latency of each call over time", frame.shade(periods), *dots)


def thinned(calls: Sequence[Call]) -> list[Call]:
    """At most about `POINTS_MAX` calls: all that did not succeed come first, of the others every so-many-th."""
    fine = [call for call in calls if call.ok]
    rest = [call for call in calls if not call.ok][:POINTS_MAX]
    step = max(1, math.ceil(len(fine) / max(1, POINTS_MAX - len(rest))))
    return [*fine[::step], *rest]


def _latency_ms(call: Call) -> float:
    assert call.end_ns is not None, "asked for completed calls only"
    return max((call.end_ns - call.start_ns) / 1e6, LATENCY_MIN_MS)


def _latency_frame(latencies: Sequence[float], until_s: float) -> Frame:
    low, high = decades(min(latencies), max(latencies))
    return Frame(until_s, low, high, log=True)


def _dot(frame: Frame, call: Call) -> str:
    return f"M{frame.x(call.start_ns / 1e9):g} {frame.y(_latency_ms(call)):g}h0"


def latency_quantiles(calls: Sequence[Call], periods: Sequence[Period], until_s: float) -> Markup:
    """Quantiles of the latency of successful calls, for each part of the run."""
    windows: list[list[float]] = [[] for _ in range(WINDOWS)]
    for call in calls:
        if call.ok and call.end_ns is not None:
            windows[_window(call.start_ns / 1e9, until_s)].append(_latency_ms(call))
    every = [value for window in windows for value in window]
    if not every:
        return tag("p", {"class": "soft"}, "No call succeeded.")
    frame = _latency_frame(every, until_s)
    curves = []
    for place, (_, part) in enumerate(QUANTILES):
        points = [
            (_middle(i, until_s), _quantile(window, part)) for i, window in enumerate(windows) if window
        ]
        curves.append(_curve(frame, points, f"curve s-l{place}"))
    return frame.draw("ms", "quantiles of latency over time", frame.shade(periods), *curves)


def _quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def _window(at_s: float, until_s: float) -> int:
    return min(WINDOWS - 1, int(at_s / until_s * WINDOWS))


def _middle(window: int, until_s: float) -> float:
    return (window + 0.5) * until_s / WINDOWS


def _curve(frame: Frame, points: Iterable[tuple[float, float]], kind: str) -> Markup:
    path = " ".join(f"{frame.x(at_s):g},{frame.y(value):g}" for at_s, value in points)
    return tag("polyline", {"class": kind, "points": path})


def rates(calls: Sequence[Call], periods: Sequence[Period], until_s: float) -> Markup:
    """Completions a second, by outcome."""
    counts = {outcome: [0] * WINDOWS for outcome in Outcome}
    for call in calls:
        counts[call.outcome][_window((call.end_ns or call.start_ns) / 1e9, until_s)] += 1
    per_s = WINDOWS / until_s
    top = max(max(window) for window in counts.values()) * per_s
    frame = Frame(until_s, 0.0, max(top, 1.0))
    curves = [
        _curve(frame, [(_middle(i, until_s), n * per_s) for i, n in enumerate(window)], f"curve s-{outcome}")
        for outcome, window in counts.items()
        if any(window)
    ]
    return frame.draw("calls a second", "rate of calls over time by outcome", frame.shade(periods), *curves)


def outcome_legend() -> Markup:
    """Which colour is which outcome."""
    return _legend([(f"var(--{outcome})", outcome.value) for outcome in Outcome])


def quantile_legend() -> Markup:
    """Which colour is which quantile."""
    return _legend([(f"var(--l{place})", name) for place, (name, _) in enumerate(QUANTILES)])


def fault_legend(periods: Sequence[Period]) -> Markup | None:
    """Which colour is which kind of fault; None without faults."""
    kinds = fault_classes(periods)
    return _legend([(f"var(--{colour})", kind) for kind, colour in kinds.items()]) if kinds else None


def _legend(entries: Iterable[tuple[str, str]]) -> Markup:
    items = (tag("span", None, tag("i", {"style": f"background:{colour}"}), name) for colour, name in entries)
    return tag("p", {"class": "legend small"}, *items)


def staleness_bars(histograms: Mapping[str, Histogram]) -> Markup:
    """One row of bars for each read level: reads by how old what they returned was; heights are logarithms of counts."""
    row, left, slot = 110.0, 100.0, 38.0
    width, height = left + slot * (len(BUCKETS_MS) + 1) + 12, row * len(histograms) + 34
    parts: list[Markup] = []
    for place, (level, counts) in enumerate(histograms.items()):
        parts += _bars(level, counts, top=place * row, row=row, left=left, slot=slot)
        parts.append(line(left, (place + 1) * row, width - 12, (place + 1) * row, "axis"))
    names = [*(f"{end:g}" if end < 1000 else f"{end // 1000}s" for end in BUCKETS_MS), "more"]
    for i, name in enumerate(names):
        parts.append(label_at(left + slot * (i + 0.5), height - 18, name, "middle"))
    parts.append(label_at(width - 12, height - 4, "staleness up to so many ms", "end"))
    view = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "width": f"{width:g}",
        "height": f"{height:g}",
        "role": "img",
        "aria-label": "staleness of reads by level",
    }
    return tag("div", {"class": "plot long"}, tag("svg", view, join(parts)))


def _bars(level: str, counts: Histogram, *, top: float, row: float, left: float, slot: float) -> list[Markup]:
    high = math.log10(1 + max(counts))
    parts = [label_at(6, top + 22, level, "start", "level"), label_at(6, top + 38, f"{sum(counts)}", "start")]
    for i, count in enumerate(counts):
        if count:
            tall = round((row - 40) * math.log10(1 + count) / high, 1)
            place = {"x": left + slot * i + 4, "y": top + row - tall, "width": slot - 8, "height": tall}
            parts.append(tag("rect", {**place, "class": "f-ok" if i == 0 else "f-unknown"}))
            parts.append(label_at(left + slot * (i + 0.5), top + row - tall - 4, count, "middle"))
    return parts
