"""The decisions of the guard, each against a model: appends, votes, acknowledgements, the send window."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kv.raft.guard import (
    AckBook,
    AppendPlan,
    Contradiction,
    Rules,
    SendWindow,
    VoteBox,
    could_be_a_log,
    log_is_current,
    plan_append,
)

ALL = Rules()


@dataclass(frozen=True)
class Log:
    """A log that stands on `base` and holds the entries after it, by their terms."""

    base: int
    terms: tuple[int, ...]

    @property
    def last(self) -> int:
        return self.base + len(self.terms) - 1

    def term_at(self, index: int) -> int | None:
        return self.terms[index - self.base] if self.base <= index <= self.last else None


@dataclass(frozen=True)
class Case:
    """A follower's log, its leader's, and a message that this leader may send at some time."""

    own: Log
    leader: Log
    commit: int
    prev: int
    count: int
    leader_commit: int

    def plan(self, rules: Rules = ALL) -> AppendPlan:
        """What the guard decides."""
        sent = self.leader.terms[self.prev + 1 : self.prev + 1 + self.count]
        prev_term = self.leader.term_at(self.prev)
        assert prev_term is not None
        return plan_append(self.own, self.commit, self.prev, prev_term, sent, self.leader_commit, rules)

    @property
    def agreed(self) -> int:
        """The last index to which both logs are the same; an entry's term tells all before it."""
        index = self.own.base
        while index < min(self.own.last, self.leader.last) and self.own.term_at(
            index + 1
        ) == self.leader.term_at(index + 1):
            index += 1
        return index


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Two logs with a common part that reaches the follower's commit index at least, then terms of their own.

    After they part, the follower's terms are odd and the leader's even, as no term has two leaders.
    """
    steps = st.lists(st.integers(0, 1), max_size=12)
    common = [0, 0]
    for step in draw(steps):
        common.append(common[-1] + 2 * step)
    own, leader = list(common), list(common)
    for log, odd in ((own, 1), (leader, 0)):
        last = common[-1] + 2 - odd
        for step in draw(steps):
            last += 2 * step
            log.append(last)
    base = draw(st.integers(0, len(common) - 1))
    commit = draw(st.integers(base, len(common) - 1))
    prev = draw(st.integers(0, len(leader) - 1))
    return Case(
        own=Log(base, tuple(own[base:])),
        leader=Log(0, tuple(leader)),
        commit=commit,
        prev=prev,
        count=draw(st.integers(0, len(leader) - 1 - prev)),
        leader_commit=draw(st.integers(0, len(leader) - 1)),
    )


def outcome(case: Case, plan: AppendPlan) -> tuple[list[int], int | None, int]:
    """What the core makes of a plan: its log's terms, the index it proves (None: refused), its commit index."""
    if case.own.term_at(plan.prev) != plan.prev_term:
        return list(case.own.terms), None, case.commit
    terms = list(case.own.terms)[: plan.prev - case.own.base + 1]
    if plan.skip is not None:
        sent = case.leader.terms[case.prev + 1 : case.prev + 1 + case.count]
        terms += sent[plan.skip :]
    last = case.own.base + len(terms) - 1
    proved = last if plan.proved is None else plan.proved
    return terms, proved, max(case.commit, min(plan.commit, last))


# ------------------------------------------------------------ 3, 4, 17: appends


@given(cases())
def test_an_append_removes_only_what_conflicts(case: Case) -> None:
    """No entry that both logs share is ever truncated, and none at or below the commit index."""
    terms, _, _ = outcome(case, case.plan())
    kept = case.agreed - case.own.base + 1
    assert terms[:kept] == list(case.own.terms[:kept])


@given(cases())
def test_what_a_success_proves_is_the_leaders_log(case: Case) -> None:
    """The index that a success names is one to which the follower's log is the leader's."""
    terms, proved, _ = outcome(case, case.plan())
    if proved is not None:
        leader = [case.leader.term_at(index) for index in range(case.own.base, proved + 1)]
        assert terms[: proved - case.own.base + 1] == leader


@given(cases())
def test_the_commit_index_stays_within_what_is_proved(case: Case) -> None:
    """A follower never commits an entry that it holds and its leader does not."""
    _, proved, commit = outcome(case, case.plan())
    assert commit == case.commit or (proved is not None and commit <= proved)


@given(cases())
def test_a_message_that_reaches_further_is_taken_whole(case: Case) -> None:
    """If the message follows on what both logs share, its last entry is proved or was known before."""
    assume(case.own.base <= case.prev <= case.agreed or case.prev < case.own.base)
    _, proved, _ = outcome(case, case.plan())
    assert proved is not None
    assert proved >= min(case.prev + case.count, case.leader.last)


@given(cases())
def test_a_refusal_hints_at_most_one_past_what_is_shared(case: Case) -> None:
    """Following hints ends: each leads down to, or below, the first entry that differs, never to the commit index."""
    plan = case.plan()
    if outcome(case, plan)[1] is None:
        assert plan.hint is not None
        assert case.commit < plan.hint <= case.prev
        assert plan.hint <= case.own.last + 1


@given(cases())
def test_hints_converge(case: Case) -> None:
    """A leader that follows the hints gets its entries accepted in one round for each conflicting term."""
    prev, rounds = case.leader.last, 0
    while True:
        now = replace(case, prev=prev, count=case.leader.last - prev)
        plan = now.plan()
        if outcome(now, plan)[1] is not None:
            break
        assert plan.hint is not None
        prev, rounds = plan.hint - 1, rounds + 1
    assert rounds <= 1 + len(set(case.own.terms))


def test_an_append_below_the_commit_index_proves_the_commit_index() -> None:
    """A late message that ends below what is committed changes nothing and is answered with the commit index."""
    log = Log(0, (0, 0, 0, 1, 1, 1))
    plan = plan_append(log, 4, 2, 0, [1], 9, ALL)
    assert plan == AppendPlan(prev=5, prev_term=1, skip=None, commit=4, proved=4)


def test_rule_3_off_hands_everything_on() -> None:
    """Without the rule the core truncates whatever follows the message's first entry."""
    log = Log(0, (0, 0, 0, 1, 1, 1))
    plan = plan_append(log, 2, 2, 0, [1], 9, replace(ALL, keep_agreed=False))
    assert plan == AppendPlan(prev=2, prev_term=0, skip=0, commit=9)


@pytest.mark.parametrize(
    ("prev", "prev_term", "terms"), [(2, 0, [2, 2]), (3, 1, [2]), (4, 2, []), (4, 2, [2])]
)
def test_a_contradiction_of_what_is_committed_is_not_repaired(
    prev: int, prev_term: int, terms: list[int]
) -> None:
    """Another term at the commit index is no conflict to be truncated but proof that something is broken."""
    log = Log(0, (0, 0, 0, 1, 1, 1))
    with pytest.raises(Contradiction, match="entry 4 contradicts"):
        plan_append(log, 4, prev, prev_term, terms, 9, ALL)


@pytest.mark.parametrize(
    ("prev_term", "terms", "leader_term", "possible"),
    [
        (1, [1, 2, 2], 2, True),
        (0, [], 0, True),
        (1, [2, 1], 3, False),
        (3, [2], 3, False),
        (1, [4], 3, False),
        (4, [], 3, False),
    ],
)
def test_terms_never_fall_along_a_log(
    prev_term: int, terms: list[int], leader_term: int, possible: bool
) -> None:
    """No leader holds entries of falling terms, or of a term above its own."""
    assert could_be_a_log(prev_term, terms, leader_term) == possible


# ------------------------------------------------------------ votes


@pytest.mark.parametrize(
    ("candidate", "own", "current"),
    [((2, 5), (2, 5), True), ((2, 4), (2, 5), False), ((3, 1), (2, 9), True), ((1, 9), (2, 1), False)],
)
def test_a_log_is_as_good_by_its_last_term_then_its_length(
    candidate: tuple[int, int], own: tuple[int, int], current: bool
) -> None:
    """The later last term wins; in the same term the longer log."""
    assert log_is_current(*candidate, *own) == current


def test_votes_are_counted_once_a_member_and_term() -> None:
    """The same vote again is no new one; in another term it is."""
    box = VoteBox()
    seen = [
        box.is_new(term, member, ALL) for term, member in [(1, "a"), (1, "a"), (1, "b"), (2, "a"), (1, "a")]
    ]
    assert seen == [True, False, True, True, True]
    assert VoteBox().is_new(0, "a", ALL)


# ------------------------------------------------------------ acknowledgements


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 20), st.integers(0, 3)), max_size=30))
def test_the_core_is_told_of_what_is_proved_and_durable_here(acks: list[tuple[str, int, int]]) -> None:
    """Whatever the order of acknowledgements and syncs: never more than either allows, and in the end all of it."""
    book, durable, told = AckBook(), 0, {"a": 0, "b": 0}
    proved = {"a": 0, "b": 0}
    for member, next_index, more in acks:
        proved[member] = max(proved[member], next_index - 1)
        told[member] = max(told[member], book.success(member, next_index, durable, ALL))
        assert told[member] <= min(proved[member], durable) + 1
        durable += more
        for name, allowed in book.after_sync(durable):
            assert allowed > told[name], "told again without news: it would fake a sign of life"
            told[name] = allowed
    for member, match in book.match.items():
        assert match == proved[member]
        assert told[member] == min(match, durable) + 1


def test_a_rejection_asks_neither_below_what_was_proved_nor_beyond_the_end() -> None:
    """Where to go on is clamped to [match + 1, last + 1]."""
    book = AckBook()
    book.success("a", 6, 9, ALL)
    assert [book.rejection("a", hint, 9) for hint in (0, 6, 8, 10, 99)] == [6, 6, 8, 10, 10]
    assert book.rejection("b", 0, 9) == 1


# ------------------------------------------------------------ the send window


def test_a_full_window_defers_and_half_an_empty_one_goes_on() -> None:
    """At `bytes_max` nothing more is sent; from half of it on what was held back goes, from its first index."""
    window = SendWindow(100)
    window.sent("a", 3, 60)
    assert not window.full("a")
    window.sent("a", 4, 40)
    assert window.full("a")
    window.defer("a", 6)
    window.defer("a", 5)
    assert window.deferred("a")
    assert window.proved("a", 2) is None
    assert window.proved("a", 3) == 5
    assert not window.deferred("a")
    assert window.proved("a", 4) is None
    assert window.carried("a") == 4


def test_a_reset_window_begins_where_the_follower_asks() -> None:
    """After a rejection nothing above the asked index counts as sent; after a broken connection nothing at all."""
    window = SendWindow(100)
    window.sent("a", 9, 100)
    window.defer("a", 10)
    window.reset("a", 4)
    assert (window.carried("a"), window.full("a"), window.deferred("a")) == (3, False, False)
    window.sent("a", 9, 10)
    window.sent("b", 7, 10)
    window.forget("a")
    assert (window.carried("a"), window.carried("b")) == (0, 7)
    window.clear()
    assert window.carried("b") == 0
