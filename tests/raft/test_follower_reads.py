"""The book of questions of a replica that does not lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.raft.api import ReadProof
from kv.raft.follower_reads import FollowerReads

LIFE_S = 1.0


def book(draw: float = 0.0) -> FollowerReads:
    """A replica's book; its numbers begin at `draw` of their range."""
    return FollowerReads(LIFE_S, lambda: draw)


def ignore(proof: ReadProof | None) -> None:
    """A read whose answer nobody looks at."""


def indexes(reads: FollowerReads, applied: int) -> list[int]:
    """Serve what is ready; the indexes of those reads."""
    return [proof.index for proof, _ in reads.ready(applied)]


def test_a_read_joins_only_a_question_that_begins_after_it() -> None:
    """One that came while a question was open waits for the next: the leader may have noted its index before."""
    reads = book()
    reads.add(ignore)
    reads.add(ignore)
    first = reads.begin(3, "a", 10.0)
    reads.add(ignore)
    assert not reads.can_begin, "one question is open at a time"
    assert reads.answered("a", 3, first.sequence, 7) == ReadProof(7, 10.0)
    assert indexes(reads, 7) == [7, 7]
    second = reads.begin(3, "a", 11.0)
    assert second.sequence == first.sequence + 1
    assert reads.answered("a", 3, second.sequence, 9) == ReadProof(9, 11.0)
    assert indexes(reads, 8) == []
    assert indexes(reads, 9) == [9]
    assert reads.idle


@pytest.mark.parametrize(
    ("sender", "term", "older"),
    [("b", 3, 0), ("a", 2, 0), ("a", 4, 0), ("a", 3, 1), ("a", 3, -1)],
    ids=["sender", "lower term", "higher term", "before", "never asked"],
)
@pytest.mark.parametrize("confirmed", [True, False])
def test_an_answer_to_another_question_is_none(sender: str, term: int, older: int, confirmed: bool) -> None:
    """Sender, term and number must be those of the open question, whether the answer is an index or a refusal."""
    reads = book()
    reads.add(ignore)
    question = reads.begin(3, "a", 10.0)
    if confirmed:
        assert reads.answered(sender, term, question.sequence - older, 7) is None
    else:
        assert reads.refused(sender, term, question.sequence - older) == []
    assert reads.open is question


def test_an_answer_counts_once() -> None:
    """The same answer, arriving again, is nothing to the next question."""
    reads = book()
    reads.add(ignore)
    question = reads.begin(3, "a", 10.0)
    assert reads.answered("a", 3, question.sequence, 7) is not None
    assert reads.answered("a", 3, question.sequence, 7) is None


def test_a_question_is_sent_again_each_heartbeat() -> None:
    """It, or its answer, may be lost; its time is that of its first sending."""
    reads = book()
    assert reads.due(99.0, 0.1) is None
    reads.add(ignore)
    question = reads.begin(3, "a", 10.0)
    assert reads.due(10.09, 0.1) is None
    assert reads.due(10.125, 0.1) is question
    assert reads.due(10.2, 0.1) is None
    assert reads.due(10.25, 0.1) is question
    assert reads.answered("a", 3, question.sequence, 7) == ReadProof(7, 10.0)
    assert reads.due(11.0, 0.1) is None


def test_a_question_lives_for_its_time_only() -> None:
    """Neither an answer that does not come nor an index that is not applied is waited for without end."""
    reads = book()
    reads.add(ignore)
    question = reads.begin(3, "a", 10.0)
    reads.answered("a", 3, question.sequence, 7)
    reads.add(ignore)
    reads.begin(3, "a", 10.5)
    reads.add(ignore)
    assert reads.expire(10.9) == []
    assert len(reads.expire(11.0)) == 1, "the one that is answered, and not applied"
    assert len(reads.expire(11.4)) == 0
    assert len(reads.expire(11.5)) == 1
    assert reads.can_begin, "what waited behind it asks anew"


def test_a_refusal_ends_what_asked_and_what_would_ask() -> None:
    """Who does not lead now does not lead a moment later either; what is answered already is served."""
    reads = book()
    reads.add(ignore)
    reads.answered("a", 3, reads.begin(3, "a", 10.0).sequence, 7)
    reads.add(ignore)
    question = reads.begin(3, "a", 10.1)
    reads.add(ignore)
    assert len(reads.refused("a", 3, question.sequence)) == 2
    assert indexes(reads, 7) == [7]
    assert reads.idle


@given(st.lists(st.sampled_from(["add", "begin", "a", "no", "late", "apply", "time", "drop"]), max_size=60))
def test_every_read_is_told_once(steps: list[str]) -> None:
    """Whatever happens, the reads inside and those that were told something add up."""
    reads = book(0.5)
    added = told = applied = sequence = 0
    now = 10.0
    for step in steps:
        if step == "add":
            reads.add(ignore)
            added += 1
        elif step == "begin" and reads.can_begin:
            sequence = reads.begin(1, "a", now).sequence
        elif step in ("a", "late"):
            reads.answered("a", 1, sequence - (step == "late"), applied + 1)
        elif step == "no":
            told += len(reads.refused("a", 1, sequence))
        elif step == "apply":
            applied += 1
            served = indexes(reads, applied)
            assert all(index <= applied for index in served)
            told += len(served)
        elif step == "time":
            now += LIFE_S / 3
            told += len(reads.expire(now))
        elif step == "drop":
            told += len(reads.drop())
        assert added == told + len(reads)
        assert reads.idle == (len(reads) == 0)
