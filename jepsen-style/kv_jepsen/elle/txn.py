"""Transactions of appends and reads on lists, as the cycle checker sees them.

Values only. How transactions are found in a history is in `kv_jepsen.elle.extract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from kv_jepsen.history import Outcome, Process, Value

Key: TypeAlias = Value
Element: TypeAlias = Value
Elements: TypeAlias = tuple[Element, ...]

SHOWN_MAX: Final = 8
"""Elements of a list that are shown at its end."""


@dataclass(frozen=True, slots=True)
class Append:
    """Append an element to the list under a key; each element is appended to a key at most once."""

    key: Key
    element: Element


@dataclass(frozen=True, slots=True)
class Read:
    """A read of a whole list; `elements` is None where the outcome is not known."""

    key: Key
    elements: Elements | None


Mop: TypeAlias = Append | Read
"""Micro-operation: one step of a transaction."""


@dataclass(frozen=True, slots=True)
class Txn:
    """One transaction. `start` and `end` are positions in the history; `end` is `OPEN` if the outcome is unknown."""

    index: int
    """Its position among the transactions given to the checker."""
    process: Process
    outcome: Outcome
    mops: tuple[Mop, ...]
    start: int
    end: int

    @property
    def ok(self) -> bool:
        """It happened, and its reads are what it saw."""
        return self.outcome is Outcome.OK

    def appends(self) -> list[Append]:
        """Its appends, in order."""
        return [mop for mop in self.mops if isinstance(mop, Append)]

    def external_reads(self) -> list[tuple[Key, Elements]]:
        """What it read of others: reads of a key before it appended to it; with known values only."""
        appended: set[Key] = set()
        reads: list[tuple[Key, Elements]] = []
        for mop in self.mops:
            if isinstance(mop, Append):
                appended.add(mop.key)
            elif mop.elements is not None and mop.key not in appended:
                reads.append((mop.key, mop.elements))
        return reads


class UnusableHistory(ValueError):
    """The transactions cannot be judged at all: the workload broke a rule the checker builds on."""


def describe(txn: Txn) -> str:
    """The transaction in short, as in `T3 [append x 1, read y [1, 2]]`."""
    parts = [
        f"append {mop.key} {mop.element}"
        if isinstance(mop, Append)
        else f"read {mop.key} {shorten(mop.elements) if mop.elements is not None else '?'}"
        for mop in txn.mops
    ]
    return f"T{txn.index} [{', '.join(parts)}]"


def shorten(elements: Sequence[Element]) -> str:
    """A list as people read it: the last `SHOWN_MAX` elements, and how many come before."""
    shown = ", ".join(str(element) for element in elements[-SHOWN_MAX:])
    hidden = len(elements) - SHOWN_MAX
    return f"[({hidden} more), {shown}]" if hidden > 0 else f"[{shown}]"
