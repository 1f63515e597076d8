"""How old what a read returned was, for each read level; and whether reads with a bound kept it.

Pure. A value is stale from the moment a newer one was acknowledged: the staleness of a read is the time from the earliest
acknowledgement of a newer write to the beginning of the read. That is a lower bound of the truth, so a violation is
one; writes without evidence are left out, which only makes reads look fresher. What is newer is told by the evidence `revision`; without it by values, if each is written once. Times are
those of the harness's own clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeAlias

from kv_jepsen.checkers.evidence import DELETES, LINEARIZABLE_LEVELS, is_read, is_write, level, number
from kv_jepsen.checkers.finding import CheckResult, Finding, judged, quantiles_ms
from kv_jepsen.history import Call, Outcome, Value

BUCKETS_MS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000)
"""Upper ends of the histogram's buckets, in milliseconds; a last bucket holds what is above."""

Histogram: TypeAlias = tuple[int, ...]
"""One count for each bucket of `BUCKETS_MS`, and one for what is above."""


@dataclass(frozen=True, slots=True)
class Age:
    """The staleness of one read."""

    read: Call
    stale_ns: int
    newer: Call | None
    """The write by which the value was old, acknowledged first of all such; None if it was not old."""


def ages(calls: Iterable[Call]) -> list[Age]:
    """The staleness of every completed read of which it can be told, by invocation."""
    parts: dict[Value, list[Call]] = {}
    for call in calls:
        parts.setdefault(call.key, []).append(call)
    found = [age for part in parts.values() for age in _ages_of_key(part)]
    return sorted(found, key=lambda age: age.read.start)


def histograms(found: Iterable[Age]) -> dict[str, Histogram]:
    """Read level to histogram."""
    out: dict[str, list[int]] = {}
    for age in found:
        counts = out.setdefault(level(age.read), [0] * (len(BUCKETS_MS) + 1))
        counts[bucket(age.stale_ns)] += 1
    return {name: tuple(counts) for name, counts in sorted(out.items())}


def bucket(stale_ns: int) -> int:
    """The bucket of a staleness: the first whose upper end is not below it."""
    return next((i for i, end in enumerate(BUCKETS_MS) if stale_ns <= end * 1_000_000), len(BUCKETS_MS))


def staleness(calls: Sequence[Call], bounds_ms: Mapping[str, float] | None = None) -> CheckResult:
    """Every read within its bound: `bound_ms` of its evidence, or that of its level, 0 for linearizable reads.

    Args:
        calls: of the whole history.
        bounds_ms: bounds by read level, for reads whose evidence has none.
    """
    limits = dict.fromkeys(LINEARIZABLE_LEVELS, 0.0) | dict(bounds_ms or {})
    found = ages(calls)
    findings: list[Finding] = []
    counts: dict[str, float] = {"reads": len(found), "bounded_reads": 0}
    by_level: dict[str, list[int]] = {}
    for age in found:
        by_level.setdefault(level(age.read), []).append(age.stale_ns)
        limit = number(age.read, "bound_ms")
        allowed = limits.get(level(age.read)) if limit is None else limit
        if allowed is not None:
            counts["bounded_reads"] += 1
            findings += _judge(age, allowed)
    for name, values in sorted(by_level.items()):
        counts[f"{name}_stale"] = sum(value > 0 for value in values)
        counts |= {f"{name}_{which}": value for which, value in quantiles_ms(values).items()}
    return judged("staleness", findings, counts, "" if found else "of no read the age can be told")


def _judge(age: Age, allowed_ms: float) -> Iterator[Finding]:
    if age.stale_ns > allowed_ms * 1e6 and age.newer is not None:
        why = (
            f"A {level(age.read)} read of {age.read.key} returned what had been overwritten"
            f" {age.stale_ns / 1e6:.3f} ms before it began; {allowed_ms:g} ms are allowed."
        )
        yield Finding("too-stale", why, (age.newer.id, age.read.id))


def _ages_of_key(calls: Sequence[Call]) -> Iterator[Age]:
    writes = [call for call in calls if is_write(call) and call.end_ns is not None]
    reads = [call for call in calls if is_read(call) and call.ok]
    known = [write for write in writes if number(write, "revision") is not None]
    if known or not writes:
        deletes = [call for call in calls if call.f in DELETES and call.outcome is not Outcome.FAILED]
        yield from _by_revision(known, deletes, reads)
    else:
        yield from _by_value(calls, writes, reads)


class _Newer:
    """For each place in an order: which write after it was acknowledged first."""

    def __init__(self, writes: Iterable[tuple[int, Call]]) -> None:
        ordered = sorted(writes, key=lambda write: write[0])
        self._places = [place for place, _ in ordered]
        self._first = list(accumulate((call for _, call in reversed(ordered)), _earlier))[::-1]

    def than(self, place: int) -> Call | None:
        after = bisect_right(self._places, place)
        return self._first[after] if after < len(self._first) else None


def _earlier(left: Call, right: Call) -> Call:
    return right if _ended(right) < _ended(left) else left


def _ended(call: Call) -> int:
    assert call.end_ns is not None, "only acknowledged writes count"
    return call.end_ns


def _age(read: Call, newer: Call | None) -> Age:
    """The age by the first newer write; a write acknowledged during the read does not make it old."""
    if newer is None or newer.end >= read.start:
        return Age(read, 0, None)
    return Age(read, max(0, read.start_ns - _ended(newer)), newer)


def _by_revision(writes: Sequence[Call], deletes: Sequence[Call], reads: Iterable[Call]) -> Iterator[Age]:
    newer = _Newer((number(write, "revision") or 0, write) for write in writes)
    for read in reads:
        revision = number(read, "revision")
        if revision is None and read.output is None:
            revision = _absent_since(read, deletes)
        if revision is not None:
            yield _age(read, newer.than(revision))


def _absent_since(read: Call, deletes: Iterable[Call]) -> int | None:
    """The newest revision at which the key may have been absent for this read; None if that cannot be told."""
    newest = 0
    for delete in deletes:
        if delete.start < read.end:
            revision = number(delete, "revision")
            if revision is None:
                return None
            newest = max(newest, revision)
    return newest


def _by_value(calls: Sequence[Call], writes: Sequence[Call], reads: Iterable[Call]) -> Iterator[Age]:
    """Without revisions: a write that began after another was acknowledged is newer. Plain writes of unique values only."""
    written: dict[Value, Call] = {}
    for call in calls:
        if is_read(call) or call.outcome is Outcome.FAILED:
            continue
        if call.f not in {"write", "put"} or call.input in written or call.input is None:
            return
        written[call.input] = call
    newer = _Newer((write.start, write) for write in writes)
    for read in reads:
        if read.output is None:
            yield _age(read, newer.than(-1))
        elif read.output in written:
            yield _age(read, newer.than(written[read.output].end))
