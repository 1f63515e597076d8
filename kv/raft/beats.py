"""Beats: one message that stands for the heartbeats of all groups that rest under one node at another (pure; rules 25, 26).

A group rests when its members agree on everything: term, leader, log, commit index. Its heartbeats would say the same
again and again. So leader's node and member's node each write down one line of it, (group, epoch, term, end of the
log), and the lines of all such groups of the two nodes are a roll. A beat carries the digest of the leader's roll. Where
the member's roll has the same digest, the beat is what a heartbeat to each of its groups would be, and the answer
what each group's acknowledgement would be; the lines themselves travel only until both have the same. This is the
coalesced heartbeat of multi-group Raft (CockroachDB's design of Range quiescence; TiKV's hibernating regions).

Who rests, and what a group does when it wakes, is in `rest.py` and `group.py`. The safety argument is in DESIGN.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

import xxhash

BEATS_KEPT_MAX: Final = 64
"""Beats that a sender remembers, and answers that a listener remembers, the newest: older ones count for nothing."""
_FIRST_BELOW: Final = 1 << 52
"""Numbers begin below this: all that a float's draw can tell apart, and far from the end of 64 bits."""
_LINE: Final = Struct("<QQQQ")
_NUMBERS_PER_LINE: Final = 4
_DIGEST_BYTES: Final = 16


def first_sequence(draw: float) -> int:
    """Where the numbers of a process begin: at random, so that an answer to the process before is none to this one."""
    return 1 + int(draw * _FIRST_BELOW)


@dataclass(frozen=True, slots=True)
class Line:
    """One group at rest: what its leader and a member must hold alike."""

    group: int
    epoch: int
    term: int
    last: int
    """Last index of the log; its entry is of `term`, and is committed."""

    @property
    def digest(self) -> int:
        """128 bits that no other line has."""
        return xxhash.xxh3_128_intdigest(_LINE.pack(self.group, self.epoch, self.term, self.last))


class Roll:
    """The lines of the groups that rest under one node at another, and their digest, which costs nothing to ask for."""

    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self._sum = 0
        self.digest = bytes(_DIGEST_BYTES)

    def add(self, line: Line) -> None:
        """Adds the line of a group that has none."""
        assert line.group not in self.lines, f"group {line.group} rests already"
        self.lines[line.group] = line
        self._mix(line)

    def remove(self, group: int) -> None:
        """Removes the line of a group that has one."""
        self._mix(self.lines.pop(group))

    def _mix(self, line: Line) -> None:
        self._sum ^= line.digest
        self.digest = self._sum.to_bytes(_DIGEST_BYTES, "little")

    def numbers(self) -> list[int]:
        """The lines as a beat carries them."""
        return [
            number
            for line in self.lines.values()
            for number in (line.group, line.epoch, line.term, line.last)
        ]


def lines_of(numbers: Sequence[int]) -> list[Line]:
    """The lines that a beat carries; what is left over at the end is no line."""
    return [
        Line(*numbers[at : at + _NUMBERS_PER_LINE])
        for at in range(0, len(numbers) - _NUMBERS_PER_LINE + 1, _NUMBERS_PER_LINE)
    ]


class SentBeat(NamedTuple):
    """A beat: its number, when it left by the sender's clock (seconds), and the digest that it carried."""

    sequence: int
    at: float
    digest: bytes


class BeatSender:
    """The leaders' end: the beats of this node to one peer, and what its answers prove. Times: own clock, seconds.

    `counted_since` is off only for the mutant that shows why an answer counts from a group's first beat on.
    """

    def __init__(self, *, counted_since: bool = True) -> None:
        self._counted_since = counted_since
        self.roll = Roll()
        self.agreed = False
        """Whether the peer is known to hold this very roll, so that its lines need not travel."""
        self.wanted = False
        """Whether some group would rest if only the peer answered beats."""
        self.answered: SentBeat | None = None
        """The newest beat that the peer answered in agreement."""
        self.answered_at = 0.0
        self.heard = 0
        self._since: dict[int, int] = {}
        self._sent: dict[int, SentBeat] = {}

    @property
    def needed(self) -> bool:
        """Whether there is any reason to send a beat."""
        return bool(self.roll.lines) or not self.agreed or self.wanted

    def add(self, line: Line, sequence: int) -> None:
        """A group goes to rest; the beat of number `sequence` will be the first that stands for it."""
        self.roll.add(line)
        self._since[line.group] = sequence
        self.agreed = False

    def remove(self, group: int) -> None:
        """A group woke."""
        self.roll.remove(group)
        del self._since[group]
        self.agreed = False

    def sent(self, sequence: int, now: float) -> None:
        """Notes a beat, before it leaves."""
        self.wanted = False
        self._sent[sequence] = SentBeat(sequence, now, self.roll.digest)
        if len(self._sent) > BEATS_KEPT_MAX:
            del self._sent[next(iter(self._sent))]

    def on_answer(
        self, sequence: int, digest: bytes, agreed: bool, refused: Sequence[int], now: float
    ) -> list[int]:
        """The peer answered; returns the groups that it refused and that still rest here: they must wake."""
        beat = self._sent.get(sequence)
        if beat is None or beat.digest != digest:
            return []
        if sequence > self.heard:  # noqa: PLR1730  # a call of `max` costs more
            self.heard = sequence
        if not agreed:
            self.agreed = False
            return []
        if self.answered is None or sequence >= self.answered.sequence:
            self.answered, self.answered_at = beat, now
            if not refused and digest == self.roll.digest:
                self.agreed = True
        if not refused:
            return []
        waking = [group for group in refused if self._since.get(group, sequence + 1) <= sequence]
        for group in waking:  # the answer is to all groups but these
            self._since[group] = sequence + 1
        return waking

    def proved(self, group: int) -> SentBeat | None:
        """The newest beat by which the peer's member of a resting group is known to have heard its leader (rule 26)."""
        answered = self.answered
        if answered is None or (self._counted_since and answered.sequence < self._since[group]):
            return None
        return answered

    def alive(self, now: float, patience_s: float) -> bool:
        """Whether the peer answered a beat not longer than `patience_s` ago."""
        return self.answered is not None and now - self.answered_at <= patience_s

    def reset(self) -> None:
        """The connection is gone, and with it what was in flight. All groups of the roll have woken."""
        assert not self.roll.lines
        self._sent.clear()
        self.answered, self.agreed, self.heard = None, False, 0


class BeatListener:
    """The members' end: the groups that rest here under one node, and when it was heard. Times: own clock, seconds.

    `matched` is off only for the mutant that shows why digests must be compared.
    """

    def __init__(self, *, matched: bool = True) -> None:
        self._matched = matched
        self.roll = Roll()
        self.heard_at = 0.0
        """When the last beat came that stood for all groups of the roll."""
        self.proved_at: float | None = None
        """The leaders of all groups of the roll sent a beat after this moment; None: not known of any."""
        self._answers: dict[int, float] = {}

    def agrees(self, digest: bytes) -> bool:
        """Whether a beat of this digest stands for just the groups of the roll (rule 25)."""
        return digest == self.roll.digest or not self._matched

    def hear(self, heard: int, now: float, *, changed: bool) -> None:
        """A beat stood for all groups of the roll, `changed` by it or not, and tells the last answer that was `heard`."""
        self.heard_at = now
        asked = self._answers.get(heard)
        if changed:
            self.proved_at = (
                asked  # what earlier beats proved, they did not prove of every group of this roll
            )
        elif asked is not None and (self.proved_at is None or asked > self.proved_at):
            self.proved_at = asked

    def answer(self, sequence: int, now: float) -> None:
        """Notes an answer, before it leaves. Given again, it counts from when it was given first."""
        if sequence in self._answers:
            return
        self._answers[sequence] = now
        if len(self._answers) > BEATS_KEPT_MAX:
            del self._answers[next(iter(self._answers))]

    def reset(self) -> None:
        """The connection is gone. All groups of the roll have woken."""
        assert not self.roll.lines
        self._answers.clear()
        self.proved_at = None
