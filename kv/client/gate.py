"""When the next requests may leave for a node: so that what is called meanwhile travels together. Pure.

A message between processes costs far more than an operation in it (about 0.1 ms of CPU at each end against a few
microseconds), and each node serves several partitions. So requests leave in *waves*: all that one turn of the event
loop sends to one node is a wave, and the next one leaves when the wave before has been answered. A request that is full
waits for no answer (`kv.client.core`), and what waits does so for `patience_s` at most, about the time that a wave takes:
neither a partition without a leader nor one with many callers may hold up the others.

It is Nagle's rule (RFC 896) with messages in place of segments; a lone request never waits.
"""

from __future__ import annotations

from typing import Final

WAVES_MAX: Final = 1
"""Waves under way to one node; beyond that requests wait for `patience_s`, unless they are many."""
PATIENCE_MIN_S: Final = 0.001
PATIENCE_MAX_S: Final = 0.020
"""Bounds of the time that a wave may hold up the next one."""
PATIENCE_TIMES: Final = 2.0
"""The patience is so many times the smoothed time of a wave: one that takes longer has met something else."""
SMOOTHING: Final = 1 / 8
"""Weight of the newest wave in the smoothed time, as in TCP's (RFC 6298, section 2)."""


class Wave:
    """What left in one turn of the loop for one node."""

    __slots__ = ("open", "sent_at", "turn")

    def __init__(self, turn: int, sent_at: float) -> None:
        self.turn = turn
        self.sent_at = sent_at
        """Loop time in seconds."""
        self.open = 0
        """Attempts that have no answer yet."""


class Gate:
    """The waves of one link."""

    __slots__ = ("_smoothed_s", "_waves")

    def __init__(self) -> None:
        self._waves: dict[Wave, None] = {}
        self._smoothed_s = PATIENCE_MIN_S

    @property
    def patience_s(self) -> float:
        """How long a wave may hold up the next one."""
        return min(max(self._smoothed_s * PATIENCE_TIMES, PATIENCE_MIN_S), PATIENCE_MAX_S)

    @property
    def is_open(self) -> bool:
        """Whether a request may leave because enough was answered."""
        return len(self._waves) < WAVES_MAX

    def opens_at(self, turn: int, now: float) -> float:
        """Return when a request of this turn may leave, if no answer comes before: not after `now` means at once."""
        waves = self._waves
        if len(waves) < WAVES_MAX:
            return now
        newest = next(reversed(waves))
        if newest.turn == turn:
            return now
        patience_s = self.patience_s
        young = [wave for wave in waves if wave.sent_at + patience_s > now]
        return now if len(young) < WAVES_MAX else young[-WAVES_MAX].sent_at + patience_s

    def sent(self, turn: int, now: float) -> Wave:
        """Note an attempt that leaves in this turn, and return its wave."""
        newest = next(reversed(self._waves), None)
        if newest is None or newest.turn != turn:
            newest = Wave(turn, now)
            self._waves[newest] = None
        newest.open += 1
        return newest

    def ended(self, wave: Wave, now: float) -> None:
        """Note that an attempt was answered, or is not waited for any more."""
        wave.open -= 1
        assert wave.open >= 0, "an attempt ends once"
        if not wave.open:
            del self._waves[wave]
            self._smoothed_s += (now - wave.sent_at - self._smoothed_s) * SMOOTHING
