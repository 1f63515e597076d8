"""Each anomaly class has a minimal history that shows exactly it; serial executions show none."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.elle import Append, ElleResult, Kind, Read, Txn, UnusableHistory, check
from kv_jepsen.elle.txn import Mop
from kv_jepsen.history import OPEN, Outcome

OK, FAILED, UNKNOWN = Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN


def a(key: str, element: int) -> Append:
    """An append."""
    return Append(key, element)


def r(key: str, *elements: int) -> Read:
    """A read of these elements."""
    return Read(key, elements)


def together(*txns: Sequence[Mop], outcomes: Sequence[Outcome] = ()) -> list[Txn]:
    """Transactions that all overlap, each of a process of its own."""
    n = len(txns)
    ends = [*outcomes, *[OK] * n][:n]
    return [
        Txn(i, i, ends[i], tuple(mops), i, n + i if ends[i] is not UNKNOWN else OPEN)
        for i, mops in enumerate(txns)
    ]


def one_after_another(*txns: Sequence[Mop], processes: Sequence[int] = ()) -> list[Txn]:
    """Transactions none of which overlap."""
    names = processes or range(len(txns))
    return [Txn(i, names[i], OK, tuple(mops), 2 * i, 2 * i + 1) for i, mops in enumerate(txns)]


def timed(*txns: tuple[int, int, int, Sequence[Mop]]) -> list[Txn]:
    """Transactions given as start, end, process, steps."""
    return [
        Txn(i, process, OK, tuple(mops), start, end) for i, (start, end, process, mops) in enumerate(txns)
    ]


def names(result: ElleResult) -> set[str]:
    """What was found."""
    return set(result.counts())


CASES: dict[str, tuple[list[Txn], set[str], set[str]]] = {
    "G0": (
        together([a("x", 1), a("y", 1)], [a("x", 2), a("y", 2)], [r("x", 1, 2)], [r("y", 2, 1)]),
        {"G0"},
        {"read-uncommitted"},
    ),
    "G0-process": (
        one_after_another([a("x", 2)], [a("x", 1)], [r("x", 1, 2)], processes=[0, 0, 1]),
        {"G0-process"},
        {"strong-session-read-uncommitted"},
    ),
    "G0-realtime": (
        one_after_another([a("x", 2)], [a("x", 1)], [r("x", 1, 2)]),
        {"G0-realtime"},
        {"strong-read-uncommitted"},
    ),
    "G1a": (together([a("x", 1)], [r("x", 1)], outcomes=[FAILED]), {"G1a"}, {"read-committed"}),
    "G1b": (
        together([a("x", 1), a("x", 2)], [r("x", 1)], outcomes=[UNKNOWN]),
        {"G1b"},
        {"read-committed"},
    ),
    "G1c": (together([a("x", 1), r("y", 1)], [a("y", 1), r("x", 1)]), {"G1c"}, {"read-committed"}),
    "G1c-process": (
        one_after_another([r("x", 1)], [a("x", 1)], processes=[0, 0]),
        {"G1c-process"},
        {"strong-session-read-committed"},
    ),
    "G1c-realtime": (
        one_after_another([r("x", 1)], [a("x", 1)]),
        {"G1c-realtime"},
        {"strong-read-committed"},
    ),
    "G-single": (
        together([a("x", 1), a("y", 1)], [r("x", 1), r("y")], [r("y", 1)]),
        {"G-single"},
        {"repeatable-read", "snapshot-isolation"},
    ),
    "G-single-process": (
        one_after_another([a("x", 1)], [r("x")], [r("x", 1)], processes=[0, 0, 1]),
        {"G-single-process"},
        {"strong-session-repeatable-read", "strong-session-snapshot-isolation"},
    ),
    "G-single-realtime": (
        one_after_another([a("x", 1)], [r("x")], [r("x", 1)]),
        {"G-single-realtime"},
        {"strong-repeatable-read", "strong-snapshot-isolation"},
    ),
    "G-nonadjacent": (
        together([a("x", 1)], [r("x", 1), r("y")], [a("y", 1)], [r("y", 1), r("x")]),
        {"G-nonadjacent"},
        {"repeatable-read", "snapshot-isolation"},
    ),
    "G-nonadjacent-process": (
        one_after_another([a("x", 1)], [r("y")], [a("y", 1)], [r("x")], processes=[0, 0, 1, 1]),
        {"G-nonadjacent-process"},
        {"strong-session-repeatable-read", "strong-session-snapshot-isolation"},
    ),
    "G-nonadjacent-realtime": (
        timed(
            (0, 7, 0, [a("y", 1)]),
            (1, 3, 1, [a("x", 1)]),
            (2, 6, 2, [r("y", 1), r("x")]),
            (4, 5, 3, [r("y")]),
        ),
        {"G-nonadjacent-realtime"},
        {"strong-repeatable-read", "strong-snapshot-isolation"},
    ),
    "G2-item": (
        together([r("x"), a("y", 1)], [r("y"), a("x", 1)], [r("x", 1), r("y", 1)]),
        {"G2-item"},
        {"repeatable-read"},
    ),
    "G2-item-process": (
        timed(
            (0, 5, 1, [r("y"), a("x", 1)]),
            (1, 2, 0, [a("y", 1)]),
            (3, 4, 0, [r("x")]),
        ),
        {"G2-item-process"},
        {"strong-session-repeatable-read"},
    ),
    "G2-item-realtime": (
        timed(
            (0, 5, 1, [r("y"), a("x", 1)]),
            (1, 2, 2, [a("y", 1)]),
            (3, 4, 0, [r("x")]),
        ),
        {"G2-item-realtime"},
        {"strong-repeatable-read"},
    ),
    "internal": (together([r("x"), a("x", 1), r("x")]), {"internal"}, {"read-atomic"}),
    "internal, own append not seen": (together([a("x", 1), r("x")]), {"internal"}, {"read-atomic"}),
    "internal, own append seen too early": (together([r("x", 1), a("x", 1)]), {"internal"}, {"read-atomic"}),
    "duplicate elements": (
        together([a("x", 1)], [r("x", 1, 1)]),
        {"duplicate-elements"},
        {"read-uncommitted"},
    ),
    "incompatible order": (
        together([a("x", 1)], [a("x", 2)], [r("x", 1)], [r("x", 2)]),
        {"incompatible-order"},
        {"read-committed"},
    ),
    "garbage read": (together([r("x", 7)]), {"garbage-read"}, {"read-uncommitted"}),
    "dirty update": (
        together([a("x", 1)], [a("x", 2)], [r("x", 1, 2)], outcomes=[FAILED]),
        {"G1a", "dirty-update"},
        {"read-committed"},
    ),
    "lost update": (
        together([r("x"), a("x", 1)], [r("x"), a("x", 2)], [r("x", 1, 2)]),
        {"lost-update"},
        {"repeatable-read", "snapshot-isolation"},
    ),
    "half of a transaction of unknown outcome": (
        together([a("x", 1), a("y", 1)], [r("x", 1), r("y")], outcomes=[UNKNOWN]),
        {"G-single"},
        {"repeatable-read", "snapshot-isolation"},
    ),
    "an acknowledged append that a later read does not show": (
        one_after_another([a("x", 1)], [a("x", 2)], [r("x", 1)]),
        {"G-single-realtime"},
        {"strong-repeatable-read", "strong-snapshot-isolation"},
    ),
}
"""Name: the history, the anomalies it shows, the weakest models these rule out."""


@pytest.mark.parametrize("name", CASES)
def test_each_anomaly_is_found_and_nothing_else(name: str) -> None:
    """A minimal history of each class shows exactly the anomalies it consists of, and the models they rule out."""
    txns, anomalies, weakest = CASES[name]
    result = check(txns)
    assert names(result) == anomalies
    assert set(result.weakest_ruled_out) == weakest
    assert result.valid is False


def test_a_cycle_is_shown_with_the_reason_for_each_step() -> None:
    """The steps of a cycle lead from each transaction to the next, and back to the first, each with its reason."""
    (cycle,) = check(CASES["G-single-realtime"][0]).anomalies
    assert [(step.source, step.target) for step in cycle.steps] == [(0, 1), (1, 0)]
    assert [step.kind for step in cycle.steps] == [Kind.REALTIME, Kind.RW]
    assert cycle.steps[0].because == "T0 had completed (operation 1) before T1 was invoked (operation 2)"
    assert cycle.steps[1].because == "T1 read x as empty and did not see 1, which T0 appended"
    assert cycle.sentence.endswith("So T0 would have to come before itself.")


def test_real_time_chains_are_joined_to_one_step() -> None:
    """A cycle through many transactions that only follow each other in time is shown as one real-time step."""
    quiet = [[a("z", i)] for i in range(20)]
    result = check(one_after_another([a("x", 1)], *quiet, [r("x")], [r("x", 1)]))
    assert [len(anomaly.steps) for anomaly in result.anomalies if "realtime" in anomaly.name] == [2]


def test_a_history_without_reads_is_unknown() -> None:
    """With nothing read there is nothing to go by, which is not a pass."""
    assert check(one_after_another([a("x", 1)], [a("y", 1)])).valid == "unknown"
    assert check([]).valid == "unknown"


def test_a_weaker_model_may_hold_where_a_stronger_does_not() -> None:
    """The verdict is about the model that was asked for."""
    stale = CASES["G-single-realtime"][0]
    assert check(stale, "strict-serializable").valid is False
    assert check(stale, "serializable").valid is True


def test_an_unknown_model_is_refused() -> None:
    """A model without a definition here is an error that lists those there are."""
    with pytest.raises(ValueError, match="no consistency model 'sequential': choose one of read-uncommitted"):
        check([], "sequential")


def test_an_element_appended_twice_is_refused() -> None:
    """Without unique elements a read does not tell whose append it saw, so nothing can be judged."""
    with pytest.raises(UnusableHistory, match="T0 and T1 both append 1 to 'x'"):
        check(together([a("x", 1)], [a("x", 1)]))


def test_an_unknown_append_may_be_seen_or_not() -> None:
    """A transaction of unknown outcome is part of the history only if its element is read."""
    seen = together([a("x", 1)], [r("x", 1)], outcomes=[UNKNOWN])
    unseen = together([a("x", 1)], [r("x")], [a("x", 2)], [r("x", 2)], outcomes=[UNKNOWN])
    assert check(seen).valid is True
    assert check(unseen).valid is True


def test_a_failed_append_that_nobody_saw_is_no_anomaly() -> None:
    """A failed transaction that left no trace is as it should be."""
    assert check(together([a("x", 1)], [a("x", 2)], [r("x", 2)], outcomes=[FAILED])).valid is True


# ---------------------------------------------------------------- against all orders


def strictly_serializable(txns: Sequence[Txn], real_time: bool) -> bool:
    """By trying all orders: the definition, for a handful of transactions."""

    def fits(state: dict[object, tuple[object, ...]], txn: Txn) -> dict[object, tuple[object, ...]] | None:
        after = dict(state)
        for mop in txn.mops:
            if isinstance(mop, Append):
                after[mop.key] = (*after.get(mop.key, ()), mop.element)
            elif txn.ok and mop.elements is not None and after.get(mop.key, ()) != mop.elements:
                return None
        return after

    def search(state: dict[object, tuple[object, ...]], left: frozenset[int]) -> bool:
        if not any(txns[i].ok for i in left):
            return True
        for i in left:
            first = not real_time or all(txns[i].start < txns[j].end for j in left)
            after = fits(state, txns[i]) if first else None
            if after is not None and search(after, left - {i}):
                return True
        return False

    return search({}, frozenset(txn.index for txn in txns if txn.outcome is not FAILED))


def sloppy_run(seed: int, final_reads: bool) -> list[Txn]:
    """A few transactions run without isolation: steps interleave, some see an old state, some are unknown."""
    rng = random.Random(seed)
    count, element = rng.randint(2, 5), 0
    lists: dict[str, tuple[int, ...]] = {"x": (), "y": ()}
    older: list[dict[str, tuple[int, ...]]] = [dict(lists)]
    events = [i for i in range(count) for _ in range(2)]
    rng.shuffle(events)
    start: dict[int, int] = {}
    txns: dict[int, Txn] = {}
    for position, i in enumerate(events):
        if i not in start:
            start[i] = position
            continue
        mops: list[Mop] = []
        view = dict(rng.choice(older)) if rng.random() < 0.5 else lists
        for _ in range(rng.randint(1, 3)):
            key = rng.choice("xy")
            if rng.random() < 0.5:
                element += 1
                mops.append(a(key, element))
                lists[key] = view[key] = (*lists[key], element)
            else:
                mops.append(r(key, *view[key]))
            older.append(dict(lists))
        outcome = UNKNOWN if rng.random() < 0.1 else OK
        txns[i] = Txn(i, i, outcome, tuple(mops), start[i], position if outcome is OK else OPEN)
    if final_reads:
        mops = [r(key, *elements) for key, elements in lists.items()]
        txns[count] = Txn(count, count, OK, tuple(mops), 2 * count, 2 * count + 1)
    return [txns[i] for i in sorted(txns)]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_with_the_whole_order_known_the_verdict_is_exact(seed: int) -> None:
    """If a last read shows every element, a history is accepted exactly if some order of its transactions explains it."""
    txns = sloppy_run(seed, final_reads=True)
    assert (check(txns).valid is not False) == strictly_serializable(txns, real_time=True)
    assert (check(txns, "serializable").valid is not False) == strictly_serializable(txns, real_time=False)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_no_false_alarm(seed: int) -> None:
    """Also with elements that nobody read, what is rejected is explained by no order of the transactions."""
    txns = sloppy_run(seed, final_reads=False)
    if check(txns).valid is False:
        assert not strictly_serializable(txns, real_time=True)
    if check(txns, "serializable").valid is False:
        assert not strictly_serializable(txns, real_time=False)


# ---------------------------------------------------------------- weaker databases


def snapshot_run(seed: int, *, guarded: bool, count: int = 40) -> list[Txn]:
    """A database of snapshots: each transaction reads the state at its start and writes at its end.

    If `guarded` a transaction fails if a key that it writes was written since its start (snapshot isolation); otherwise it
    appends to whatever is there by then (reads from a snapshot, updates lost).
    """
    rng = random.Random(seed)
    lists: dict[str, tuple[int, ...]] = {}
    running: dict[int, tuple[int, int, dict[str, tuple[int, ...]]]] = {}
    txns: list[Txn] = []
    clock, begun = 0, 0
    while len(txns) < count:
        clock, slot = clock + 1, rng.randrange(4)
        if slot not in running:
            running[slot] = (begun, clock, dict(lists))
            begun += 1
            continue
        index, start, view = running.pop(slot)
        before = dict(view)
        mops: list[Mop] = []
        added: dict[str, tuple[int, ...]] = {}
        for step in range(rng.randint(1, 4)):
            key = rng.choice("xyz")
            if rng.random() < 0.4:
                added[key] = (*added.get(key, ()), index * 4 + step)
                view[key] = (*view.get(key, ()), index * 4 + step)
                mops.append(a(key, index * 4 + step))
            else:
                mops.append(r(key, *view.get(key, ())))
        failed = guarded and any(lists.get(key) != before.get(key) for key in added)
        if not failed:
            lists |= {key: (*lists.get(key, ()), *elements) for key, elements in added.items()}
        txns.append(Txn(len(txns), slot, FAILED if failed else OK, tuple(mops), start, clock))
    return txns


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_snapshot_isolation_shows_write_skew_at_most(seed: int) -> None:
    """Of a database with snapshot isolation in real time only anomalies are found that this model allows."""
    result = check(snapshot_run(seed, guarded=True), "strong-snapshot-isolation")
    assert result.valid is not False
    assert names(result) <= {"G2-item", "G2-item-process", "G2-item-realtime"}


def test_write_skew_and_lost_updates_are_found() -> None:
    """Of a few such databases some show write skew, and without the guard some lose updates."""
    guarded = [check(snapshot_run(seed, guarded=True)) for seed in range(10)]
    assert any("G2-item" in names(result) for result in guarded)
    sloppy = [check(snapshot_run(seed, guarded=False), "snapshot-isolation") for seed in range(10)]
    assert any("lost-update" in names(result) for result in sloppy)
    assert any("G-single" in names(result) for result in sloppy)
    assert any(result.valid is False for result in sloppy)


# ---------------------------------------------------------------- long ones


def serial_run(seed: int, count: int, keys: int, concurrency: int, unknown: float = 0.05) -> list[Txn]:
    """A correct history: each transaction takes effect at one instant between its start and its end."""
    rng = random.Random(seed)
    lists: dict[str, tuple[int, ...]] = {}
    running: dict[int, tuple[int, int]] = {}
    txns: list[Txn] = []
    clock, process_of = 0, list(range(concurrency))
    while len(txns) < count or running:
        clock += 1
        slot = rng.randrange(concurrency)
        if slot not in running:
            if len(txns) < count:
                mops = _apply(rng, lists, keys, len(txns))
                running[slot] = (len(txns), clock)
                txns.append(Txn(len(txns), process_of[slot], OK, mops, clock, OPEN))
            continue
        index, _ = running.pop(slot)
        if rng.random() < unknown:
            process_of[slot] += concurrency
            txns[index] = replace(txns[index], outcome=UNKNOWN)
        else:
            txns[index] = replace(txns[index], end=clock)
    return txns


def _apply(rng: random.Random, lists: dict[str, tuple[int, ...]], keys: int, index: int) -> tuple[Mop, ...]:
    mops: list[Mop] = []
    for step in range(rng.randint(1, 4)):
        # Keys come and go, as in Jepsen's generator, so that lists stay of a bounded length.
        key = f"k{index // 500 * keys + rng.randrange(keys)}"
        if rng.random() < 0.5:
            lists[key] = (*lists.get(key, ()), index * 4 + step)
            mops.append(a(key, index * 4 + step))
        else:
            mops.append(r(key, *lists.get(key, ())))
    return tuple(mops)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 4), st.integers(1, 10))
def test_serial_executions_are_clean(seed: int, count: int, keys: int, concurrency: int) -> None:
    """Transactions that take effect one at a time show no anomaly at all, whatever overlaps."""
    result = check(serial_run(seed, count, keys, concurrency))
    assert result.anomalies == ()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 10))
def test_one_stale_read_in_a_long_run_is_found(seed: int, concurrency: int) -> None:
    """If one read misses the last element, acknowledged before it began, the run is not strictly serializable."""
    txns = serial_run(seed, 60, 2, concurrency, unknown=0)
    written = {mop.element: txn for txn in txns for mop in txn.appends()}
    for txn in reversed(txns):
        reads = txn.external_reads()
        if len(txn.mops) == len(reads) == 1 and reads[0][1] and written[reads[0][1][-1]].end < txn.start:
            key, elements = reads[0]
            txns[txn.index] = replace(txn, mops=(Read(key, elements[:-1]),))
            assert check(txns).valid is False
            return
    assert check(txns).valid is True


def test_ten_thousand_transactions_take_seconds() -> None:
    """A clean history of 10,000 transactions by 30 processes is judged in a few seconds, and so is a broken one."""
    txns = serial_run(7, 10_000, 4, 30)
    began = time.process_time()
    assert check(txns).valid is True
    clean_s = time.process_time() - began
    victims = [txn for txn in txns if txn.ok and txn.external_reads() and txn.external_reads()[0][1]][::100]
    for txn in victims:
        mops = tuple(
            Read(mop.key, mop.elements[:-1]) if isinstance(mop, Read) and mop.elements else mop
            for mop in txn.mops
        )
        txns[txn.index] = replace(txn, mops=mops)
    began = time.process_time()
    assert check(txns).valid is False
    broken_s = time.process_time() - began
    assert clean_s < 10
    assert broken_s < 20
