"""The way of one request as spans, and the drawing of it. Pure.

A trace has steps of several components, each with times since that component received the request, on its own
node's clock. Clocks of two nodes are not compared. Instead spans are nested: a component's work lies inside the time
that its caller waited for it, and is drawn in the middle of that, as if the way there and back took equally long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kv.v1 import kv_pb2

BAR_CHARS: Final = 40
"""The width of the drawing."""

ROUTER: Final = "router"
_INDENT: Final = "  "


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, microseconds after its component received the request."""

    name: str
    at_us: int
    detail: str


@dataclass(frozen=True, slots=True)
class Span:
    """What one component of one node did, in the order of its clock."""

    component: str
    node: str
    steps: tuple[Step, ...]

    @property
    def took_us(self) -> int:
        """From its receipt to its last step."""
        return max((step.at_us for step in self.steps), default=0)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: from when to when on the caller's clock, in microseconds; a span's own line has no step."""

    depth: int
    who: str
    step: str
    detail: str
    at_us: int | None
    begin_us: float
    end_us: float


def spans_of(trace: Iterable[kv_pb2.TraceStep]) -> tuple[Span, ...]:
    """Return the spans of a trace, the routers' first: they waited for the others."""
    found: dict[tuple[str, str], list[Step]] = {}
    for one in trace:
        found.setdefault((one.component, one.node), []).append(Step(one.step, one.at_us, one.detail))
    spans = (
        Span(component, node, tuple(sorted(steps, key=lambda step: step.at_us)))
        for (component, node), steps in found.items()
    )
    return tuple(sorted(spans, key=lambda span: span.component != ROUTER))


def rows_of(spans: Sequence[Span], total_us: int) -> list[Row]:
    """Return the lines: the caller, which waited `total_us`, then each span with its steps inside its caller's."""
    rows = [Row(0, "client", "", "", None, 0.0, float(total_us))]
    routers = [span for span in spans if span.component == ROUTER]
    inner = [span for span in spans if span.component != ROUTER]
    if not routers:
        for span in inner:
            rows += _rows(span, 1, 0.0, float(total_us))
        return rows
    first, *others = routers
    begin = _centred(first.took_us, 0.0, float(total_us))
    rows += _rows(first, 1, 0.0, float(total_us))
    for span in (*others, *inner):
        rows += _rows(span, 2, *_waited(first, span.node, begin))
    return rows


def _waited(router: Span, node: str, begin: float) -> tuple[float, float]:
    """Return from when to when the router waited for `node`; all of its time if it does not say."""
    sent = [step.at_us for step in router.steps if step.name == "sent" and _names(step, node)]
    answered = [step.at_us for step in router.steps if step.name == "answered" and _names(step, node)]
    low = min(sent, default=0)
    high = max(answered, default=router.took_us)
    return begin + low, begin + max(low, high)


def _names(step: Step, node: str) -> bool:
    return step.detail.split(" ", 1)[0] == node


def _rows(span: Span, depth: int, low: float, high: float) -> list[Row]:
    """Return the line of a span, in the middle of from `low` to `high`, and a line for each step since the one before."""
    begin = _centred(span.took_us, low, high)
    rows = [Row(depth, f"{span.component} {span.node}", "", "", None, begin, begin + span.took_us)]
    before = 0
    for step in span.steps:
        rows.append(
            Row(depth + 1, "", step.name, step.detail, step.at_us, begin + before, begin + step.at_us)
        )
        before = step.at_us
    return rows


def _centred(took: float, low: float, high: float) -> float:
    """Return where something that took so long begins in the middle of the two, not before `low`."""
    return low + max(0.0, (high - low - took) / 2)


def cells(
    rows: Sequence[Row], *, bar: str = "#", chars: int = BAR_CHARS
) -> list[tuple[str, str, str, str, str]]:
    """Return the table: who, step, detail, time since receipt, and the drawing in proportion."""
    end = max((row.end_us for row in rows), default=0.0)
    return [
        (
            f"{_INDENT * row.depth}{row.who}" if row.who else "",
            row.step,
            row.detail,
            show_us(row.end_us - row.begin_us if row.at_us is None else row.at_us),
            _bar(row, end, bar, chars),
        )
        for row in rows
    ]


def _bar(row: Row, end_us: float, bar: str, chars: int) -> str:
    """Return the drawing of a row: blanks, then at least one mark; never wider than `chars`."""
    if end_us <= 0:
        return bar
    first = min(chars - 1, int(row.begin_us / end_us * chars))
    after = min(chars, max(first + 1, round(row.end_us / end_us * chars)))
    return " " * first + bar * (after - first)


def show_us(microseconds: float) -> str:
    """Return a time in milliseconds with its microseconds."""
    return f"{microseconds / 1000:.3f} ms"


def confirmations(spans: Sequence[Span], step: str) -> str:
    """Return which peers took part in a step and when, such as "n2 (0.412 ms), n3 (0.530 ms)"; empty if none did."""
    found: dict[str, int] = {}
    for span in spans:
        for one in span.steps:
            if one.name == step:
                found.setdefault(one.detail or span.node, one.at_us)
    return ", ".join(f"{who} ({show_us(at)})" for who, at in found.items())


def span_fields(spans: Sequence[Span]) -> list[dict[str, object]]:
    """Return the spans as JSON."""
    return [
        {
            "component": span.component,
            "node": span.node,
            "steps": [{"step": one.name, "at_us": one.at_us, "detail": one.detail} for one in span.steps],
        }
        for span in spans
    ]
