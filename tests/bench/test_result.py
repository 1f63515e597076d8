"""The figures of a run, and the document that programs read."""

from __future__ import annotations

import json

import pytest

from kv.bench.kinds import Kind
from kv.bench.plan import Plan, window_ns
from kv.bench.result import VERSION, Result, document, series
from kv.bench.tally import Ending, Tally, ending_of
from kv.errors import Overloaded

PUT, GET = Ending("put"), Ending("get")
REFUSED = ending_of("put", Overloaded())
S = 1_000_000_000
PLAN = Plan(Kind.PUT, "kv://127.0.0.1:7001", duration_s=8.0, rate_per_s=10.0, outstanding_max=5)


def result(plan: Plan = PLAN) -> Result:
    """Return a run of 8 s: 40 puts of 10 ms, 16 refusals of 1 ms, one slow put that ends late, 3 dropped."""
    tally = Tally(window_ns(plan))
    for number in range(40):
        tally.ended(number * S // 5, PUT, 1, 10_000_000)
    for number in range(16):
        tally.ended(number * S // 2, REFUSED, 0, 1_000_000)
    tally.ended(11 * S, PUT, 1, 4 * S)
    for _ in range(3):
        tally.dropped(S)
    tally.cpu_s.extend([0.2, 0.1])
    return Result(plan, tally, started="today")


def test_goodput_is_of_what_ended_well_in_time() -> None:
    """Refusals, what was dropped, and what ended after the measured time are no goodput; offered is all that was due."""
    found = result()
    assert (found.ok, found.failed, found.dropped) == (41, 16, 3)
    assert found.goodput_per_s == pytest.approx(40 / 8)
    assert found.offered_per_s == pytest.approx((41 + 16 + 3) / 8)
    assert found.items_per_s == pytest.approx(40 / 8)
    assert {row.reason: row.per_s for row in found.rows} == pytest.approx({"": 5.0, "OVERLOADED": 2.0})


def test_latencies_of_refusals_stand_apart() -> None:
    """A fast refusal does not make the latency of success look better."""
    good, refused = result().rows
    assert good.quantiles_ms["p50"] == pytest.approx(10, rel=0.01)
    assert good.quantiles_ms["max"] == 4000
    assert refused.quantiles_ms["max"] == 1


def test_the_document_has_everything_as_json() -> None:
    """The document is JSON, with the plan, the endings, the series and the distribution, and survives a round trip."""
    found = document(result())
    assert json.loads(json.dumps(found)) == found
    assert found["version"] == VERSION
    assert (found["succeeded"], found["failed"], found["dropped"]) == (41, 16, 3)
    good, refused = found["endings"]
    assert (good["reason"], good["outcome"], refused["reason"], refused["outcome"]) == (
        None,
        "done",
        "OVERLOADED",
        "not done",
    )
    assert good["distribution"][-1] == [4000.0, 41]
    assert found["client_cpu"] == [0.2, 0.1]
    assert Plan.parse(found["plan"]) == PLAN


def test_the_series_has_every_window() -> None:
    """Windows without anything are there with rates of 0, and no latency is made up for them."""
    windows = series(result().tally)
    width_s = result().tally.width_ns / 1e9
    assert [moment["at_s"] for moment in windows] == pytest.approx(
        [number * width_s for number in range(len(windows))]
    )
    assert windows[0]["p50_ms"] == pytest.approx(10, rel=0.01)
    assert windows[0]["failed_per_s"] == {"OVERLOADED": pytest.approx(1 / width_s, abs=0.001)}
    empty = [moment for moment in windows if not moment["ok_per_s"]]
    assert empty
    assert all(moment["p50_ms"] is None and moment["p99_ms"] is None for moment in empty)


def test_a_run_of_a_number_of_operations_lasts_until_its_last_answer() -> None:
    """Without a duration the measured time ends with the last operation, and nothing is left out of the rate."""
    found = result(Plan(Kind.PUT, PLAN.url, count=57, rate_per_s=10.0))
    assert found.measured_s == pytest.approx(11.0)
    assert found.goodput_per_s == pytest.approx(41 / 11)


def test_a_closed_loop_offers_nothing() -> None:
    """Where nothing is due by the clock there is no offered rate."""
    assert result(Plan(Kind.PUT, PLAN.url, duration_s=8.0)).offered_per_s is None


def test_a_reader_is_warned() -> None:
    """A busy client process, gets without a key, drops and a late generator are told beside the figures; else nothing is."""
    quiet = Tally(window_ns(PLAN))
    quiet.ended(S, GET, 1, 10_000_000)
    plan = Plan(Kind.GET, PLAN.url, duration_s=8.0, rate_per_s=1.0)
    assert Result(plan, quiet, started="").notes == []
    quiet.cpu_s.append(0.95)
    quiet.ended(S, GET, 0, 10_000_000)
    quiet.dropped(S)
    quiet.lag.record(5_000_000)
    busy, dropped, missed, late = Result(plan, quiet, started="").notes
    assert "95% of a core" in busy
    assert dropped.startswith("1 operations were dropped")
    assert missed.startswith("1 gets found no key")
    assert "5.00 ms after their time" in late


def test_a_run_in_which_nothing_happened_has_figures() -> None:
    """Without a single answer all figures are 0, and nothing divides by it."""
    for plan in (PLAN, Plan(Kind.PUT, PLAN.url, count=1)):
        found = document(Result(plan, Tally(window_ns(plan)), started=""))
        assert (found["goodput_per_s"], found["endings"], found["series"]["windows"]) == (0.0, [], [])
