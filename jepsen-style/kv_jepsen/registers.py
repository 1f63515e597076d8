"""Objects that hold one value: a register, one that counts its writes, one with revisions, one key of a map of strings.

Sequential specifications (see `model`). No search, no concurrency.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from kv_jepsen.blocks import order_by_blocks
from kv_jepsen.history import OPEN, Call, Outcome, Value
from kv_jepsen.horizons import Horizon, of_growing, of_register, of_strings
from kv_jepsen.model import ANY, DEAD, OTHER, UNKNOWN, Model, State, count, pair_problem, two


class Register(Model):
    """One value with `read`, `write` and compare-and-set, first None.

    `cas` takes (expected, new). A cas that failed without an error is a refusal: the value was another one, as in Jepsen's
    etcd logs. A completion with False says the same.
    """

    name = "register"
    functions = frozenset({"read", "write", "cas"})
    reads = frozenset({"read"})
    blind = total = frozenset({"write"})

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        if f == "read":
            return state == output, state
        if f == "write":
            return True, value
        expected, new = two(value)
        if output is False:
            return state != expected, state
        return (True, new) if state == expected else (output is UNKNOWN, state)

    def affinity(self, f: str, value: Value, output: Value) -> State:
        """See `Model.affinity`."""
        if f == "cas":
            return ANY if output is False else two(value)[0]
        return output if f == "read" else value

    def proposed(self, calls: Sequence[Call]) -> Sequence[Call] | None:
        """See `Model.proposed`."""
        return order_by_blocks(calls, self.init())

    def horizon(self, calls: Sequence[Call], entry: Sequence[State]) -> Horizon | None:
        """See `Model.horizon`."""
        made: list[tuple[Value, Call]] = []
        seen: list[tuple[Value, Call]] = []
        for call in calls:
            if call.f == "cas" and call.output is not False:
                expected, new = two(call.input)
                made.append((new, call))
                seen += [] if call.output is UNKNOWN else [(expected, call), (new, call)]
            elif call.f == "write":
                made.append((call.input, call))
                seen.append((call.input, call))
            elif call.f == "read":
                seen.append((call.output, call))
        return of_register(seen, made, entry)

    def problem(self, call: Call) -> str:
        """See `Model.problem`."""
        return pair_problem(call.input, "expected and new") if call.f == "cas" else ""

    def observed(self, call: Call) -> Call | None:
        """See `Model.observed`."""
        if call.f != "cas" or call.error is not None:
            return None
        return replace(call, outcome=Outcome.OK, output=False)

    def fitted(self, calls: Sequence[Call]) -> tuple[Model, list[Call]]:
        """Values that no read returned and no cas expects are one value."""
        asked = {self.init()}
        for call in calls:
            if call.f != "write":
                asked.add(call.output if call.f == "read" else two(call.input)[0])
        return self, [_without_unasked(call, asked) for call in calls]


def _without_unasked(call: Call, asked: set[Value]) -> Call:
    if call.f == "write" and call.input not in asked:
        return replace(call, input=OTHER)
    if call.f == "cas":
        expected, new = two(call.input)
        if new not in asked:
            return replace(call, input=(expected, OTHER))
    return call


class VersionedRegister(Model):
    """A value that counts its writes: (value, version), first (None, 0); each write adds one.

    `read` returns (value, version); `write` returns the new version or None if it was not told; `cas` takes (expected
    version, new value) and returns the new version, None, or False if refused.
    """

    name = "versioned"
    functions = frozenset({"read", "write", "cas"})
    reads = frozenset({"read"})

    def init(self) -> State:
        """No write yet."""
        return None, 0

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        if f == "read":
            return state == output, state
        version = count(two(state)[1])
        if f == "write":
            return output in (UNKNOWN, None, version + 1), (value, version + 1)
        expected, new = two(value)
        if output is False:
            return expected != version, state
        if expected != version:
            return output is UNKNOWN, state
        return output in (UNKNOWN, None, version + 1), (new, version + 1)

    def affinity(self, f: str, value: Value, output: Value) -> State:
        """See `Model.affinity`."""
        del value
        return output if f == "read" else ANY

    def horizon(self, calls: Sequence[Call], entry: Sequence[State]) -> Horizon | None:
        """See `Model.horizon`."""
        del entry
        return of_growing(
            [(call, *told) for call in calls if (told := _versions(call))],
            lambda state: count(two(state)[1]),
        )

    def problem(self, call: Call) -> str:
        """See `Model.problem`."""
        if call.f == "cas":
            return pair_problem(call.input, "expected version and new value")
        return pair_problem(call.output, "value and version") if call.f == "read" and call.ok else ""

    def observed(self, call: Call) -> Call | None:
        """See `Model.observed`."""
        if call.f != "cas" or call.error is not None:
            return None
        return replace(call, outcome=Outcome.OK, output=False)


def _versions(call: Call) -> tuple[int, int] | None:
    """Return the least version after the call and the greatest before it, if it told any."""
    if call.f == "read":
        version = count(two(call.output)[1])
        return version, version
    if isinstance(call.output, int) and call.output is not False:
        return call.output, call.output - 1
    return None


class RevisionRegister(Model):
    """A value with the revision of its last write: (value, revision), first (None, 0); revisions grow, by any amount.

    Calls as in `VersionedRegister`. After a write that did not tell its revision the state holds the revision it is above,
    and which ones it is not; the next read that returns the value fixes it.
    """

    name = "revisions"
    functions = frozenset({"read", "write", "cas"})
    reads = frozenset({"read"})

    def init(self) -> State:
        """No write yet: revision 0, known exactly."""
        return None, 0, True, frozenset()

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        held, revision, exact, _ = _revision_state(state)
        if f == "read":
            told, number = two(output)
            return (told == held, state) if exact and number == revision else _fixed(state, told, number)
        if f == "write":
            return _revised(value, revision, output)
        expected, new = two(value)
        if output is False:
            return _refused(state, expected)
        fits, known = _fixed(state, held, expected) if not exact else (expected == revision, state)
        if not fits:
            return output is UNKNOWN, state
        return _revised(new, _revision_state(known)[1], output)

    def problem(self, call: Call) -> str:
        """See `Model.problem`."""
        if call.f == "cas":
            return pair_problem(call.input, "expected revision and new value")
        return pair_problem(call.output, "value and revision") if call.f == "read" and call.ok else ""

    def observed(self, call: Call) -> Call | None:
        """See `Model.observed`."""
        return VersionedRegister().observed(call)


def _revision_state(state: State) -> tuple[Value, int, bool, frozenset[Value]]:
    assert isinstance(state, tuple), "made by RevisionRegister"
    held, revision, exact, excluded = state
    return held, revision, exact, excluded


def _fixed(state: State, told: Value, number: Value) -> tuple[bool, State]:
    """The revision turns out to be `number`."""
    held, revision, exact, excluded = _revision_state(state)
    fits = not exact and told == held and count(number) > revision and number not in excluded
    return fits, (held, number, True, frozenset())


def _revised(value: Value, revision: int, output: Value) -> tuple[bool, State]:
    if output in (UNKNOWN, None):
        return True, (value, revision, False, frozenset())
    return count(output) > revision, (value, output, True, frozenset())


def _refused(state: State, expected: Value) -> tuple[bool, State]:
    held, revision, exact, excluded = _revision_state(state)
    if exact:
        return expected != revision, state
    return True, (held, revision, False, excluded | {expected}) if count(expected) > revision else state


class KvString(Model):
    """One key of a map of strings, as in porcupine's data: `get`, `put`, `append`; absent is the empty string."""

    name = "kv"
    functions = frozenset({"get", "put", "append"})
    reads = frozenset({"get"})
    blind = frozenset({"put"})
    total = frozenset({"put", "append"})

    def __init__(self, outputs: Sequence[str] | None = None) -> None:
        self._outputs = outputs
        """All results of gets, sorted, if the model is fitted: a string that begins none of them is `DEAD`."""

    def init(self) -> State:
        """Return the absent key."""
        return self._living("")

    def step(self, state: State, f: str, value: Value, output: Value) -> tuple[bool, State]:
        """See `Model.step`."""
        if f == "get":
            return state == output, state
        assert isinstance(value, str), "Model.problem admits strings only"
        if f == "put":
            return True, self._living(value)
        return True, DEAD if state is DEAD else self._living(f"{state}{value}")

    def _living(self, text: str) -> State:
        if self._outputs is None:
            return text
        place = bisect_left(self._outputs, text)
        return text if place < len(self._outputs) and self._outputs[place].startswith(text) else DEAD

    def affinity(self, f: str, value: Value, output: Value) -> State:
        """See `Model.affinity`."""
        if f == "append":
            return ANY
        return output if f == "get" else self.step("", f, value, output)[1]

    def horizon(self, calls: Sequence[Call], entry: Sequence[State]) -> Horizon | None:
        """See `Model.horizon`. Nothing is known of a string that may be `DEAD` at first, or grow by nothing."""
        puts = [(str(call.input), call) for call in calls if call.f == "put"]
        begun = [*(text for text in entry if isinstance(text, str)), *(text for text, _ in puts)]
        results = [(str(call.output), call) for call in calls if call.f == "get"]
        appended = [str(call.input) for call in calls if call.f == "append"]
        return of_strings(results, begun, appended, [(text, call) for text, call in puts if call.end != OPEN])

    def problem(self, call: Call) -> str:
        """See `Model.problem`."""
        value = call.output if call.f == "get" else call.input
        needed = call.f != "get" or call.ok
        return "" if isinstance(value, str) or not needed else f"its value is a string, this is {value!r}"

    def fitted(self, calls: Sequence[Call]) -> tuple[Model, list[Call]]:
        """Strings that begin no result are one state."""
        return KvString(sorted({str(call.output) for call in calls if call.f == "get"})), list(calls)
