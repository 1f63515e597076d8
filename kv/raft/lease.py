"""The leader's lease: until when nobody else can have been elected (pure; rule 22).

Ongaro 2014, section 6.4.1: whoever confirmed a probe votes for nobody for a minimum election timeout
of its own clock. So from the sending of a probe that a quorum confirmed, its leader is the only one for
a while, and may answer reads without asking. This alone rests on clocks: on how far the rates of two of
them may be apart, never on what they show.

Here live the condition on the configuration and the book of probes. When to probe, and what else a
read needs (rule 14), is in `reading.py`; that votes are held back (rule 23) is in `campaign.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROBES_KEPT_MAX: Final = 64
"""Probes that a leader remembers, the newest; what confirms an older one counts for nothing."""


def lease_allowed(lease_s: float, election_min_s: float, drift: float) -> bool:
    """Whether a lease of `lease_s` ends before a quorum that gave it can elect another leader.

    By `drift`, a part of one, any clock may run slow or fast: a slow leader's lease lasts
    `lease_s / (1 - drift)`, a fast member refuses votes for `election_min_s / (1 + drift)` only.
    """
    return lease_s > 0 and lease_s * (1 + drift) <= election_min_s * (1 - drift)


@dataclass(frozen=True, slots=True)
class Sent:
    """A probe: when it was first sent, and the commit index then, or None before the term's own first commit."""

    sequence: int
    at: float
    index: int | None


class Lease:
    """One leader's book of the probes of its term, and of who confirmed them. Times: the leader's clock, seconds.

    With `on_sent` a probe counts when it is sent: only for the mutant that shows why it must be confirmed.
    """

    def __init__(self, quorum: int, lease_s: float, *, on_sent: bool = False) -> None:
        self._quorum, self._lease_s, self._on_sent = quorum, lease_s, on_sent
        self._term = -1
        self._sent: dict[int, Sent] = {}
        self._newest: dict[str, Sent] = {}
        self.confirmed: Sent | None = None
        """The newest probe such that a quorum confirmed it or a later one."""

    def begin(self, term: int) -> None:
        """Another term, or another role in it: no lease, and what was sent before counts no more."""
        self._term = term
        self._sent, self._newest, self.confirmed = {}, {}, None

    def sent(self, probe: Sent) -> None:
        """Notes a probe, before it leaves. Sent again, it counts from when it was sent first."""
        if self._on_sent:
            self.confirmed = probe
        if probe.sequence in self._sent:
            return
        self._sent[probe.sequence] = probe
        if len(self._sent) > PROBES_KEPT_MAX:
            del self._sent[next(iter(self._sent))]

    def confirm(self, member: str, sequence: int) -> None:
        """A member answered a probe of this term: it heard us after that probe, and so after all before it, was sent."""
        probe = self._sent.get(sequence)
        known = self._newest.get(member)
        if probe is None or (known is not None and known.sequence >= sequence):
            return
        self._newest[member] = probe
        others = self._quorum - 1
        if 0 < others <= len(self._newest):
            by_age = sorted(self._newest.values(), key=lambda sent: sent.sequence, reverse=True)
            self._confirm(by_age[others - 1])

    def heard(self, probe: Sent) -> None:
        """A quorum is known to have heard us after this, by what stands for a probe."""
        self._confirm(probe)

    def _confirm(self, probe: Sent) -> None:
        if self.confirmed is None or probe.at > self.confirmed.at:
            self.confirmed = probe

    def valid(self, term: int, now: float) -> bool:
        """Whether nobody else can have been elected by `now`, which must not be earlier than the read that asks."""
        if self._quorum == 1:
            return True
        probe = self.confirmed
        return term == self._term and probe is not None and now < probe.at + self._lease_s
