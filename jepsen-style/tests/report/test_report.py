"""The pages are whole documents of one file, whatever the history holds, and they say what was found."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_jepsen.checkers import CheckResult, Finding
from kv_jepsen.elle import check, transactions
from kv_jepsen.history import History, Op, OpType, Value
from kv_jepsen.periods import Period
from kv_jepsen.report import Run, Summary, index, report
from kv_jepsen.report.markup import VOID
from kv_jepsen.report.timeline import CALLS_MAX, lanes, part_to_draw
from kv_jepsen.verdict import Failure, Judgement, KeyVerdict, Step, Verdict

MS = 1_000_000
HOSTILE = '<script>alert("x")</script>&"\''


class Outline(HTMLParser):
    """Reads a page, and fails where tags do not match or something is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"an event handler: {name}"
            assert name != "src", f"something is loaded: {value}"
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def outline(page: str) -> Outline:
    """The page, read and found whole and self-contained."""
    read = Outline()
    read.feed(page)
    read.close()
    assert read.stack == []
    assert not {"script", "link", "iframe", "img", "object"} & set(read.tags)
    assert not [link for link in read.links if ":" in link], "links lead to places in the result folder only"
    assert "@import" not in page
    assert "url(http" not in page
    return read


def history(*rows: tuple[int | str, str, str, Value, Value]) -> History:
    """A history of process, type, function, key and value; a millisecond apart."""
    return History(
        Op(i, process, OpType(kind), f, key, value, i * MS)
        for i, (process, kind, f, key, value) in enumerate(rows)
    )


REGISTER = history(
    (0, "invoke", "write", "x", 1),
    (1, "invoke", "write", "x", 2),
    (0, "ok", "write", "x", 1),
    ("nemesis", "info", "partition", None, "n1/*"),
    (1, "info", "write", "x", 2),
    (0, "invoke", "read", "x", None),
    (0, "ok", "read", "x", 7),
)


def failed(made: History) -> Verdict:
    """The verdict that the last call cannot be explained."""
    calls = made.calls
    partial = (Step(calls[0], "1"), Step(calls[1], "2"))
    failure = Failure(calls, calls[-1], ("nil",), (partial, partial[:1], ()))
    return Verdict("register", (KeyVerdict("x", Judgement.NOT_LINEARIZABLE, len(calls), failure=failure),))


def run(made: History = REGISTER, **given_: object) -> Run:
    """A run with these fields."""
    return replace(Run("a run", "2026-01-02T03:04:05Z", made), **given_)  # type: ignore[arg-type]


def test_a_run_without_checks_is_unknown() -> None:
    """Nothing checked is no pass, on the page as in the value."""
    plain = run()
    assert plain.valid == "unknown"
    assert "Nothing was checked." in outline(report(plain)).words


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        ([True, True], True),
        ([True, "unknown"], "unknown"),
        (["unknown", False], False),
        ([False, True], False),
    ],
)
def test_the_verdict_on_a_run_is_its_worst(verdicts: list[bool], whole: object) -> None:
    """One violation decides, then one unknown."""
    checks = tuple(CheckResult(f"c{i}", valid) for i, valid in enumerate(verdicts))
    assert run(checks=checks).valid == whole


def test_a_failure_is_drawn_with_its_linearizations() -> None:
    """The call that cannot be explained is outlined; each partial linearization is a line and a list."""
    page = report(run(linearizable=failed(REGISTER)))
    read = outline(page)
    text = " ".join(read.words)
    assert (
        "Key x is not linearizable: no order of the calls explains operation 5, read → 7 by process 0."
        in text
    )
    assert page.count(' blocked"') == 2  # in the picture of the failure and in the timeline
    assert [f"Linearization {i}" in text for i in (1, 2, 3)] == [True, True, True]
    assert "No call of the part fits at all." in text
    assert "write 2 (process 1) → state 2" in text


def test_cycles_are_drawn_with_their_reasons() -> None:
    """Each step of a cycle is told with its kind, and its transactions are shown."""
    made = history(
        (0, "invoke", "txn", None, (("append", "x", 1), ("r", "y", None))),
        (1, "invoke", "txn", None, (("append", "y", 1), ("r", "x", None))),
        (0, "ok", "txn", None, (("append", "x", 1), ("r", "y", (1,)))),
        (1, "ok", "txn", None, (("append", "y", 1), ("r", "x", (1,)))),
    )
    txns = transactions(made.calls)
    result = run(made, elle=check(txns), txns=tuple(txns))
    text = " ".join(outline(report(result)).words)
    assert "T0 → T1: T1 read x up to 1, which T0 appended" in text
    assert "T1 [append y 1, read x [1]]" in text
    assert "Ruled out: read-committed, and everything stronger." in text
    assert result.suspects() == {0, 1}


def test_findings_lead_to_the_calls_in_the_timeline() -> None:
    """A link of a finding is the id of a bar."""
    checks = (CheckResult("set", False, (Finding("lost", "5 is gone.", (0, 5)),), {"lost": 1}),)
    read = outline(report(run(checks=checks)))
    assert {"#op-0", "#op-5"} <= set(read.links)
    assert {"op-0", "op-5"} <= set(read.ids)


def test_faults_are_shaded_in_each_plot_and_listed() -> None:
    """The three plots over time have a band for each fault, also for one that never ended."""
    faults = (Period("partition", "n1/*", 1 * MS, 3 * MS), Period("crash", "n2", 2 * MS, None))
    page = report(run(faults=faults, schedule="1.0 partition n1/*", logs={"n1": "logs/n1.log"}))
    read = outline(page)
    assert page.count('class="fault fault0"') == page.count('class="fault fault1"') == 3
    assert "1.0 partition n1/*" in read.words
    assert "logs/n1.log" in read.links


def test_staleness_is_drawn_by_level() -> None:
    """Each read level has its row of bars with the number of its reads."""
    read = outline(report(run(staleness={"stale": (3, *[0] * 15, 4), "linearizable": (9, *[0] * 16)})))
    assert {"stale", "7", "3", "4", "linearizable", "9"} <= set(read.words)


def test_what_was_recorded_cannot_become_markup() -> None:
    """Names, values, errors, logs and schedules with markup in them are shown as they are."""
    made = history(
        (0, "invoke", HOSTILE, HOSTILE, HOSTILE),
        (0, "ok", HOSTILE, HOSTILE, (HOSTILE,)),
        ("nemesis", "info", "partition", None, HOSTILE),
    )
    verdict = failed(REGISTER)
    checks = (CheckResult(HOSTILE, False, (Finding(HOSTILE, HOSTILE, (0,)),), {HOSTILE: 1}, HOSTILE),)
    faults = (Period("cut", HOSTILE, 0, None),)
    page = report(
        run(
            made,
            name=HOSTILE,
            facts={HOSTILE: HOSTILE},
            checks=checks,
            linearizable=verdict,
            faults=faults,
            schedule=HOSTILE,
            logs={HOSTILE: "logs/x.log"},
        )
    )
    assert HOSTILE in " ".join(outline(page).words)
    listing = index([Summary("folder", HOSTILE, HOSTILE, True, 1, 1.0, {HOSTILE: HOSTILE})])
    assert HOSTILE in outline(listing).words


VALUES = st.one_of(
    st.none(), st.integers(), st.text(max_size=5), st.tuples(st.integers(), st.text(max_size=3))
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4), st.sampled_from(["ok", "fail", "info", "none"]), VALUES, st.integers(0, 10**12)
        ),
        max_size=15,
    )
)
def test_every_history_makes_a_page(rows: list[tuple[int, str, Value, int]]) -> None:
    """Any calls with any times, ends and values make a whole page, with a bar for each call."""
    ops: list[Op] = []
    for n, (process, kind, value, time_ns) in enumerate(rows):
        who = process + 10 * n
        ops.append(Op(0, who, OpType.INVOKE, "f", None, value, time_ns))
        if kind != "none":
            ops.append(Op(0, who, OpType(kind), "f", None, value, time_ns + n))
    made = History(ops)
    read = outline(report(run(made)))
    assert {f"op-{call.id}" for call in made.calls} <= set(read.ids)


def test_a_history_without_times_has_no_plots_but_a_timeline() -> None:
    """Where nothing tells times the page says so, and the timeline goes by the order of operations."""
    timeless = History(replace(op, time_ns=0) for op in REGISTER.ops)
    read = outline(report(run(timeless)))
    assert "The history has no times, so there are no plots over time." in read.words
    assert "op-0" in read.ids


def test_of_a_long_history_the_part_around_the_violation_is_drawn() -> None:
    """The timeline holds so many calls at most, with the first suspect in the middle."""
    rows: list[tuple[int | str, str, str, Value, Value]] = []
    for i in range(CALLS_MAX * 2):
        rows += [(0, "invoke", "write", None, i), (0, "ok", "write", None, i)]
    calls = history(*rows).calls
    part = part_to_draw(calls, {calls[-CALLS_MAX].id})
    assert len(part) == CALLS_MAX
    assert part[CALLS_MAX // 2] == calls[-CALLS_MAX]
    assert part_to_draw(calls, ()) == calls[:CALLS_MAX]
    assert part_to_draw(calls, {calls[-1].id})[-1] == calls[-1]


def test_a_process_that_begins_after_another_ended_takes_its_lane() -> None:
    """Crashed processes and their successors share a lane; if calls are kept open they do not."""
    made = history(
        (0, "invoke", "w", None, 1),
        (0, "info", "w", None, 1),
        (1, "invoke", "w", None, 1),
        (2, "invoke", "w", None, 1),
        (1, "ok", "w", None, 1),
        (2, "ok", "w", None, 1),
    ).calls
    assert lanes(made) == {0: 0, 1: 0, 2: 1}
    assert lanes(made, keep_open=True) == {0: 0, 1: 1, 2: 2}


def test_the_index_has_the_newest_run_first() -> None:
    """Every run is a line with its verdict and a link to its report."""
    summaries = [
        Summary("20260101T000000-a", "a", "then", True, 10, 1.0),
        Summary("20260102T000000-b", "b", "later", False, 10, 1.0, {"seed": "4"}),
    ]
    read = outline(index(summaries))
    assert read.links == ["20260102T000000-b/report.html", "20260101T000000-a/report.html"]
    assert "2 runs, 1 with a violation." in read.words
    assert "There are no runs yet." in outline(index([])).words


def test_calls_before_the_failure_are_drawn_faintly() -> None:
    """What succeeded before the part that fails is there to show how the object came to its state."""
    made = history(
        (0, "invoke", "write", "x", 1),
        (0, "ok", "write", "x", 1),
        (0, "invoke", "write", "y", 1),
        (0, "ok", "write", "y", 1),
        (0, "invoke", "read", "x", None),
        (0, "ok", "read", "x", 2),
    )
    blocked = made.calls[-1]
    failure = Failure((blocked,), blocked, ("1",), ((),))
    verdict = Verdict("register", (KeyVerdict("x", Judgement.NOT_LINEARIZABLE, 2, failure=failure),))
    page = report(run(made, linearizable=verdict))
    outline(page)
    assert page.count(' context"') == 1
