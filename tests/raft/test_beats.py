"""The books of beats: rolls, what an answer proves, and what a member knows from beats."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.raft.beats import BEATS_KEPT_MAX, BeatListener, BeatSender, Line, Roll, first_sequence, lines_of

LINE = Line(group=1, epoch=1, term=3, last=9)
OTHER = Line(group=2, epoch=1, term=3, last=9)
lines = st.builds(
    Line, st.integers(1, 40), st.integers(1, 2), st.integers(1, 1 << 62), st.integers(2, 1 << 62)
)


def roll(*members: Line) -> Roll:
    """A roll of these lines."""
    made = Roll()
    for line in members:
        made.add(line)
    return made


def sender(*members: Line, sequence: int = 1) -> BeatSender:
    """A sender whose groups went to rest before the beat of this number."""
    made = BeatSender()
    for line in members:
        made.add(line, sequence)
    return made


def answered(end: BeatSender) -> int | None:
    """The number of the newest beat that was answered in agreement."""
    return None if end.answered is None else end.answered.sequence


# ------------------------------------------------------------ rolls


@given(st.lists(lines, unique_by=lambda line: line.group))
def test_a_digest_is_of_what_stands_there_in_whatever_order_it_came(members: list[Line]) -> None:
    """Rolls of the same lines have the same digest, whatever was added and removed before."""
    first = roll(*members)
    second = roll(*reversed(members))
    assert first.digest == second.digest
    for line in members[::2]:
        second.remove(line.group)
        assert second.digest == roll(*second.lines.values()).digest
        second.add(line)
    assert first.digest == second.digest


@given(lines, lines)
def test_each_part_of_a_line_is_in_the_digest(one: Line, other: Line) -> None:
    """Two lines have the same digest only if they are the same."""
    assert (roll(one).digest == roll(other).digest) == (one == other)


@given(st.lists(lines, unique_by=lambda line: line.group))
def test_lines_travel_as_numbers(members: list[Line]) -> None:
    """What a beat carries gives the same lines again; numbers left over at the end give none."""
    numbers = roll(*members).numbers()
    assert lines_of(numbers) == members
    assert lines_of([*numbers, 7, 7]) == members


def test_an_empty_roll_agrees_with_an_empty_roll() -> None:
    """Two nodes of which none rests under the other need not tell each other so."""
    assert BeatListener().agrees(BeatSender().roll.digest)


# ------------------------------------------------------------ the sender


def test_an_answer_proves_what_its_beat_stood_for() -> None:
    """The newest beat that was answered in agreement is what a group's leader was heard by."""
    end = sender(LINE)
    end.sent(1, 5.0)
    end.sent(2, 6.0)
    assert end.proved(1) is None
    assert end.on_answer(1, end.roll.digest, True, [], 6.5) == []
    proved = end.proved(1)
    assert proved is not None
    assert (proved.sequence, proved.at, end.answered_at) == (1, 5.0, 6.5)
    assert end.agreed


def test_rule_26_an_answer_to_an_earlier_beat_proves_nothing() -> None:
    """A group that went to rest after the beat had left was not spoken of."""
    end = sender(LINE)
    end.sent(1, 5.0)
    end.add(OTHER, 2)
    end.on_answer(1, roll(LINE).digest, True, [], 5.1)
    assert end.proved(LINE.group) is not None
    assert end.proved(OTHER.group) is None
    assert not end.agreed, "the peer does not know the second line yet"


def test_a_group_that_woke_and_rests_again_begins_anew() -> None:
    """Answers to beats from before its waking prove nothing of it."""
    end = sender(LINE)
    end.sent(1, 5.0)
    end.remove(LINE.group)
    end.add(LINE, 2)
    end.on_answer(1, end.roll.digest, True, [], 5.1)
    assert end.proved(LINE.group) is None


def test_an_answer_that_refuses_a_group_does_not_prove_it() -> None:
    """The refused group must wake, and what it is told then is not that it was heard."""
    end = sender(LINE, OTHER)
    end.sent(1, 5.0)
    assert end.on_answer(1, end.roll.digest, True, [OTHER.group], 5.1) == [OTHER.group]
    assert end.proved(LINE.group) is not None
    assert end.proved(OTHER.group) is None
    assert not end.agreed


def test_a_late_refusal_does_not_wake_a_group_that_rests_anew() -> None:
    """A refusal is of the beat that it answers."""
    end = sender(LINE)
    end.sent(1, 5.0)
    end.remove(LINE.group)
    end.add(LINE, 2)
    assert end.on_answer(1, end.roll.digest, True, [LINE.group], 5.1) == []


def test_an_answer_of_another_digest_or_number_is_none() -> None:
    """What answers another process, or was damaged, proves nothing."""
    end = sender(LINE)
    end.sent(1, 5.0)
    end.on_answer(1, roll(OTHER).digest, True, [], 5.1)
    end.on_answer(2, end.roll.digest, True, [], 5.1)
    assert answered(end) is None
    assert end.heard == 0


def test_a_peer_that_does_not_agree_is_told_the_lines() -> None:
    """Disagreement proves nothing, and the next beat is complete."""
    end = sender(LINE)
    end.sent(1, 5.0)
    end.on_answer(1, end.roll.digest, True, [], 5.1)
    before = end.agreed
    end.sent(2, 6.0)
    end.on_answer(2, end.roll.digest, False, [], 6.1)
    assert (before, end.agreed) == (True, False)
    proved = end.proved(1)
    assert proved is not None
    assert proved.sequence == 1
    assert end.heard == 2


def test_answers_that_overtake_each_other_take_nothing_back() -> None:
    """An older answer that comes later leaves the newer one."""
    end = sender(LINE)
    end.sent(1, 5.0)
    end.sent(2, 6.0)
    end.on_answer(2, end.roll.digest, True, [], 6.1)
    end.on_answer(1, end.roll.digest, True, [], 6.2)
    assert answered(end) == 2
    assert end.answered_at == 6.1


def test_only_so_many_beats_are_remembered() -> None:
    """What answers a beat before them proves nothing; the books do not grow."""
    end = sender(LINE)
    for sequence in range(1, BEATS_KEPT_MAX + 2):
        end.sent(sequence, float(sequence))
    end.on_answer(1, end.roll.digest, True, [], 99.0)
    assert answered(end) is None
    end.on_answer(2, end.roll.digest, True, [], 99.0)
    assert answered(end) == 2


def test_a_sender_is_silent_when_there_is_nothing_to_say() -> None:
    """Once both ends know that nothing rests no beat is needed, until a group would rest."""
    end = BeatSender()
    needed = [end.needed]
    end.sent(1, 5.0)
    end.on_answer(1, end.roll.digest, True, [], 5.1)
    needed.append(end.needed)
    end.wanted = True
    needed.append(end.needed)
    end.sent(2, 6.0)
    needed.append(end.needed)
    assert needed == [True, False, True, False]


def test_numbers_of_two_processes_are_far_apart() -> None:
    """They begin at random, above none, and leave room for all beats of a process."""
    assert first_sequence(0.0) == 1
    assert first_sequence(0.5) - first_sequence(0.25) > 1 << 40
    assert first_sequence(0.999999) < 1 << 53


# ------------------------------------------------------------ the listener


def test_a_proof_is_dated_by_the_answer_that_the_leader_had() -> None:
    """A beat that tells of an answer was sent after it; a beat that tells of none proves no time."""
    end = BeatListener()
    end.hear(0, 5.0, changed=False)
    end.answer(1, 5.0)
    assert (end.heard_at, end.proved_at) == (5.0, None)
    end.hear(1, 6.0, changed=False)
    assert (end.heard_at, end.proved_at) == (6.0, 5.0)
    end.hear(7, 7.0, changed=False)
    assert (end.heard_at, end.proved_at) == (7.0, 5.0)


def test_an_answer_given_twice_counts_from_the_first() -> None:
    """Either copy may be the one that the leader had."""
    end = BeatListener()
    end.answer(1, 5.0)
    end.answer(1, 6.0)
    end.hear(1, 7.0, changed=False)
    assert end.proved_at == 5.0


def test_what_was_proved_of_the_old_roll_is_not_proved_of_the_new() -> None:
    """A beat that changed the roll dates the proof of all its groups."""
    end = BeatListener()
    end.answer(1, 5.0)
    end.answer(2, 6.0)
    end.hear(2, 7.0, changed=False)
    end.hear(1, 8.0, changed=True)
    assert end.proved_at == 5.0
    end.hear(9, 9.0, changed=True)
    assert end.proved_at is None


def test_only_so_many_answers_are_remembered() -> None:
    """A beat that tells of one before them proves no time."""
    end = BeatListener()
    for sequence in range(1, BEATS_KEPT_MAX + 2):
        end.answer(sequence, float(sequence))
    end.hear(1, 99.0, changed=False)
    assert end.proved_at is None
