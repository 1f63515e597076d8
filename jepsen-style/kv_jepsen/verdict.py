"""What a linearizability check found, and the exit status that says so.

Plain values that `linearizable` fills and `report` draws. No judging, no printing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kv_jepsen.history import Call, Value


class Judgement(StrEnum):
    """The three ends of a check. `UNKNOWN` is not a pass: a limit was reached before the answer."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"


EXIT_STATUS = {Judgement.LINEARIZABLE: 0, Judgement.NOT_LINEARIZABLE: 1, Judgement.UNKNOWN: 3}
"""Exit status of `kv-jepsen check` by judgement."""

EXIT_BAD_INPUT = 2
"""Exit status for bad usage or input that cannot be read."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call at its place in a linearization, and the state of the object after it, in words."""

    call: Call
    state: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The smallest part of a history that shows why it is not linearizable.

    Attributes:
        window: the calls of the part, by start: those open at its first operation or begun in it.
        blocked: the call whose completion no linearization could reach.
        entry_states: states, in words, in which the object may have been where the window begins; none if the
            calls of the window contradict each other in whatever state it was.
        partials: the longest linearizations of calls up to `blocked`, each in order; what comes before the window is left out.
            They end where no further call of the window fits.
        complete: whether the window fails by itself. If not, no small part was soon found to, and this is where the
            search ended; the reason lies partly outside.
    """

    window: tuple[Call, ...]
    blocked: Call
    entry_states: tuple[str, ...]
    partials: tuple[tuple[Step, ...], ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class KeyVerdict:
    """The judgement of one key's calls.

    Attributes:
        key: the key; None in histories of one object.
        judgement: of this key.
        calls: how many calls were judged.
        configurations: how many configurations the search looked at; 0 if the evidence sufficed.
        method: `witness` if the claimed order was verified, `search` otherwise.
        reason: why the judgement is unknown; empty otherwise.
        failure: set if the judgement is `NOT_LINEARIZABLE`, unless only trying every order could tell.
        linearization: one valid order of the calls that took effect, if it was asked for and exists.
    """

    key: Value
    judgement: Judgement
    calls: int
    configurations: int = 0
    method: str = "search"
    reason: str = ""
    failure: Failure | None = None
    linearization: tuple[Call, ...] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a history: that of its keys taken together (linearizability is local: Herlihy & Wing 1990)."""

    model: str
    keys: tuple[KeyVerdict, ...]

    @property
    def judgement(self) -> Judgement:
        """One key that is not linearizable decides; otherwise one unknown key does."""
        return worst(key.judgement for key in self.keys)

    @property
    def exit_status(self) -> int:
        """0 linearizable, 1 not, 3 unknown."""
        return EXIT_STATUS[self.judgement]

    @property
    def failures(self) -> tuple[KeyVerdict, ...]:
        """The keys that are not linearizable."""
        return tuple(key for key in self.keys if key.judgement is Judgement.NOT_LINEARIZABLE)


def worst(judgements: Iterable[Judgement]) -> Judgement:
    """Return the judgement of the whole from those of its parts; of no parts it is `LINEARIZABLE`."""
    found = set(judgements)
    for judgement in (Judgement.NOT_LINEARIZABLE, Judgement.UNKNOWN):
        if judgement in found:
            return judgement
    return Judgement.LINEARIZABLE
