"""Counts over time: windows, their widening, sums of processes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from kv.bench.tally import WINDOWS_MAX, Ending, Tally, ending_of
from kv.errors import DeadlineExceeded, NotOnAllReplicas, Overloaded, UnknownOutcome

PUT, GET = Ending("put"), Ending("get")
REFUSED = ending_of("put", Overloaded())

Event = tuple[int, Ending, int, int | None]
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 5_000),
        st.sampled_from([PUT, GET, REFUSED]),
        st.integers(0, 3),
        st.none() | st.integers(0, 9_999),
    ),
    max_size=60,
)


def filled(events: list[Event], width_ns: int = 10) -> Tally:
    """Return a tally of `events`."""
    tally = Tally(width_ns)
    for event in events:
        tally.ended(*event)
    return tally


def test_endings_tell_what_is_known_of_the_outcome() -> None:
    """A refusal, an unknown outcome and a write that stands with an error are three different endings."""
    assert ending_of("put", Overloaded()) == ("put", "OVERLOADED", "not done")
    assert ending_of("put", UnknownOutcome()) == ("put", "UNKNOWN_OUTCOME", "unknown")
    assert ending_of("put", NotOnAllReplicas()) == ("put", NotOnAllReplicas.reason, "done, with an error")
    assert ending_of("get", DeadlineExceeded(definite=True)).outcome == "not done"
    assert not any(ending_of("put", error()).ok for error in (Overloaded, UnknownOutcome, NotOnAllReplicas))
    assert PUT.ok


@given(EVENTS)
def test_nothing_is_lost_when_windows_widen(events: list[Event]) -> None:
    """However far apart the events are, there are few windows, and the counts are those of the events."""
    tally = filled(events)
    assert len(tally.windows) <= WINDOWS_MAX
    assert all(number < WINDOWS_MAX for number in tally.windows)
    counts = tally.counts()
    for ending in (PUT, GET, REFUSED):
        mine = [event for event in events if event[1] == ending]
        assert (counts[ending].ended if ending in counts else 0) == len(mine)
        if mine:
            assert counts[ending].items == sum(event[2] for event in mine)
            assert counts[ending].latency.count == sum(event[3] is not None for event in mine)
    assert tally.elapsed_ns == max((event[0] for event in events), default=0)


@given(EVENTS)
def test_an_event_is_in_the_window_of_its_time(events: list[Event]) -> None:
    """The first windows have what ended in them, and nothing that ended later."""
    tally = filled(events)
    for windows in (1, 7, WINDOWS_MAX):
        until = windows * tally.width_ns
        ended = sum(count.ended for count in tally.counts(windows).values())
        assert ended == sum(event[0] < until for event in events)


@given(EVENTS, EVENTS)
def test_tallies_of_processes_add_up(first: list[Event], second: list[Event]) -> None:
    """The sum of two tallies is the tally of all their events, even if only one of them had to widen."""
    both, whole = filled(first), filled(first + second)
    both.add(filled(second))
    assert both.width_ns == whole.width_ns
    assert both.counts() == whole.counts()
    assert {n: w.counts for n, w in both.windows.items()} == {n: w.counts for n, w in whole.windows.items()}


@given(EVENTS)
def test_a_tally_travels_as_json(events: list[Event]) -> None:
    """What a process writes is what the run reads."""
    tally = filled(events)
    tally.dropped(17)
    tally.lag.record(5)
    tally.cpu_s.append(0.25)
    parsed = Tally.parse(json.loads(json.dumps(tally.fields())))
    assert parsed.fields() == tally.fields()
    assert parsed.windows == tally.windows
    assert parsed.dropped_total == 1


def test_successes_come_first() -> None:
    """Counts are in the order in which people read them."""
    assert list(filled([(0, REFUSED, 0, 1), (0, PUT, 1, 1), (0, GET, 1, 1)]).counts()) == [GET, PUT, REFUSED]
