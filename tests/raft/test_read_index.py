"""The queue of reads that wait for proof that their replica leads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.raft.api import ReadProof
from kv.raft.read_index import ReadIndexQueue


def served(queue: ReadIndexQueue, applied: int) -> list[int]:
    """Serve what is ready; the indexes of those reads."""
    return [proof.index for proof, _ in queue.ready(applied)]


def ignore(proof: ReadProof | None) -> None:
    """A read whose answer nobody looks at."""


def test_one_round_serves_all_reads_that_waited() -> None:
    """Reads that came before the round began share it; one that came later waits for the next."""
    queue = ReadIndexQueue(2)
    queue.add(ignore)
    queue.add(ignore)
    first = queue.begin(term=4, commit_index=7, now=1.0)
    queue.add(ignore)
    assert (len(queue), queue.can_begin) == (3, False)
    queue.confirm("b", 4, first)
    assert served(queue, 7) == [7, 7]
    assert (len(queue), queue.can_begin) == (1, True)
    second = queue.begin(4, 9, 1.0)
    assert second > first
    queue.confirm("b", 4, first)  # a late answer to the earlier round proves nothing for this one
    assert served(queue, 9) == []
    queue.confirm("b", 4, second)
    assert served(queue, 9) == [9]
    assert queue.idle


def test_a_confirmed_read_waits_for_its_index_to_be_applied() -> None:
    """A read is served when the state has reached the commit index that it noted."""
    queue = ReadIndexQueue(2)
    queue.add(ignore)
    queue.confirm("b", 1, queue.begin(1, 5, 1.0))
    assert served(queue, 4) == []
    assert served(queue, 5) == [5]


def test_confirmations_are_counted_once_a_member_and_in_the_rounds_term() -> None:
    """In a group of five two members besides the leader must confirm, in the term in which the round began."""
    queue = ReadIndexQueue(3)
    queue.add(ignore)
    sequence = queue.begin(3, 8, 1.0)
    for member, term in (("b", 3), ("b", 3), ("c", 2), ("c", 4)):
        queue.confirm(member, term, sequence)
    assert served(queue, 8) == []
    queue.confirm("c", 3, sequence)
    assert served(queue, 8) == [8]


def test_a_group_of_one_needs_no_answers() -> None:
    """The only member's round is over when it begins."""
    queue = ReadIndexQueue(1)
    queue.add(ignore)
    queue.begin(1, 3, 1.0)
    assert queue.open_sequence is None
    assert served(queue, 3) == [3]


def test_lost_leadership_drops_every_read_once() -> None:
    """Waiting, in a round, confirmed but not applied: all are handed back, and the queue is empty."""
    queue, answered = ReadIndexQueue(2), list[str]()
    queue.add(lambda _: answered.append("confirmed"))
    queue.confirm("b", 1, queue.begin(1, 9, 1.0))
    queue.add(lambda _: answered.append("in a round"))
    queue.begin(1, 9, 1.0)
    queue.add(lambda _: answered.append("waiting"))
    for done in queue.drop():
        done(None)
    assert sorted(answered) == ["confirmed", "in a round", "waiting"]
    assert queue.idle
    assert queue.drop() == []
    queue.confirm("b", 1, 2)
    assert served(queue, 99) == []


@given(st.lists(st.sampled_from(["add", "begin", "b", "c", "old", "apply", "drop"]), max_size=40))
def test_every_read_is_answered_at_most_once_and_none_is_forgotten(steps: list[str]) -> None:
    """Whatever happens, the reads inside and those handed out add up, and none is handed out unconfirmed."""
    queue = ReadIndexQueue(2)
    added = answered = applied = sequence = 0
    for step in steps:
        if step == "add":
            queue.add(ignore)
            added += 1
        elif step == "begin" and queue.can_begin:
            sequence = queue.begin(1, applied + 1, 1.0)
        elif step in ("b", "c", "old"):
            queue.confirm(step, 1, sequence - (step == "old"))
        elif step == "apply":
            applied += 1
            indexes = served(queue, applied)
            assert all(index <= applied for index in indexes)
            answered += len(indexes)
        elif step == "drop":
            answered += len(queue.drop())
        assert added == answered + len(queue)
