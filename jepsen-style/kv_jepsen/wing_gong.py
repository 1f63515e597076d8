"""Wing & Gong's depth-first search with Lowe's memoization, as porcupine has it.

It takes one order as far as it goes and then turns back, where `search` carries all orders along. So it finds linearizations
of long histories with many calls of unknown outcome, where there are many to be found; of what is not linearizable it has to try
all. It shares no idea with `search` but the models, and so is also the second opinion in tests.

Wing & Gong, "Testing and verifying concurrent objects", 1993; Lowe, "Testing for linearizability", 2017. The linked list of
what is not yet linearized is porcupine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kv_jepsen.history import OPEN, Call
from kv_jepsen.kinds import size_bytes
from kv_jepsen.models import Model, State
from kv_jepsen.search import PATIENCE, SearchExpired, never

ENTRY_BYTES = 200
"""What a remembered configuration costs, without the bits of its calls."""


@dataclass(slots=True, eq=False)
class _Entry:
    """An invocation or a return in the doubly linked list of what is not yet linearized."""

    number: int
    match: _Entry | None
    """The return of an invocation; None for a return."""
    before: _Entry | None = field(default=None, repr=False)
    after: _Entry | None = field(default=None, repr=False)

    def lift(self) -> None:
        """Take an invocation and its return out of the list."""
        assert self.match is not None, "only invocations are lifted"
        self.match._unlink()  # noqa: SLF001 - its own class
        self._unlink()

    def unlift(self) -> None:
        """Undo the latest `lift`."""
        assert self.match is not None, "only invocations are lifted"
        self._link()
        self.match._link()  # noqa: SLF001 - its own class

    def _unlink(self) -> None:
        assert self.before is not None, "the head stays"
        self.before.after = self.after
        if self.after is not None:
            self.after.before = self.before

    def _link(self) -> None:
        assert self.before is not None, "the head stays"
        self.before.after = self
        if self.after is not None:
            self.after.before = self


class DepthFirst:
    """One search over the calls of one object.

    Args:
        model: of the object, fitted or not.
        calls: those that take part (`Model.taking_part`).
        expired: told how many bytes the search holds, says whether to give up.
    """

    def __init__(
        self, model: Model, calls: Sequence[Call], expired: Callable[[int], bool] | None = None
    ) -> None:
        self.model = model
        self.calls = calls
        self.expired = expired or never
        self.looked_at = 0
        self._owed = sum(1 << number for number, call in enumerate(calls) if call.end != OPEN)
        self._seen: set[tuple[int, State]] = set()
        self._held_bytes = 0
        self._bits_bytes = ENTRY_BYTES + len(calls) // 8

    def run(self) -> list[Call] | None:
        """Return a linearization, None if there is none.

        Raises:
            SearchExpired: `expired` said so.
        """
        head = _linked(self.calls)
        state, done = self.model.init(), 0
        taken: list[tuple[_Entry, State]] = []
        entry = head.after
        while done & self._owed != self._owed:
            if entry is not None and entry.match is not None:
                reached = self._reached(entry.number, state, done)
                if reached is not None:
                    taken.append((entry, state))
                    done, state = reached
                    entry.lift()
                    entry = head.after
                else:
                    entry = entry.after
                continue
            if not taken:
                return None
            entry, state = taken.pop()
            done &= ~(1 << entry.number)
            entry.unlift()
            entry = entry.after
        return [self.calls[entry.number] for entry, _ in taken]

    def _reached(self, number: int, state: State, done: int) -> tuple[int, State] | None:
        """Return what the call leads to, None if that is impossible or known to lead nowhere."""
        call = self.calls[number]
        possible, after = self.model.step(state, call.f, call.input, call.output)
        reached = (done | 1 << number, after)
        if not possible or reached in self._seen:
            return None
        self._seen.add(reached)
        self.looked_at += 1
        self._held_bytes += self._bits_bytes + size_bytes(after)
        if self.looked_at % PATIENCE == 0 and self.expired(self._held_bytes):
            raise SearchExpired
        return reached


def _linked(calls: Sequence[Call]) -> _Entry:
    """Return the head of the list of all invocations and returns; the unknown ones return last, in any order."""
    marks = [(call.start, number, False) for number, call in enumerate(calls)]
    marks += [(call.end, number, True) for number, call in enumerate(calls)]
    returns = {number: _Entry(number, None) for number in range(len(calls))}
    head = last = _Entry(-1, None)
    for _, number, is_return in sorted(marks):
        entry = returns[number] if is_return else _Entry(number, returns[number])
        entry.before, last.after, last = last, entry, entry
    return head
