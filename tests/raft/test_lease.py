"""The leader's lease: its bound, its book, and that nobody else is elected while it holds."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv.raft.lease import PROBES_KEPT_MAX, Lease, Sent, lease_allowed

# ------------------------------------------------------------ the bound


@pytest.mark.parametrize(
    ("lease_s", "election_min_s", "drift", "allowed"),
    [
        (0.8, 1.0, 0.05, True),
        (0.0, 1.0, 0.0, False),
        (-1.0, 1.0, 0.0, False),
        (1.0, 1.0, 0.0, True),
        (1.001, 1.0, 0.0, False),
        (0.5, 1.5, 0.5, True),
        (0.501, 1.5, 0.5, False),
        (1e-9, 1.0, 1.0, False),
    ],
)
def test_a_lease_is_allowed_up_to_what_the_clocks_leave(
    lease_s: float, election_min_s: float, drift: float, allowed: bool
) -> None:
    """A slow leader's lease may end together with a fast member's refusal of votes, and not later; 0 is no lease."""
    assert lease_allowed(lease_s, election_min_s, drift) == allowed


# ------------------------------------------------------------ the book


def lease(quorum: int = 2, lease_s: float = 1.0) -> Lease:
    """The book of a leader of term 3."""
    book = Lease(quorum, lease_s)
    book.begin(3)
    return book


def test_a_lease_runs_from_the_sending_of_what_was_confirmed() -> None:
    """However late the answer comes: the member refuses votes from when it heard, which may be just after the sending."""
    book = lease()
    book.sent(Sent(1, 10.0, 7))
    assert not book.valid(3, 10.0)
    book.confirm("b", 1)
    assert (book.valid(3, 10.999), book.valid(3, 11.0)) == (True, False)


def test_a_probe_sent_again_counts_from_its_first_sending() -> None:
    """Nobody can tell which of the two was answered."""
    book = lease()
    book.sent(Sent(1, 10.0, 7))
    book.sent(Sent(1, 10.9, 8))
    book.confirm("b", 1)
    assert book.confirmed == Sent(1, 10.0, 7)
    assert not book.valid(3, 11.0)


def test_a_quorum_must_have_heard_the_probe_or_a_later_one() -> None:
    """In a group of five the second newest answer of the others decides; an old answer takes nothing back."""
    book = lease(quorum=3)
    for sequence in (1, 2, 3):
        book.sent(Sent(sequence, 10.0 + sequence, sequence))
    confirmed = []
    for member, sequence in (("b", 3), ("b", 2), ("c", 1), ("d", 2), ("c", 3)):
        book.confirm(member, sequence)
        confirmed.append(book.confirmed)
    assert confirmed == [None, None, Sent(1, 11.0, 1), Sent(2, 12.0, 2), Sent(3, 13.0, 3)]


def test_a_lease_ends_with_its_term_and_with_its_leader() -> None:
    """It is of one term, and what was sent in another one, or before the role was lost, gives none."""
    book = lease()
    book.sent(Sent(1, 10.0, 7))
    book.confirm("b", 1)
    assert not book.valid(4, 10.1)
    book.begin(4)
    assert not book.valid(4, 10.1)
    book.confirm("b", 1)
    assert not book.valid(4, 10.1)
    assert book.confirmed is None


def test_the_only_member_needs_no_lease() -> None:
    """Nobody else can be elected in a group of one."""
    assert lease(quorum=1).valid(3, 1e9)


def test_old_probes_are_forgotten_and_give_nothing() -> None:
    """A bounded number of probes is remembered; who answers one that is forgotten is not counted."""
    book = lease()
    for sequence in range(PROBES_KEPT_MAX + 1):
        book.sent(Sent(sequence, float(sequence), 1))
    confirmed = []
    for sequence in (0, 1, PROBES_KEPT_MAX):
        book.confirm("b", sequence)
        confirmed.append(book.confirmed)
    assert confirmed == [None, Sent(1, 1.0, 1), Sent(PROBES_KEPT_MAX, float(PROBES_KEPT_MAX), 1)]


@dataclass(frozen=True)
class Plan:
    """A leader and its members in real time: how fast each clock is, when probes leave, arrive and are answered."""

    drift: float
    leader_rate: float
    rates: Sequence[float]
    probes: Sequence[tuple[float, Sequence[tuple[float, float]]]]
    """Pause before the probe; for each member the way there and the way back. A negative way: lost."""
    restarts: Sequence[tuple[float, int]]


def plans() -> st.SearchStrategy[Plan]:
    """Two or four other members, any delays, losses and restarts, clocks within the drift or at its ends."""

    def of(drift: float, members: int) -> st.SearchStrategy[Plan]:
        rate = st.floats(1 - drift, 1 + drift) | st.sampled_from([1 - drift, 1 + drift])
        way = st.floats(0.0, 2.0) | st.just(0.0) | st.just(-1.0)
        ways = st.lists(st.tuples(way, way), min_size=members, max_size=members)
        return st.builds(
            Plan,
            st.just(drift),
            rate,
            st.lists(rate, min_size=members, max_size=members),
            st.lists(st.tuples(st.floats(0.0, 1.5), ways), max_size=8),
            st.lists(st.tuples(st.floats(0.0, 8.0), st.integers(0, members - 1)), max_size=4),
        )

    return st.tuples(st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([2, 4])).flatmap(lambda it: of(*it))


ELECTION_MIN_S = 1.0
LATE_S = 1e-9
"""What rounding may cost."""


class Play:
    """Plays a plan in real time, and notes the instants at which a lease holds and a quorum would vote for another."""

    def __init__(self, plan: Plan, lease_s: float) -> None:
        self._plan, self._lease_s = plan, lease_s
        self._quorum = (len(plan.rates) + 1) // 2 + 1
        self._book = Lease(self._quorum, lease_s)
        self._book.begin(1)
        self._held = [0.0] * len(plan.rates)  # all of them have just started
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.found: list[float] = []

    def run(self) -> list[float]:
        """Play it to its end; the instants."""
        clock = 0.0
        for sequence, (pause, ways) in enumerate(self._plan.probes, 1):
            clock += pause
            self._at(clock, partial(self._probe, clock, sequence, ways))
        for time, member in self._plan.restarts:
            self._at(time, partial(self._held.__setitem__, member, time))
        while self._events:
            time, _, action = heapq.heappop(self._events)
            self._look(time)  # just before, at the end of what lasted since the event before
            action()
            self._look(time)
        return self.found

    def _at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), action))

    def _probe(self, time: float, sequence: int, ways: Sequence[tuple[float, float]]) -> None:
        self._book.sent(Sent(sequence, time * self._plan.leader_rate, None))
        for member, (there, back) in enumerate(ways):
            if there >= 0:
                self._at(time + there, partial(self._hear, member, time + there, back, sequence))

    def _hear(self, member: int, time: float, back: float, sequence: int) -> None:
        self._held[member] = max(self._held[member], time)
        if back >= 0:
            self._at(time + back, partial(self._confirm, member, sequence))

    def _confirm(self, member: int, sequence: int) -> None:
        self._book.confirm(str(member), sequence)
        if self._book.confirmed is not None:  # just before it ends is the worst instant
            self._at((self._book.confirmed.at + self._lease_s) / self._plan.leader_rate - 1e-6, _nothing)

    def _look(self, time: float) -> None:
        quiet = [(time - since) * rate for since, rate in zip(self._held, self._plan.rates, strict=True)]
        free = sum(it >= ELECTION_MIN_S + LATE_S for it in quiet)
        if self._book.valid(1, time * self._plan.leader_rate) and free >= self._quorum:
            self.found.append(time)


def _nothing() -> None:
    """An instant at which only time passes."""


@given(plans(), st.floats(0.1, 1.0))
@settings(deadline=None)
def test_no_lease_holds_when_a_quorum_could_elect_another(plan: Plan, part: float) -> None:
    """Within the drift of the clocks, whatever is lost, late or restarts, at most a minority may vote during a lease."""
    longest = ELECTION_MIN_S * (1 - plan.drift) / (1 + plan.drift)
    assert Play(plan, longest * part).run() == []


@pytest.mark.parametrize("drift", [0.0, 0.05, 0.3])
def test_a_longer_lease_than_allowed_would_outlive_the_refusal_of_votes(drift: float) -> None:
    """The bound is tight: at one percent more, a slow leader believes in its lease when fast members vote."""
    lease_s = 1.01 * ELECTION_MIN_S * (1 - drift) / (1 + drift)
    assert not lease_allowed(lease_s, ELECTION_MIN_S, drift)
    plan = Plan(drift, 1 - drift, [1 + drift] * 2, [(2.0, [(0.0, 0.0)] * 2)], [])
    assert Play(plan, lease_s).run()
