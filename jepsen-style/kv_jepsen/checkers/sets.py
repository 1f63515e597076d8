"""Sets that only grow: is every acknowledged element there, and stays it there?

Pure. Calls are `add` of an element and `read` of all elements (any collection). `final_set` is Jepsen's `set`, which
looks at the last read only; `set_full` is Jepsen's `set-full`, which follows each element through all reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kv_jepsen.checkers.finding import CheckResult, Finding, judged, quantiles_ms
from kv_jepsen.history import Call, Outcome, Value


@dataclass(frozen=True, slots=True)
class _Adds:
    """The adds of a history by outcome: element to call."""

    acknowledged: dict[Value, Call]
    unknown: dict[Value, Call]
    failed: dict[Value, Call]

    @property
    def attempted(self) -> set[Value]:
        return {*self.acknowledged, *self.unknown}


def _adds(calls: Iterable[Call]) -> _Adds:
    adds = _Adds({}, {}, {})
    by_outcome = {Outcome.OK: adds.acknowledged, Outcome.UNKNOWN: adds.unknown, Outcome.FAILED: adds.failed}
    for call in calls:
        if call.f == "add":
            by_outcome[call.outcome].setdefault(call.input, call)
    return adds


def _reads(calls: Iterable[Call]) -> list[Call]:
    """Completed reads, by invocation."""
    return sorted((call for call in calls if call.f == "read" and call.ok), key=lambda call: call.start)


def _elements(read: Call) -> tuple[Value, ...]:
    """What a read returned; None is the empty set."""
    if read.output is None:
        return ()
    if isinstance(read.output, tuple | frozenset):
        return tuple(read.output)
    raise ValueError(f"operation {read.id}: a read of a set must return a collection, not {read.output!r}")


def final_set(calls: Sequence[Call]) -> CheckResult:
    """The last completed read against what was added: lost, unexpected and recovered elements."""
    adds, reads = _adds(calls), _reads(calls)
    counts = {"attempts": len(adds.attempted), "acknowledged": len(adds.acknowledged)}
    if not reads:
        return judged("set", (), counts, "no read completed, so nobody looked at the set")
    last = reads[-1]
    seen = dict.fromkeys(_elements(last))
    lost = [
        Finding(
            "lost",
            f"{element} was acknowledged and is not in the last read.",
            (adds.acknowledged[element].id, last.id),
        )
        for element in adds.acknowledged
        if element not in seen and adds.acknowledged[element].end < last.start
    ]
    unexpected = list(_unexpected(adds, [last]))
    recovered = sum(element in seen for element in adds.unknown if element not in adds.acknowledged)
    counts |= {"lost": len(lost), "unexpected": len(unexpected), "recovered": recovered, "present": len(seen)}
    return judged("set", [*lost, *unexpected], counts)


def _unexpected(adds: _Adds, reads: Iterable[Call]) -> Iterable[Finding]:
    """Elements that no add explains: never added, added only by what failed, or read before they were added."""
    attempted = {**adds.unknown, **adds.acknowledged}
    reported: set[Value] = set()
    for read in reads:
        for element in dict.fromkeys(_elements(read)):
            add = attempted.get(element)
            if element in reported or (add is not None and add.start < read.end):
                continue
            reported.add(element)
            if add is not None:
                yield Finding("unexpected", f"{element} was read before its add began.", (read.id, add.id))
            elif element in adds.failed:
                why = f"{element} was read, but its add failed."
                yield Finding("unexpected", why, (read.id, adds.failed[element].id))
            else:
                yield Finding("unexpected", f"{element} was read, and nobody added it.", (read.id,))


@dataclass(slots=True)
class _Life:
    """What is known of one element."""

    known: int
    """Position in the history from which on it must be there."""
    known_ns: int
    seen: Call | None = None
    """The last read, by invocation, that has it."""
    missed: Call | None = None
    """The last read, by invocation, that has it not."""


def set_full(calls: Sequence[Call], *, linearizable: bool = True) -> CheckResult:
    """Each element through all reads: once known it must be in every read that begins later.

    An element is known from its acknowledgement, or from the end of the first read that has it. It is `lost` if the
    last read after that misses it, `stale` if a later read misses it and a still later one has it, `never-read` if no
    read began after it was known. Stale elements are violations if `linearizable`.
    """
    adds, reads = _adds(calls), _reads(calls)
    lives = _lives(adds, reads)
    _last_looks(lives, reads)
    lost, stale = _judge_lives(lives)
    findings = [*lost, *(stale if linearizable else ()), *_unexpected(adds, reads), *_repeated(reads)]
    read_at_all = [
        life for life in lives.values() if life.seen or (life.missed and life.missed.start > life.known)
    ]
    counts: dict[str, float] = {
        "acknowledged": len(adds.acknowledged),
        "reads": len(reads),
        "lost": len(lost),
        "stale": len(stale),
        "never_read": len(lives) - len(read_at_all),
        "recovered": sum(e in lives for e in adds.unknown if e not in adds.acknowledged),
    }
    late = [life.missed.start_ns - life.known_ns for life in lives.values() if _is_late(life) and life.missed]
    counts |= {f"stale_{name}": value for name, value in quantiles_ms(late).items()}
    return judged(
        "set-full", findings, counts, "" if reads else "no read completed, so nobody looked at the set"
    )


def _lives(adds: _Adds, reads: Sequence[Call]) -> dict[Value, _Life]:
    """When each element became known; those of which nothing is known are left out."""
    lives = {e: _Life(add.end, add.end_ns or add.start_ns) for e, add in adds.acknowledged.items()}
    unproved = set(adds.attempted)
    for read in sorted(reads, key=lambda call: call.end):
        for element in unproved.intersection(_elements(read)):
            life = lives.get(element)
            if life is None or read.end < life.known:
                lives[element] = _Life(read.end, read.end_ns or read.start_ns)
            unproved.discard(element)
    return lives


def _last_looks(lives: dict[Value, _Life], reads: Sequence[Call]) -> None:
    """For each element the last read that has it, and the last that has it not."""
    not_seen, not_missed = set(lives), set(lives)
    for read in reversed(reads):
        present = set(_elements(read))
        for element in not_seen & present:
            lives[element].seen = read
        for element in not_missed - present:
            lives[element].missed = read
        not_seen -= present
        not_missed &= present
        if not not_seen and not not_missed:
            break


def _is_late(life: _Life) -> bool:
    return life.missed is not None and life.missed.start > life.known


def _judge_lives(lives: dict[Value, _Life]) -> tuple[list[Finding], list[Finding]]:
    """The lost and the stale elements."""
    lost: list[Finding] = []
    stale: list[Finding] = []
    for element, life in lives.items():
        if life.missed is None or not _is_late(life):
            continue
        if life.seen is None or life.seen.start < life.missed.start:
            ops = (life.missed.id,) if life.seen is None else (life.seen.id, life.missed.id)
            lost.append(
                Finding("lost", f"{element} was there and is missing in the last read after that.", ops)
            )
        else:
            after_ms = (life.missed.start_ns - life.known_ns) / 1e6
            why = f"{element} was missing in a read that began {after_ms:.3f} ms after it was known to be there."
            stale.append(Finding("stale", why, (life.missed.id, life.seen.id)))
    return lost, stale


def _repeated(reads: Iterable[Call]) -> Iterable[Finding]:
    """Elements that one read has more than once."""
    for read in reads:
        elements = _elements(read)
        if len(set(elements)) < len(elements):
            element, times = Counter(elements).most_common(1)[0]
            yield Finding("duplicated", f"{element} is {times} times in one read of a set.", (read.id,))
