"""The drawing of a request's way: nested, in proportion, whatever the clocks say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.cli.timeline import BAR_CHARS, cells, confirmations, rows_of, show_us, span_fields, spans_of
from kv.v1 import kv_pb2


def step(component: str, node: str, name: str, at_us: int, detail: str = "") -> kv_pb2.TraceStep:
    """Return one step."""
    return kv_pb2.TraceStep(component=component, node=node, step=name, at_us=at_us, detail=detail)


TRACE = [
    step("leader", "n2", "received", 0),
    step("leader", "n2", "appended", 100, "index 7"),
    step("leader", "n2", "acknowledged", 350, "n3"),
    step("leader", "n2", "synced", 300),
    step("leader", "n2", "acknowledged", 390, "n1"),
    step("leader", "n2", "served", 400),
    step("router", "n1", "received", 0),
    step("router", "n1", "sent", 200, "n2"),
    step("router", "n1", "answered", 800, "n2"),
]


def test_spans_are_in_the_order_of_waiting() -> None:
    """The router comes first, and the steps of each in the order of its clock."""
    router, leader = spans_of(TRACE)
    assert (router.component, router.took_us, leader.component, leader.took_us) == (
        "router",
        800,
        "leader",
        400,
    )
    assert [one.name for one in leader.steps][2:4] == ["synced", "acknowledged"]
    assert span_fields([leader])[0]["node"] == "n2"


def test_each_is_drawn_inside_of_who_waited_for_it() -> None:
    """The leader's work lies in the middle of the time in which the router waited for it, that in the client's."""
    rows = {row.who: row for row in rows_of(spans_of(TRACE), 1000) if row.who}
    assert (rows["client"].begin_us, rows["client"].end_us) == (0, 1000)
    assert (rows["router n1"].begin_us, rows["router n1"].end_us) == (100, 900)
    assert (rows["leader n2"].begin_us, rows["leader n2"].end_us) == (400, 800)


def test_bars_are_in_proportion() -> None:
    """A bar begins and is as long as its share of the whole."""
    drawn = {row[0].strip(): row[4] for row in cells(rows_of(spans_of(TRACE), 1000), chars=10) if row[0]}
    assert drawn == {"client": "#" * 10, "router n1": " " + "#" * 8, "leader n2": "    " + "#" * 4}


def test_peers_are_named_with_their_times() -> None:
    """Who acknowledged, and when; a step that nobody took is empty."""
    assert confirmations(spans_of(TRACE), "acknowledged") == "n3 (0.350 ms), n1 (0.390 ms)"
    assert confirmations(spans_of(TRACE), "synced") == "n2 (0.300 ms)"
    assert confirmations(spans_of(TRACE), "lease") == ""
    assert show_us(1234.6) == "1.235 ms"


def test_a_quorum_read_waits_for_several() -> None:
    """Of a replica that is named first in a longer detail the wait is found too."""
    trace = [
        step("replica", "n3", "served", 10),
        step("router", "n1", "sent", 100, "n3"),
        step("router", "n1", "answered", 300, "n3 at index 5"),
    ]
    [_, _, *_, inner, _] = rows_of(spans_of(trace), 400)
    assert inner.who == "replica n3"
    assert (inner.begin_us, inner.end_us) == (245, 255)


@given(
    st.lists(
        st.builds(
            step,
            st.sampled_from(["router", "leader", "replica"]),
            st.sampled_from(["n1", "n2"]),
            st.sampled_from(["received", "sent", "answered", "synced"]),
            st.integers(0, 2**63),
            st.sampled_from(["", "n1", "n2"]),
        ),
        max_size=20,
    ),
    st.integers(0, 10**9),
)
def test_any_trace_can_be_drawn(trace: list[kv_pb2.TraceStep], total_us: int) -> None:
    """Whatever nodes say, each step has a line and a mark, and no bar is wider than the drawing."""
    spans = spans_of(trace)
    table = cells(rows_of(spans, total_us))
    assert len(table) == 1 + len(spans) + len(trace)
    assert all(len(row[4].strip()) >= 1 and len(row[4]) <= BAR_CHARS for row in table)
