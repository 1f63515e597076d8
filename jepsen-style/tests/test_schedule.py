"""The reader of schedules, against the simulator's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import InvalidArgument
from kv.sim import faults as simulator
from kv_jepsen import schedule
from kv_jepsen.schedule import BadSchedule, Where, fault, format_schedule, groups, links, parse_schedule

FILES = (
    "",
    "# nothing but a comment\n\n",
    "5.0 partition leader:1/*\n9.5 heal *\n14 calm * # the end\n",
    "1 cut n1>n2\n1 cut n2-n3\n0.5 slow n1-n3 seconds=0.3\n2 reset n1-n2\n",
    "1 weather * loss=0.1 long_delay=0.02 seconds=1\n2 weather *\n",
    "1 crash n1\n2 crash n2 power=yes\n3 crash_at leader:2 point=before_sync count=2\n4 start *\n",
    "1 clock_jump n1 seconds=-30\n2 clock_rate n2 rate=1.5\n3 pause follower:1\n4 resume *\n",
    "1 fill n1\n2 free n1\n3 flip n2\n4 fail_sync n3\n5 slow_sync n1 seconds=0\n",
    "1 explode n1\n",
    "x calm *\n",
    "-1 calm *\n",
    "nan calm *\n",
    "1 calm n1\n",
    "1 partition n1\n",
    "1 partition n1,/n2\n",
    "1 cut n1>n1\n",
    "1 cut *>n1\n",
    "1 crash_at n1\n",
    "1 crash_at n1 point=nowhere\n",
    "1 crash n1 power=maybe\n",
    "1 slow n1-n2 seconds=fast\n",
    "1 slow n1-n2 seconds=-1\n",
    "1 weather * loss=1.1\n",
    "1 clock_rate n1 rate=0\n",
    "1 clock_jump n1\n",
    "1 heal * now=1\n",
    "1 slow n1-n2 seconds=1 seconds=2\n",
    "1 heal\n",
)

WORDS = st.sampled_from(
    [
        *schedule.KINDS,
        *[
            "0",
            "1.5",
            "-1",
            "*",
            "n1",
            "n1>n2",
            "n1-n2",
            "n1,n2/n3",
            "leader:1",
            "loss=0.5",
            "power=yes",
            "seconds=1",
            "seconds=-1",
            "seconds=x",
        ],
        *["point=after_sync", "rate=0", "count=3", "#", "="],
    ]
)


def _both(text: str) -> tuple[list[str] | None, list[str] | None]:
    """What each reader makes of it, None if it refuses."""
    try:
        ours = [str(one) for one in parse_schedule(text)]
    except BadSchedule:
        ours = None
    try:
        theirs = [str(one) for one in simulator.parse_schedule(text)]
    except InvalidArgument:
        theirs = None
    return ours, theirs


@pytest.mark.parametrize("text", FILES)
def test_both_readers_agree_on_files(text: str) -> None:
    """A schedule that the simulator reads is read here as the same faults, and one that it refuses is refused."""
    ours, theirs = _both(text)
    assert ours == theirs


@given(st.lists(st.lists(WORDS, min_size=1, max_size=5), max_size=3))
def test_both_readers_agree_on_any_lines(lines: list[list[str]]) -> None:
    """The two readers agree on whatever is made of the words of the language."""
    ours, theirs = _both("\n".join(" ".join(words) for words in lines))
    assert ours == theirs


def test_the_languages_have_the_same_words() -> None:
    """Kinds, their arguments, targets and the points of a crash are those of the simulator."""
    assert {k: dict(v.arguments) for k, v in schedule.KINDS.items()} == {
        k: dict(v.arguments) for k, v in simulator.KINDS.items()
    }
    assert {k: v.where.name for k, v in schedule.KINDS.items()} == {
        k: v.target.name for k, v in simulator.KINDS.items()
    }
    assert frozenset(simulator.POINTS) == schedule.POINTS


def test_format_and_parse_are_inverse() -> None:
    """What is formatted is read back as it was, in order of time."""
    faults = [fault(1.25, "slow", "n1-n2", seconds="0.3"), fault(2.0, "calm", "*")]
    assert parse_schedule(format_schedule(reversed(faults))) == faults


def test_an_error_names_the_line() -> None:
    """A line that cannot be read is named by its number, with what to give instead."""
    with pytest.raises(
        BadSchedule, match=r"line 3 of the schedule: there is no fault 'explode': give one of cut"
    ):
        parse_schedule("# first\n1 calm *\n2 explode n1\n")


def test_too_long_a_schedule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule of more than the limit is refused, one of exactly the limit is read."""
    monkeypatch.setattr(schedule, "FAULTS_MAX", 2)
    assert len(parse_schedule("1 calm *\n" * 2)) == 2
    with pytest.raises(BadSchedule, match="at most 2 faults"):
        parse_schedule("1 calm *\n" * 3)


def test_targets_are_taken_apart() -> None:
    """Links have one or two ways, splits have groups, and every kind names what it needs."""
    assert links("a>b") == [("a", "b")]
    assert links("a-b") == [("a", "b"), ("b", "a")]
    assert groups("a,b/c") == [["a", "b"], ["c"]]
    assert {kind.where for kind in schedule.KINDS.values()} == set(Where)
