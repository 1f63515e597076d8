"""The loops in virtual time: what is begun, what is counted, from when latency counts."""

from __future__ import annotations

import asyncio
from itertools import islice

import pytest

from kv.bench.histogram import RELATIVE_ERROR_MAX
from kv.bench.kinds import Arrivals, Kind
from kv.bench.plan import Plan, Share
from kv.bench.result import Result
from kv.bench.tally import Ending, Tally
from kv.bench.workload import arrivals_of
from kv.errors import Overloaded, UnknownOutcome
from tests.bench.targets import Scripted, play

PUT = Ending("put")
MS = 1_000_000


async def answer_after(seconds: float) -> None:
    """Answer after so many virtual seconds."""
    await asyncio.sleep(seconds)


def ok(tally: Tally) -> int:
    """Return how many operations of the measured time succeeded."""
    return sum(count.latency.count for ending, count in tally.counts().items() if ending.ok)


def test_a_closed_loop_has_one_operation_of_each_task_under_way() -> None:
    """A task begins its next operation when the one before has its answer: 4 tasks of 100 ms make 40 a second."""
    target = Scripted(lambda: answer_after(0.1))
    plan, tally = play(target, concurrency=4, duration_s=10.0)
    assert target.inside_max == 4
    assert ok(tally) == 400
    assert tally.counts()[PUT].latency.quantile(0.5) == pytest.approx(100 * MS, rel=RELATIVE_ERROR_MAX)
    assert Result(plan, tally, started="").goodput_per_s == pytest.approx(40, rel=0.02)


@pytest.mark.parametrize("rate", [None, 50.0])
def test_a_number_of_operations_is_kept_exactly(rate: float | None) -> None:
    """So many operations are begun after the warm-up, in a closed and in an open loop."""
    target = Scripted(lambda: answer_after(0.01))
    _, tally = play(target, count=123, rate_per_s=rate, concurrency=7, warmup_s=1.0)
    assert ok(tally) == 123
    assert len(target.asked) > 123


@pytest.mark.parametrize("rate", [None, 50.0])
def test_a_timer_that_fires_early_begins_nothing_early(
    rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers of uvloop count in milliseconds: what it wakes before the time waits for the rest of it."""
    sleep = asyncio.sleep

    async def early(delay_s: float) -> None:
        await sleep(delay_s - 0.0004 if delay_s > 0.001 else delay_s)

    monkeypatch.setattr(asyncio, "sleep", early)
    target = Scripted(lambda: sleep(0.0001))
    plan, tally = play(
        target, count=20, rate_per_s=rate, arrivals=Arrivals.CONSTANT, concurrency=4, head_start_s=0.2
    )
    assert (ok(tally), len(target.asked)) == (20, 20)
    if plan.open_loop:
        begin_s = 1000.2  # the loop begins at 1000 s
        due_s = [begin_s + at_ns / 1e9 for at_ns in islice(arrivals_of(Share(plan, 0)), 20)]
        lates = [time_s - at_s for time_s, at_s in zip(target.times_s, due_s, strict=True)]
        assert -1e-6 < min(lates) <= max(lates) < 0.001 + 1e-6


def test_what_begins_in_the_warm_up_has_no_latency() -> None:
    """An operation of the warm-up that ends in the measured time counts for throughput and not for latency."""
    target = Scripted(lambda: answer_after(0.4))
    _, tally = play(target, concurrency=1, duration_s=1.0, warmup_s=1.0)
    # It begins at 0, 0.4, 0.8 (ends at 1.2), then 1.2 and 1.6 in the measured time.
    assert len(target.asked) == 5
    counts = tally.counts()[PUT]
    assert (counts.ended, counts.latency.count) == (3, 2)


def test_what_is_under_way_at_the_end_is_awaited() -> None:
    """An operation that began in the measured time has a latency, though it ends late; the rate leaves it out."""
    plan, tally = play(Scripted(lambda: answer_after(3.0)), concurrency=2, duration_s=4.0)
    result = Result(plan, tally, started="")
    assert result.ok == 4
    assert result.goodput_per_s == pytest.approx(2 / 4)
    assert tally.elapsed_ns == pytest.approx(6.0 * 1e9)


def test_an_open_loop_is_not_slowed_by_the_store() -> None:
    """Operations are begun when they are due, though none has an answer yet."""
    target = Scripted(lambda: answer_after(5.0))
    plan, tally = play(target, rate_per_s=100.0, arrivals=Arrivals.CONSTANT, duration_s=2.0)
    assert ok(tally) == 200
    assert target.inside_max == 200
    assert Result(plan, tally, started="").offered_per_s == pytest.approx(100.0)


def test_latency_counts_from_when_an_operation_was_due() -> None:
    """A generator that could not run for a second charges the wait to every operation that was due in it."""
    target = Scripted(lambda: answer_after(0.001))
    plan, tally = play_with_a_stall(target)
    latency = tally.counts()[PUT].latency
    slow = latency.count - sum(1 for at_ns in times(tally) if at_ns < 500 * MS)
    assert latency.count == 400
    assert slow == pytest.approx(50, abs=2)  # those due in the first half of the second in which nothing ran
    assert tally.lag.max_ns == pytest.approx(1000 * MS, rel=0.02)
    assert any("after their time" in note for note in Result(plan, tally, started="").notes)


def play_with_a_stall(target: Scripted) -> tuple[Plan, Tally]:
    """Run 100 operations a second for 4 s, with the event loop held up for a second at 2 s."""
    served = target.serve
    held = [False]

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        if len(target.asked) == 200 and not held[0]:
            held[0] = True
            vars(loop)["_now"] += 1.0  # as a long callback would
        await served()

    target.serve = serve
    return play(target, rate_per_s=100.0, arrivals=Arrivals.CONSTANT, duration_s=4.0)


def times(tally: Tally) -> list[int]:
    """Return the latency of each operation that succeeded, in ns, as the histogram knows it."""
    found, before = [], 0
    for value, below in tally.counts()[PUT].latency.cumulative():
        found += [value] * (below - before)
        before = below
    return found


def test_at_the_bound_operations_that_are_due_are_dropped_and_counted() -> None:
    """With as many operations under way as are allowed the next ones are not begun, never late, and all counted."""
    target = Scripted(lambda: answer_after(1.0))
    plan, tally = play(
        target, rate_per_s=100.0, arrivals=Arrivals.CONSTANT, duration_s=3.0, outstanding_max=10
    )
    assert target.inside_max == 10
    assert ok(tally) + tally.dropped_total == 300
    assert ok(tally) == 30
    assert tally.lag.max_ns < 2 * MS
    result = Result(plan, tally, started="")
    assert result.offered_per_s == pytest.approx(100.0)
    assert any("270 operations were dropped" in note for note in result.notes)


def test_what_is_dropped_in_the_warm_up_is_not_counted() -> None:
    """The warm-up has the same bound; what it drops is nobody's loss."""
    target = Scripted(lambda: answer_after(0.995))
    _, tally = play(
        target,
        rate_per_s=100.0,
        arrivals=Arrivals.CONSTANT,
        duration_s=1.0,
        warmup_s=1.0,
        outstanding_max=1,
    )
    assert ok(tally) + tally.dropped_total == 100


def test_a_refusal_is_no_success() -> None:
    """Errors are counted by reason and outcome with latencies of their own, and the run goes on."""
    number = [0]

    async def serve() -> None:
        number[0] += 1
        await asyncio.sleep(0.01)
        if number[0] % 4 == 0:
            raise Overloaded
        if number[0] % 4 == 1:
            await asyncio.sleep(0.5)
            raise UnknownOutcome

    plan, tally = play(Scripted(serve), count=40, concurrency=1)
    result = Result(plan, tally, started="")
    assert {(row.reason, row.outcome): row.latency.count for row in result.rows} == {
        ("", "done"): 20,
        ("OVERLOADED", "not done"): 10,
        ("UNKNOWN_OUTCOME", "unknown"): 10,
    }
    assert (result.ok, result.failed) == (20, 20)
    refused, unknown = (row.quantiles_ms["max"] for row in result.rows[1:])
    assert refused == pytest.approx(10)
    assert unknown == pytest.approx(510)


def test_errors_without_a_wait_do_not_starve_the_others() -> None:
    """A target that refuses at once leaves the event loop its turns: a timer of the same loop fires on time."""
    fired: list[int] = []

    async def serve() -> None:
        if not target.asked[1:]:
            asyncio.get_running_loop().call_soon(lambda: fired.append(len(target.asked)))
        raise Overloaded

    target = Scripted(serve)
    play(target, count=1000, concurrency=1)
    assert fired
    assert fired[0] < 10


def test_a_defect_ends_the_run() -> None:
    """What is no error of the store is not counted as one."""

    async def serve() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as raised:
        play(Scripted(serve), count=10, concurrency=2)
    assert raised.value.subgroup(ZeroDivisionError)


def test_the_same_seed_asks_the_same() -> None:
    """Two runs with one seed draw the same keys at the same times, one with another seed others."""
    runs = []
    for seed in (1, 1, 2):
        target = Scripted()
        play(target, Kind.MIXED, rate_per_s=100.0, duration_s=2.0, seed=seed)
        runs.append((target.asked, target.times_s))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]
    assert runs[0][1] != runs[2][1]
