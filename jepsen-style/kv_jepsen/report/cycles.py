"""What the cycle checker found, drawn: the transactions of each cycle in a ring, and each edge in words.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from kv_jepsen.elle import Anomaly, ElleResult, Txn, describe
from kv_jepsen.report.markup import Markup, badge, join, tag

PER_KIND_MAX: Final = 3
"""Anomalies shown of each name."""


def cycles(result: ElleResult, txns: Sequence[Txn]) -> Markup:
    """The verdict, the models ruled out, and examples of each anomaly."""
    shown: list[Markup] = []
    for name, count in result.counts().items():
        shown.append(tag("h3", None, f"{name} ({count})"))
        some = [anomaly for anomaly in result.anomalies if anomaly.name == name][:PER_KIND_MAX]
        shown += [_anomaly(anomaly, txns) for anomaly in some]
    ruled_out = ", ".join(result.weakest_ruled_out)
    return tag(
        "section",
        None,
        tag("p", None, badge(result.valid), f" {result.model}, from {result.txns} transactions"
            f" and {result.dependencies} dependencies."),
        tag("p", None, f"Ruled out: {ruled_out}, and everything stronger.") if ruled_out else None,
        *shown,
    )  # fmt: skip


def _anomaly(anomaly: Anomaly, txns: Sequence[Txn]) -> Markup:
    names = tag(
        "ul",
        {"class": "small"},
        *(tag("li", None, tag("code", None, describe(txns[i]))) for i in _distinct(anomaly)),
    )
    if not anomaly.steps:
        return tag("div", None, tag("p", None, anomaly.sentence), names)
    steps = [
        tag(
            "li",
            None,
            tag("span", {"class": "kind"}, step.kind.value),
            f"T{step.source} → T{step.target}: {step.because}",
        )
        for step in anomaly.steps
    ]
    last = tag("p", None, f"So T{anomaly.steps[0].source} would have to come before itself.")
    chain = tag("ol", {"class": "chain"}, *steps)
    return tag("div", None, tag("div", {"class": "pair"}, _ring(anomaly), chain), last, names)


def _distinct(anomaly: Anomaly) -> list[int]:
    return list(dict.fromkeys(anomaly.txns))


def _ring(anomaly: Anomaly) -> Markup:
    """The transactions on a circle, the edges as arrows with their kinds."""
    nodes = _distinct(anomaly)
    radius = 60.0 + 8 * len(nodes)
    wide, tall = 2 * radius + 60, 1.2 * radius + 70
    at = {
        node: (
            wide / 2 - radius * math.cos(2 * math.pi * i / len(nodes)),
            tall / 2 - 0.6 * radius * math.sin(2 * math.pi * i / len(nodes)),
        )
        for i, node in enumerate(nodes)
    }
    arrow = {"id": "arrow", "viewBox": "0 0 8 8", "refX": 7, "refY": 4, "markerWidth": 7, "markerHeight": 7}
    head = tag("path", {"d": "M0 0L8 4L0 8z", "class": "point"})
    marker = tag("defs", None, tag("marker", {**arrow, "orient": "auto"}, head))
    edges = [_edge(at[step.source], at[step.target], step.kind.value) for step in anomaly.steps]
    circles = [_node(x, y, f"T{node}") for node, (x, y) in at.items()]
    view = {"viewBox": f"0 0 {wide:.0f} {tall:.0f}", "width": f"{wide:.0f}", "height": f"{tall:.0f}"}
    told = {**view, "role": "img", "aria-label": anomaly.sentence}
    return tag("svg", told, marker, join(edges), join(circles))


def _edge(source: tuple[float, float], target: tuple[float, float], kind: str) -> Markup:
    """A bent arrow, so that the two edges between two nodes do not cover each other."""
    (x1, y1), (x2, y2) = source, target
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    across = ((y2 - y1) / length, -(x2 - x1) / length)
    mx, my = (x1 + x2) / 2 + 26 * across[0], (y1 + y2) / 2 + 26 * across[1]
    # The arrow ends at the rim of the node, which has a radius of 18.
    back = math.hypot(x2 - mx, y2 - my) or 1.0
    ex, ey = x2 - (x2 - mx) / back * 20, y2 - (y2 - my) / back * 20
    curve = {
        "d": f"M{x1:.1f} {y1:.1f}Q{mx:.1f} {my:.1f} {ex:.1f} {ey:.1f}",
        "class": "path",
        "marker-end": "url(#arrow)",
    }
    at = {"x": f"{mx + 6 * across[0]:.1f}", "y": f"{my + 6 * across[1] + 4:.1f}", "text-anchor": "middle"}
    return join([tag("path", curve), tag("text", at, kind)])


def _node(x: float, y: float, name: str) -> Markup:
    circle = tag("circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": 18, "class": "f-ok"})
    words = tag("text", {"x": f"{x:.1f}", "y": f"{y + 4:.1f}", "text-anchor": "middle", "class": "in"}, name)
    return join([circle, words])
