"""Watches: does a stream of events show every change, once, in order?

Pure. A call `watch` is one stream: its input the revision from which it was asked for, its output a list of events
`[key, revision]` or `[key, revision, value]`, its evidence `through` the revision up to which it claims to be complete
(by default that of its last event). The key of the call is the key watched; None watches every key of the
history, of one partition if the evidence of the call names one (revisions of different partitions say nothing of each
other).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kv_jepsen.checkers.evidence import is_read, is_write, number, partition
from kv_jepsen.checkers.finding import CheckResult, Finding, judged
from kv_jepsen.history import Call, Outcome, Value


@dataclass(frozen=True, slots=True)
class Event:
    """One change as a watcher was told."""

    key: Value
    revision: int
    value: Value = None
    has_value: bool = False


@dataclass(frozen=True, slots=True)
class _Written:
    """What the history says was written."""

    by_place: Mapping[tuple[Value, int], Call]
    """Key and revision to the acknowledged write."""
    uncertain: frozenset[Value]
    """Keys with a write of unknown outcome, or acknowledged without a revision: an event may be of one of these."""


def watches(calls: Sequence[Call]) -> CheckResult:
    """Every stream without gap, duplicate, reordering, or an event that no write explains."""
    streams = [call for call in calls if call.f == "watch" and call.ok]
    written = _written(calls)
    findings: list[Finding] = []
    events = 0
    for stream in streams:
        told = _events(stream)
        events += len(told)
        findings += _out_of_order(stream, told)
        findings += _gaps(stream, told, written)
        findings += _unexplained(stream, told, written)
    counts = {"streams": len(streams), "events": events, "writes": len(written.by_place)}
    return judged("watch", findings, counts, "" if streams else "no watch completed")


def _written(calls: Sequence[Call]) -> _Written:
    by_place: dict[tuple[Value, int], Call] = {}
    uncertain: set[Value] = set()
    for call in calls:
        if call.f == "watch" or is_read(call):
            continue
        revision = number(call, "revision")
        if is_write(call) and revision is not None:
            by_place[call.key, revision] = call
        elif call.outcome is Outcome.UNKNOWN or is_write(call):
            uncertain.add(call.key)
    return _Written(by_place, frozenset(uncertain))


def _events(stream: Call) -> list[Event]:
    events: list[Event] = []
    for item in stream.output if isinstance(stream.output, tuple) else (stream.output,):
        match item:
            case (key, int(revision)):
                events.append(Event(key, revision))
            case (key, int(revision), value):
                events.append(Event(key, revision, value, has_value=True))
            case _:
                raise ValueError(
                    f"operation {stream.id}: an event of a watch must be [key, revision, value], not {item!r}"
                )
    return events


def _out_of_order(stream: Call, told: Sequence[Event]) -> Iterator[Finding]:
    """Events told twice, or after a later one of the same key."""
    seen: set[tuple[Value, int]] = set()
    newest: dict[Value, int] = {}
    for event in told:
        if (event.key, event.revision) in seen:
            why = f"The change of {event.key} at revision {event.revision} was told twice."
            yield Finding("duplicate", why, (stream.id,))
        elif event.revision < newest.get(event.key, event.revision):
            why = f"The change of {event.key} at revision {event.revision} was told after that at {newest[event.key]}."
            yield Finding("reordered", why, (stream.id,))
        seen.add((event.key, event.revision))
        newest[event.key] = max(event.revision, newest.get(event.key, event.revision))


def _gaps(stream: Call, told: Sequence[Event], written: _Written) -> Iterator[Finding]:
    """Acknowledged writes between the first revision asked for and the last one told that are missing."""
    through = number(stream, "through")
    upto = max((event.revision for event in told), default=-1) if through is None else through
    first = (
        stream.input if isinstance(stream.input, int) else min((event.revision for event in told), default=0)
    )
    seen = {(event.key, event.revision) for event in told}
    for (key, revision), write in written.by_place.items():
        watched = key == stream.key or (stream.key is None and partition(stream) in {None, partition(write)})
        if watched and first <= revision <= upto and (key, revision) not in seen:
            why = f"The write of {key} at revision {revision} is missing in a watch from {first} through {upto}."
            yield Finding("gap", why, (write.id, stream.id))


def _unexplained(stream: Call, told: Sequence[Event], written: _Written) -> Iterator[Finding]:
    """Events of no write, or with another value than was written."""
    for event in told:
        write = written.by_place.get((event.key, event.revision))
        if write is None and event.key not in written.uncertain:
            why = f"A change of {event.key} at revision {event.revision} was told, and no write made it."
            yield Finding("unexplained", why, (stream.id,))
        elif (
            write is not None
            and event.has_value
            and write.f in {"write", "put"}
            and event.value != write.input
        ):
            why = f"A change of {event.key} at revision {event.revision} was told as {event.value}, not {write.input}."
            yield Finding("wrong-value", why, (write.id, stream.id))
