"""Whole checks: recorded histories with known verdicts, limits, evidence, and the picture of a failure."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest

from kv_jepsen import brute
from kv_jepsen.formats import parse
from kv_jepsen.generate import Plan, correct, with_impossible_output, with_wrong_output
from kv_jepsen.history import OPEN, Call, History, Op, OpType, Outcome
from kv_jepsen.linearizable import Limits, check
from kv_jepsen.models import KvString, Register, UnsuitableHistory
from kv_jepsen.verdict import Judgement

DATA = Path(__file__).parent / "data"
VERDICTS = dict(line.split("\t") for line in (DATA / "jepsen-etcd/verdicts.tsv").read_text().splitlines())
LOGS = sorted(DATA.glob("jepsen-etcd/*.log"))
MAPS = sorted(DATA.glob("kv/*.txt"))


def history_of(file: Path) -> History:
    """The recorded history in a file."""
    return parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", LOGS, ids=lambda file: file.name)
def test_etcd_logs_are_judged_right(file: Path) -> None:
    """A register under faults, with many calls of unknown outcome: the known verdict, in about a second at most."""
    began = time.monotonic()
    verdict = check(history_of(file), now=time.monotonic)
    assert verdict.model == "register"
    assert verdict.judgement is (
        Judgement.LINEARIZABLE if VERDICTS[file.name] == "true" else Judgement.NOT_LINEARIZABLE
    )
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("file", MAPS, ids=lambda file: file.name)
def test_maps_of_strings_are_judged_right(file: Path) -> None:
    """Keys are judged apart; one wrong key makes the history wrong."""
    verdict = check(history_of(file), now=time.monotonic)
    assert verdict.model == "kv"
    assert verdict.judgement is (Judgement.LINEARIZABLE if "ok" in file.name else Judgement.NOT_LINEARIZABLE)


def test_fifty_clients_on_ten_keys_are_judged_in_seconds() -> None:
    """5,000 calls of 50 clients: accepted as they are, rejected with one wrong answer, and the key is named."""
    rng = Random(50)
    history = correct("kv", Plan(calls=5000, clients=50, keys=10, values=0, unknown_share=0.01), rng)
    assert check(history, now=time.monotonic).judgement is Judgement.LINEARIZABLE
    bad = with_impossible_output(history, "kv", rng)
    assert bad is not None
    verdict = check(bad, now=time.monotonic)
    (changed,) = (one.key for one, two in zip(bad.calls, history.calls, strict=True) if one != two)
    assert [key.key for key in verdict.failures] == [changed]


def test_fifty_clients_on_one_register_with_a_stale_read_are_rejected() -> None:
    """2,000 calls of 50 clients and one read of a value long overwritten: not linearizable."""
    history = correct(
        "register", Plan(calls=2000, clients=50, values=0, unknown_share=0, eagerness=0.9), Random(7)
    )
    reads = [call for call in history.calls if call.f == "read" and call.ok]
    early = next(call for call in reads if call.output is not None)
    late = reads[-1]
    ops = list(history.ops)
    ops[late.end] = replace(ops[late.end], value=early.output)
    verdict = check(History(ops), limits=Limits(seconds=60), now=time.monotonic)
    assert verdict.judgement is Judgement.NOT_LINEARIZABLE


@pytest.mark.parametrize("model", ["register", "kv"])
def test_fifty_clients_all_at_once_on_one_key_with_a_stale_answer_are_rejected(model: str) -> None:
    """More calls open at a time than any search can try: the answers that contradict each other are found and named."""
    plan = Plan(calls=3000, clients=50, values=0, unknown_share=0.05, eagerness=0.3)
    history = correct(model, plan, Random(7))
    answers = [call for call in history.calls if call.f in {"read", "get"} and call.ok]
    early = next(call for call in answers if call.output not in {None, ""})
    ops = list(history.ops)
    ops[answers[-1].end] = replace(ops[answers[-1].end], value=early.output)
    verdict = check(History(ops), now=time.monotonic)
    assert verdict.judgement is Judgement.NOT_LINEARIZABLE
    failure = verdict.keys[0].failure
    assert failure is not None
    assert failure.complete
    assert len(failure.window) <= 5


def test_a_limit_gives_unknown_and_says_which() -> None:
    """When time is over the judgement is unknown, apart from pass, and tells what to raise; so does memory."""
    history = correct("versioned", Plan(calls=400, clients=60, eagerness=0.1, unknown_share=0.3), Random(1))
    ticks = count()
    verdict = check(history, limits=Limits(seconds=3), now=lambda: float(next(ticks)))
    assert verdict.judgement is Judgement.UNKNOWN
    assert "raise --time-limit" in verdict.keys[0].reason
    verdict = check(history, limits=Limits(seconds=1e9, memory_mib=0))
    assert verdict.judgement is Judgement.UNKNOWN
    assert "raise --memory-limit" in verdict.keys[0].reason


def test_an_unsuitable_model_is_an_error() -> None:
    """A model that lacks a function of the history is refused, not guessed around."""
    with pytest.raises(UnsuitableHistory):
        check(history_of(LOGS[0]), KvString())


def test_a_history_without_calls_is_linearizable() -> None:
    """Nothing was asked, nothing was answered wrong."""
    verdict = check(History([Op(0, "nemesis", OpType.INFO, "cut")]), Register())
    assert (verdict.judgement, verdict.keys) == (Judgement.LINEARIZABLE, ())


@pytest.mark.parametrize(
    "file", [file for file in LOGS if VERDICTS[file.name] == "false"], ids=lambda f: f.name
)
def test_a_failure_shows_a_small_part_that_cannot_be(file: Path) -> None:
    """The part ends with a call that no order explains; each partial order fits the model from an entry state and lacks it."""
    verdict = check(history_of(file))
    failure = verdict.failures[0].failure
    assert failure is not None
    assert failure.complete
    assert failure.blocked in failure.window
    assert 1 <= len(failure.window) <= 20, "small enough to look at"
    assert failure.entry_states
    for partial in failure.partials:
        assert failure.blocked not in [step.call for step in partial]
        assert {step.call.id for step in partial} <= {call.id for call in failure.window}


def test_the_failing_part_fails_by_itself() -> None:
    """Brute force from any entry state, with the calls begun before it as optional ones, finds no order of the part either."""
    shown = 0
    for seed in range(60):
        rng = Random(seed)
        history = correct("register", Plan(calls=20, clients=3, values=3, unknown_share=0.1), rng)
        bad = with_wrong_output(history, rng)
        verdict = check(bad or history)
        for key in verdict.failures:
            failure = key.failure
            assert failure is not None
            assert failure.complete
            assert not any(
                _part_is_possible(failure.window, failure.blocked.end, entry)
                for entry in failure.entry_states
            )
            shown += 1
    assert shown > 20


def _part_is_possible(window: tuple[Call, ...], end: int, entry: str) -> bool:
    """Whether brute force finds an order of the part from this entry state."""

    class Entered(Register):
        def init(self) -> object:
            return {"None": None, **{str(value): value for value in range(3)}}.get(entry, entry)

    first = min(call.start for call in window if call.end <= end)
    part = Entered().taking_part(
        [
            call
            if call.end <= end and call.start >= first
            else replace(call, end=OPEN, outcome=Outcome.UNKNOWN)
            for call in window
        ]
    )
    return len(part) <= brute.CALLS_MAX and brute.linearizable(Entered(), part)


def test_the_order_is_returned_if_asked_for() -> None:
    """With `with_order` each linearizable key has an order of its calls; without it none."""
    history = history_of(DATA / "kv/c10-ok.txt")
    keys = check(history, with_order=True).keys
    assert all(key.linearization is not None and len(key.linearization) == key.calls for key in keys)
    assert all(key.linearization is None for key in check(history).keys)
