"""Objects that hold many things, or one that only one client may have: set, counter, queue, bank, mutex.

Sequential specifications (see `model`). No search, no concurrency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kv_jepsen.history import Call, FrozenMap, Value
from kv_jepsen.model import ANY, DEAD, OTHER, UNKNOWN, Model, State, count, two


class Set(Model):
    """A set with `add`, `remove` and `read` of all its elements, first empty."""

    name = "set"
    functions = frozenset({"add", "remove", "read"})
    reads = frozenset({"read"})
    total = frozenset({"add", "remove"})
    commuting = frozenset({"add"})

    def __init__(self, outputs: Sequence[frozenset[Value]] | None = None) -> None:
        self._outputs = outputs
        """All results of reads if the model is fitted to a set that only grows."""

    def init(self) -> State:
        """Return the empty set."""
        return frozenset()

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        if f == "read":
            return state is not DEAD and state == _elements(output), state
        if state is DEAD:
            return True, state
        elements = _elements(state)
        return True, elements - {value} if f == "remove" else self._living(elements | {value})

    def _living(self, elements: frozenset[Value]) -> State:
        if self._outputs is None or any(elements <= output for output in self._outputs):
            return elements
        return DEAD

    def affinity(self, f: str, value: Value, output: Value) -> State:
        """See `Model.affinity`."""
        del value
        return _elements(output) if f == "read" else ANY

    def problem(self, call: Call) -> str:
        """See `Model.problem`."""
        good = call.f != "read" or not call.ok or isinstance(call.output, tuple | frozenset)
        return "" if good else f"its value is a collection, this is {call.output!r}"

    def fitted(self, calls: Sequence[Call]) -> tuple[Model, list[Call]]:
        """While nothing is removed, a set that is part of no result will never be read."""
        if any(call.f == "remove" for call in calls):
            return self, list(calls)
        return Set(list({_elements(call.output) for call in calls if call.f == "read"})), list(calls)


def _elements(value: Value) -> frozenset[Value]:
    if isinstance(value, frozenset):
        return value
    assert isinstance(value, tuple), "Model.problem admits collections only"
    return frozenset(value)


class Counter(Model):
    """A number, first 0: `add` of a delta, `read`, and `add_get`, which returns the sum after it."""

    name = "counter"
    functions = frozenset({"add", "read", "add_get"})
    reads = frozenset({"read"})
    total = commuting = frozenset({"add"})

    def init(self) -> State:
        """Return zero."""
        return 0

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        if f == "read":
            return state == output, state
        after = count(state) + count(value)
        return f == "add" or output in (UNKNOWN, after), after

    def affinity(self, f: str, value: Value, output: Value) -> State:
        """See `Model.affinity`."""
        del value
        return output if f == "read" else ANY

    def problem(self, call: Call) -> str:
        """See `Model.problem`."""
        return "" if call.f == "read" or isinstance(call.input, int) else f"{call.input!r} is no whole number"


class Queue(Model):
    """First in, first out: `enqueue`; `dequeue` returns the oldest element, or None if there is none."""

    name = "queue"
    functions = frozenset({"enqueue", "dequeue"})

    def __init__(self, takings: Mapping[Value, tuple[int, int]] | None = None, lost_takings: int = 0) -> None:
        self._takings = takings or {}
        """Begin and end of the dequeue of each element, if the model is fitted: it must come out in that order."""
        self._lost_takings = lost_takings
        """How many dequeues of unknown outcome may take what no other takes."""

    def init(self) -> State:
        """Return the empty queue."""
        return ()

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        assert isinstance(state, tuple), "a queue is a tuple"
        if f == "enqueue":
            return self._in_order(state, value), (*state, value)
        if not state:
            return output in (UNKNOWN, None), state
        if output is UNKNOWN:
            return state[0] not in self._takings, state[1:]
        return output == state[0], state[1:]

    def _in_order(self, state: tuple[Value, ...], value: Value) -> bool:
        """Whether the elements before `value` can all be taken before it."""
        taking = self._takings.get(value)
        if taking is None:
            return True
        earlier = [self._takings.get(element) for element in state]
        return earlier.count(None) <= self._lost_takings and all(
            other is None or other[0] < taking[1] for other in earlier
        )

    def fitted(self, calls: Sequence[Call]) -> tuple[Model, list[Call]]:
        """Elements that nobody took are alike; others are taken in the order of their dequeues, if no two are equal.

        An element of unknown fate that nobody took need not have come, unless an unknown dequeue could take it.
        """
        takings = {call.output: (call.start, call.end) for call in calls if _takes(call)}
        lost_takings = sum(call.f == "dequeue" and call.output is UNKNOWN for call in calls)
        simple = [_plain_element(call, takings) for call in calls]
        if not lost_takings:
            simple = [call for call in simple if call.output is not UNKNOWN or call.input is not OTHER]
        elements = [call.input for call in simple if call.f == "enqueue" and call.input is not OTHER]
        if len(set(elements)) < len(elements):
            return self, simple
        return Queue(takings, lost_takings), simple


def _takes(call: Call) -> bool:
    return call.f == "dequeue" and call.output is not UNKNOWN and call.output is not None


def _plain_element(call: Call, takings: Mapping[Value, tuple[int, int]]) -> Call:
    if call.f == "dequeue":
        return call
    element = call.input if call.input in takings else OTHER
    return replace(call, input=element, output=UNKNOWN if call.output is UNKNOWN else None)


class Bank(Model):
    """Accounts with `transfer` of (from, to, amount), refused with False where the money is missing, and `read` of all.

    A read returns pairs (account, balance). Without `initial` the balances before the first read are not known: until then the
    state holds what was moved, and no transfer is found impossible.
    """

    name = "bank"
    functions = frozenset({"transfer", "read"})
    reads = frozenset({"read"})

    def __init__(self, initial: Mapping[Value, int] | None = None) -> None:
        self._initial = initial

    def init(self) -> State:
        """Return (balances known?, balances or movements)."""
        return self._initial is not None, _balances(FrozenMap(self._initial or {}))

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        known, balances = two(state)
        assert isinstance(known, bool), "made by this class"
        assert isinstance(balances, FrozenMap), "made by this class"
        if f == "read":
            told = _balances(output)
            return (balances == told, state) if known else (True, (True, told))
        source, target, amount = _transfer(value)
        enough = not known or count(balances.get(source, 0)) >= amount
        if output is False:
            return not known or not enough, state
        if not enough:
            return output is UNKNOWN, state
        return True, (known, _moved(balances, source, target, amount))

    def problem(self, call: Call) -> str:
        """See `Model.problem`."""
        if call.f == "transfer":
            value = call.input
            good = isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], int)
            return "" if good else f"its value is (from, to, amount), this is {value!r}"
        good = not call.ok or isinstance(call.output, Mapping | tuple)
        return "" if good else f"its value is pairs of account and balance, this is {call.output!r}"


def _balances(output: Value) -> FrozenMap:
    """An account without money and one that is not named are the same."""
    pairs = output.items() if isinstance(output, Mapping) else output
    assert isinstance(pairs, Iterable), "Model.problem admits maps and pairs only"
    return FrozenMap({account: balance for account, balance in pairs if balance})


def _transfer(value: Value) -> tuple[Value, Value, int]:
    assert isinstance(value, tuple), "Model.problem admits triples only"
    return value[0], value[1], value[2]


def _moved(balances: FrozenMap, source: Value, target: Value, amount: int) -> FrozenMap:
    after = dict(balances)
    after[source] = count(after.get(source, 0)) - amount
    after[target] = count(after.get(target, 0)) + amount
    return _balances(FrozenMap(after))


class Mutex(Model):
    """A lock: `acquire` and `release`, each with its holder as value; first free.

    A completion with False says that the lock was held (acquire) or was not the caller's (release).
    """

    name = "mutex"
    functions = frozenset({"acquire", "release"})

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        holder = ("held by", value)
        fits = state is None if f == "acquire" else state == holder
        if output is False:
            return not fits, state
        return fits or output is UNKNOWN, (holder if f == "acquire" else None) if fits else state
