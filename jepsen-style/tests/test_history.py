"""Recorded operations become calls, and what breaks the rules of recording is named."""

from __future__ import annotations

import pytest

from kv_jepsen.history import OPEN, FrozenMap, History, MalformedHistory, Op, OpType, Outcome


def op(process: int | str, kind: str, f: str = "read", value: object = None, **rest: object) -> Op:
    """One recorded line; the history numbers it."""
    return Op(-1, process, OpType(kind), f, value=value, **rest)  # type: ignore[arg-type]


def test_an_invocation_and_its_completion_are_one_call() -> None:
    """A call has the input of the one and the output of the other, and lasts from the one to the other."""
    history = History(
        [op(1, "invoke", time_ns=5), op(2, "invoke", "write", 3), op(1, "ok", value=7, time_ns=9)]
    )
    read = history.calls[0]
    assert (read.input, read.output, read.start, read.end, read.outcome) == (None, 7, 0, 2, Outcome.OK)
    assert (read.start_ns, read.end_ns) == (5, 9)


@pytest.mark.parametrize("tail", [[], [op(1, "info", "write", error="timed-out")]])
def test_a_call_without_a_known_end_stays_open_forever(tail: list[Op]) -> None:
    """Whether nothing was recorded or `info` was, the outcome is unknown and the end later than everything."""
    (call,) = History([op(1, "invoke", "write", 3), *tail]).calls
    assert (call.outcome, call.end, call.output) == (Outcome.UNKNOWN, OPEN, None)


def test_after_info_the_process_may_go_on() -> None:
    """A process that gave up on a call may invoke the next one under the same number."""
    history = History([op(1, "invoke"), op(1, "info"), op(1, "invoke"), op(1, "ok", value=2)])
    assert [call.outcome for call in history.calls] == [Outcome.UNKNOWN, Outcome.OK]


def test_a_failed_call_is_kept_as_failed() -> None:
    """`fail` ends a call that has not happened; checkers need it to tell reads of what was never written."""
    (call,) = History([op(1, "invoke", "write", 3), op(1, "fail", "write", 3, error="refused")]).calls
    assert (call.outcome, call.error) == (Outcome.FAILED, "refused")


@pytest.mark.parametrize(
    ("ops", "index", "words"),
    [
        ([op(1, "invoke"), op(1, "invoke")], 1, "while its read"),
        ([op(1, "invoke"), op(1, "ok"), op(1, "ok")], 2, "without having invoked"),
        ([op(1, "info")], 0, "without having invoked"),
        ([op(1, "invoke"), op(1, "ok", "write")], 1, "completes write"),
        ([op(1, "invoke", key="a"), op(1, "ok", key="b")], 1, "'b'"),
    ],
)
def test_what_breaks_the_rules_is_named(ops: list[Op], index: int, words: str) -> None:
    """A history in which a process does two things at once, or ends what it has not begun, is refused."""
    with pytest.raises(MalformedHistory, match=words) as caught:
        History(ops)
    assert caught.value.index == index


def test_a_named_process_only_comments() -> None:
    """The nemesis may say `info` at any time; it makes no calls."""
    history = History([op("nemesis", "info", "cut"), op("nemesis", "info", "cut"), op(1, "invoke")])
    assert [note.f for note in history.notes] == ["cut", "cut"]
    assert len(history.calls) == 1


def test_evidence_of_the_reply_is_with_the_call() -> None:
    """What the completion says is put over what the invocation said."""
    history = History(
        [
            op(1, "invoke", extra={"node": "n1", "level": "stale"}),
            op(1, "ok", extra={"node": "n2", "index": 7}),
        ]
    )
    assert history.calls[0].extra == {"node": "n2", "level": "stale", "index": 7}


def test_calls_are_grouped_by_key_in_the_order_of_the_history() -> None:
    """Each key has its own calls, in the order of invocation."""
    history = History([op(1, "invoke", key="b"), op(2, "invoke", key="a"), op(3, "invoke", key="b")])
    assert [(key, [call.id for call in calls]) for key, calls in history.by_key().items()] == [
        ("b", [0, 2]),
        ("a", [1]),
    ]


def test_a_frozen_map_equals_and_hashes_by_its_items() -> None:
    """Order does not matter, and it equals a plain dict of the same items."""
    one, other = FrozenMap({"a": 1, "b": 2}), FrozenMap([("b", 2), ("a", 1)])
    assert one == other == {"a": 1, "b": 2}
    assert hash(one) == hash(other)
