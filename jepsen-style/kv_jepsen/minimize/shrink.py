"""Delta debugging: fewer and fewer things, as long as what is wanted stays. Pure.

After Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 2002, without its tests of single
parts: halves are left out, then quarters, down to single things, and these again until none can be.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Shrunk(Generic[T]):
    """What is left.

    Attributes:
        kept: the things that are left, in their order.
        tests: how many attempts were made.
        minimal: whether every single one of them was left out in vain; False if the time was over before.
    """

    kept: tuple[T, ...]
    tests: int
    minimal: bool


def shrink(
    things: Sequence[T],
    attempt: Callable[[tuple[T, ...]], Sequence[T] | None],
    expired: Callable[[], bool] = lambda: False,
) -> Shrunk[T]:
    """Leave out as much as possible.

    Args:
        things: of which all together have what is wanted.
        attempt: tells whether some of them still have it: returns those that were needed (all that were asked about, or fewer,
            in the same order), or None.
        expired: says whether to stop; asked before each attempt.
    """
    kept = tuple(things)
    size = (len(kept) + 1) // 2
    tests = 0
    while size:
        place, left_out = 0, False
        while place < len(kept):
            if expired():
                return Shrunk(kept, tests, minimal=False)
            tests += 1
            found = attempt(kept[:place] + kept[place + size :])
            if found is None:
                place += size
            else:
                assert len(found) < len(kept), "an attempt returns no more than it was asked about"
                kept, left_out = tuple(found), True
        size = _next_size(size, len(kept), left_out)
    return Shrunk(kept, tests, minimal=True)


def _next_size(size: int, count: int, left_out: bool) -> int:
    """Half as many; single things again as long as one of them could be left out; 0 at the end."""
    if size == 1:
        return min(1, count) if left_out else 0
    return min(size // 2, max(1, count // 2))
