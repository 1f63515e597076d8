"""The calls of one object by what they do: kinds, numbered states, and which calls are pending.

Tables of `search`, which says what they are for. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field

from kv_jepsen.history import Call, Value
from kv_jepsen.models import ANY, Model, State

RESULT_BYTES = 120
"""What a remembered result of a model's step costs."""

MEMBER_BYTES = 40
"""What a member of a state that is a collection costs."""

STATE_BYTES = 400
"""What a state costs beside what it holds: its number, and its place in two tables."""

Shape = tuple[str, Value, Value]
"""Function, input and output; the output of a call that always succeeds is left out."""

IMPOSSIBLE = -1
"""In place of a state: the call cannot return what it returned."""

ANYWHERE = -2
"""In place of an affinity: the call may do something in any state."""

NO_CALLS: dict[int, list[tuple[int, int]]] = {}


@dataclass(frozen=True, slots=True)
class Kind:
    """What calls with the same effect have in common; the hints of the model for them."""

    number: int
    shape: Shape
    blind: bool
    total: bool
    commuting: bool
    answers: bool
    affinity: int


class Kinds:
    """The kinds of the calls of one object, and the numbered states they lead to."""

    def __init__(self, model: Model, entry: Sequence[State]) -> None:
        self.model = model
        self.kinds: list[Kind] = []
        self.by_shape: dict[Shape, Kind] = {}
        self.states: list[State] = []
        self.state_numbers: dict[State, int] = {}
        self.results: list[dict[int, int]] = []
        """For each state the next one by kind; `IMPOSSIBLE` if there is none."""
        self.state_bytes = 0
        """What the states hold, about."""
        self.known = 0
        """How many results were computed."""
        self.entry = [self.state_number(state) for state in entry]

    def state_number(self, state: State) -> int:
        """Return the number of a state, a new one if it was never seen."""
        number = self.state_numbers.get(state)
        if number is None:
            number = self.state_numbers[state] = len(self.states)
            self.state_bytes += STATE_BYTES + size_bytes(state)
            self.states.append(state)
            self.results.append({})
        return number

    def of(self, call: Call) -> Kind:
        """Return the call's kind."""
        total = call.f in self.model.total
        shape = (call.f, call.input, None if total else call.output)
        kind = self.by_shape.get(shape)
        if kind is None:
            kind = self.by_shape[shape] = self._new(shape)
        return kind

    def _new(self, shape: Shape) -> Kind:
        model, (f, value, output) = self.model, shape
        affinity = model.affinity(f, value, output)
        kind = Kind(
            number=len(self.kinds),
            shape=shape,
            blind=f in model.blind,
            total=f in model.total,
            commuting=f in model.commuting,
            answers=f in model.reads,
            affinity=ANYWHERE if affinity is ANY else self.state_number(affinity),
        )
        self.kinds.append(kind)
        return kind

    def next(self, state: int, kind: int) -> int:
        """Return the state after a call of this kind, or `IMPOSSIBLE`."""
        results = self.results[state]
        after = results.get(kind)
        if after is None:
            self.known += 1
            possible, reached = self.model.step(self.states[state], *self.kinds[kind].shape)
            after = results[kind] = self.state_number(reached) if possible else IMPOSSIBLE
        return after


@dataclass(slots=True)
class Pending:
    """Calls that have begun and not returned, and where their bits stand."""

    calls: dict[int, int] = field(default_factory=dict)
    """Number of the call by its bit."""
    places: dict[tuple[bool, int], dict[int, list[tuple[int, int]]]] = field(default_factory=dict)
    """By (blind?, affinity) and kind: (end, bit) of the calls, by end, since interchange takes the first."""
    total: int = 0
    """Bits of calls that always succeed."""
    lasting: int = 0
    """Bits of calls that do not commute with their like."""
    slots_free: list[int] = field(default_factory=list)
    slots_used: int = 0

    def begin(self, call: int, kind: Kind, end: int) -> int:
        """Give the call a bit and return it."""
        if self.slots_free:
            bit = self.slots_free.pop()
        else:
            bit = 1 << self.slots_used
            self.slots_used += 1
        self.calls[bit] = call
        self.total |= bit if kind.total else 0
        self.lasting |= 0 if kind.commuting else bit
        same = self.places.setdefault((kind.blind, kind.affinity), {}).setdefault(kind.number, [])
        same.append((end, bit))
        same.sort()
        return bit

    def end(self, bit: int, kind: Kind) -> None:
        """Take the bit back."""
        del self.calls[bit]
        self.slots_free.append(bit)
        self.total &= ~bit
        self.lasting &= ~bit
        place = self.places[kind.blind, kind.affinity]
        place[kind.number] = [entry for entry in place[kind.number] if entry[1] != bit]
        if not place[kind.number]:
            del place[kind.number]
            if not place:
                del self.places[kind.blind, kind.affinity]

    def at(self, blind: bool, state: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield kinds and calls that may do something in `state`."""
        for affinity in (state, ANYWHERE):
            yield from self.places.get((blind, affinity), NO_CALLS).items()


def size_bytes(state: State) -> int:
    """Return about how many bytes a state holds."""
    if isinstance(state, str):
        return len(state)
    return MEMBER_BYTES * len(state) if isinstance(state, Sized) else 0
