"""When to stand for election, and whom to let stand (pure; rules 15 and 16).

The core has no pre-vote and its timer is put out of reach; this book-keeper is the
timer. Dissertation sections 3.4 (randomized timeouts), 9.6 (pre-vote) and 4.2.3
(a member that hears a leader ignores candidates).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Beats(Protocol):
    """What stands for a leader's heartbeats while the group rests."""

    @property
    def heard_at(self) -> float:
        """When the last of them came."""


class Elections:
    """One replica's election timer and its pre-vote, times in seconds on any steady clock."""

    def __init__(
        self, me: str, quorum: int, min_s: float, max_s: float, rng: Callable[[], float], now: float
    ) -> None:
        self._me, self._quorum = me, quorum
        self._min_s, self._max_s, self._rng = min_s, max_s, rng
        # A member that restarts must assume that it heard a leader just before it died.
        self._heard = now
        self._deadline = 0.0
        self._standing: tuple[int, set[str]] | None = None
        self._beats: Beats | None = None
        self.arm(now)

    def arm(self, now: float) -> None:
        """Starts the timer anew with a fresh random timeout."""
        self._deadline = now + self._min_s + (self._max_s - self._min_s) * self._rng()

    def heard_leader(self, now: float) -> None:
        """A message of the current leader came."""
        self._heard = now
        self._standing = None
        self.arm(now)

    def due(self, now: float) -> bool:
        """Whether the timer ran out."""
        return now >= self._deadline

    def quiet(self, now: float) -> bool:
        """Whether no leader was heard for the minimum election timeout."""
        if self._beats is not None and now - self._beats.heard_at < self._min_s:
            return False
        return now - self._heard >= self._min_s

    def rest(self, beats: Beats) -> None:
        """The group rests: each of these beats counts as its leader's heartbeat."""
        self._standing, self._beats = None, beats

    def wake(self, *, remember: bool) -> None:
        """The group rests no more; without `remember` what the beats told is lost, for the mutant that shows why not."""
        assert self._beats is not None
        beats, self._beats = self._beats, None
        if remember:
            self.heard_leader(max(self._heard, beats.heard_at))

    def begin_pre_vote(self, term: int, now: float) -> bool:
        """Asks for pre-votes in `term`, our own included; True if that is a quorum already."""
        self.arm(now)
        self._standing = (term, {self._me})
        return self._won(term)

    def pre_vote(self, member: str, term: int) -> bool:
        """Counts a granted pre-vote; True once a quorum would vote for us in `term`."""
        if self._standing is None or self._standing[0] != term:
            return False
        self._standing[1].add(member)
        return self._won(term)

    def _won(self, term: int) -> bool:
        assert self._standing is not None
        if self._standing[0] != term or len(self._standing[1]) < self._quorum:
            return False
        self._standing = None
        return True
