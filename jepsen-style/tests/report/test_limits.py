"""What is drawn and written is bounded, and the page says what was left out."""

from __future__ import annotations

from kv_jepsen.checkers import CheckResult, Finding
from kv_jepsen.elle import Anomaly, ElleResult, Txn
from kv_jepsen.history import History, Op, OpType, Outcome
from kv_jepsen.periods import Period
from kv_jepsen.report import Run, linear, page, plots, report
from kv_jepsen.report import cycles as cycles_page
from kv_jepsen.report import document as document_file
from kv_jepsen.report.document import document
from kv_jepsen.report.markup import short
from kv_jepsen.verdict import Failure, Judgement, KeyVerdict, Step, Verdict


def serial(count: int, clients: int = 1, ok: bool = True) -> History:
    """So many calls, a millisecond each, by processes in turn."""
    ops: list[Op] = []
    for i in range(count):
        who = i % clients
        ops.append(Op(0, who, OpType.INVOKE, "write", "x", i, (2 * i) * 1_000_000))
        ops.append(Op(0, who, OpType.OK if ok else OpType.FAIL, "write", "x", i, (2 * i + 1) * 1_000_000))
    return History(ops)


def failing(made: History, steps: int, partials: int) -> Verdict:
    """A verdict with a window of all calls and linearizations of so many steps."""
    calls = made.calls
    partial = tuple(Step(call, str(i)) for i, call in enumerate(calls[:steps]))
    failure = Failure(calls, calls[-1], ("nil",), (partial,) * partials)
    return Verdict("register", (KeyVerdict("x", Judgement.NOT_LINEARIZABLE, len(calls), failure=failure),))


def test_findings_of_a_checker() -> None:
    """The page shows the first findings and how many more there are; the document holds more."""
    for extra, words in ((0, False), (1, True)):
        findings = tuple(Finding("lost", f"{i} is gone.") for i in range(page.FINDINGS_MAX + extra))
        made = report(Run("r", "", serial(1), checks=(CheckResult("set", False, findings),)))
        assert ("and 1 more, in results.json" in made) == words
        assert made.count("is gone.") == page.FINDINGS_MAX
    many = tuple(Finding("lost", "gone") for _ in range(document_file.FINDINGS_MAX + 1))
    written = document(Run("r", "", serial(1), checks=(CheckResult("set", False, many),)))
    assert len(written["checks"][0]["findings"]) == document_file.FINDINGS_MAX
    assert written["checks"][0]["findings_total"] == document_file.FINDINGS_MAX + 1


def test_keys_that_are_drawn() -> None:
    """Of many keys that are not linearizable some are drawn, and all are counted."""
    made = serial(2)
    (key,) = failing(made, 1, 1).keys
    verdict = Verdict("register", (key,) * (page.KEYS_MAX + 1))
    text = report(Run("r", "", made, linearizable=verdict))
    assert text.count("is not linearizable: no order") == page.KEYS_MAX
    assert f"not linearizable: {page.KEYS_MAX + 1}" in text


def test_the_window_the_linearizations_and_their_steps() -> None:
    """A large failure is drawn by its end, and it is told how many calls are not."""
    made = serial(linear.CALLS_MAX + 3, clients=linear.LANES_MAX + 1)
    verdict = failing(made, linear.STEPS_MAX + 2, linear.PARTIALS_MAX + 1)
    text = linear.failure(verdict.keys[0])
    assert "3 earlier calls of the part are not drawn." in text
    assert text.count("<rect") == linear.CALLS_MAX
    assert text.count("<details") == linear.PARTIALS_MAX
    assert text.count("<li>") == linear.PARTIALS_MAX * linear.STEPS_MAX
    assert '<ol start="3">' in text
    assert f"Linearization 1: {linear.STEPS_MAX + 2} calls" in text


def test_anomalies_of_one_name() -> None:
    """Examples of each anomaly are shown, and all are counted."""
    count = cycles_page.PER_KIND_MAX + 1
    txns = tuple(Txn(i, i, Outcome.OK, (), 2 * i, 2 * i + 1) for i in range(count))
    anomalies = tuple(Anomaly("G1a", (i,), f"T{i} did it.") for i in range(count))
    result = ElleResult("serializable", False, anomalies, (), (), count, 0)
    text = cycles_page.cycles(result, txns)
    assert text.count("did it.") == cycles_page.PER_KIND_MAX
    assert f"G1a ({count})" in text


def test_points_are_thinned_and_failures_kept() -> None:
    """Of more calls than are drawn every so-many-th of the good ones is, and each of the others up to the limit."""
    good = serial(50).calls
    bad = serial(7, ok=False).calls
    assert plots.thinned([*good, *bad]) == [*good, *bad]
    many = list(good) * (plots.POINTS_MAX // 50)
    kept = plots.thinned([*many, *bad])
    assert len(kept) <= plots.POINTS_MAX
    assert [call for call in kept if not call.ok] == list(bad)
    assert len(plots.thinned(list(bad) * plots.POINTS_MAX)) == plots.POINTS_MAX


def test_faults_that_are_listed() -> None:
    """The list of faults is cut, and their number is told."""
    faults = tuple(Period("reset", f"n{i}", i, i) for i in range(page.FAULTS_MAX + 1))
    text = report(Run("r", "", serial(1), faults=faults))
    assert f"{page.FAULTS_MAX + 1} faults" in text
    assert text.count("<td>reset</td>") == page.FAULTS_MAX


def test_long_values_are_cut() -> None:
    """A value is shown whole up to the limit, and cut with a mark beyond it."""
    assert short("x" * 40) == "x" * 40
    assert short("x" * 41) == "x" * 39 + "…"
    assert short((1, (None, "a"))) == "[1, [nil, a]]"
