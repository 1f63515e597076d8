"""Histories made up from a seed: correct ones of every model, and the same with one planted error.

Simulated clients invoke, take effect at one instant, and return; some never learn what happened, and their calls take
effect later or never. So a generated history is linearizable by construction, and its linearization is known.
No judging here: whether a planted error shows is for a checker to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from kv_jepsen.history import Call, FrozenMap, History, Op, OpType, Value
from kv_jepsen.models import MODELS, Bank, Model, State

ACCOUNTS = 4
BALANCE = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How a history is made.

    Attributes:
        calls: how many invocations.
        clients: how many at a time.
        keys: how many objects; 0 for one without a name.
        values: how many different values are written where the model has values; 0 makes each write unique.
        unknown_share: of calls that never learn their outcome.
        lost_share: of those, the ones that never take effect.
        eagerness: probability that a client with something to do takes effect or returns when it is looked at; the smaller,
            the more calls are concurrent.
    """

    calls: int = 40
    clients: int = 5
    keys: int = 0
    values: int = 4
    unknown_share: float = 0.1
    lost_share: float = 0.5
    eagerness: float = 0.6


Draw = Callable[[Random, State, Value], tuple[str, Value]]
"""(rng, state, fresh or repeated value) to function and input. It may look at the state, to ask for what is likely to succeed."""

Answer = Callable[[Random, State, str, Value], tuple[Value, State]]
"""(rng, state, function, input) to output and next state."""


@dataclass(slots=True)
class _Running:
    """A call on its way."""

    process: int
    f: str
    key: Value
    value: Value
    done: bool = False
    output: Value = None


@dataclass(slots=True)
class _World:
    """The objects, the clients, and what was recorded."""

    rng: Random
    plan: Plan
    model: str
    states: dict[Value, State] = field(default_factory=dict)
    running: dict[int, _Running] = field(default_factory=dict)
    ghosts: list[_Running] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    invoked: int = 0
    processes: list[int] = field(default_factory=list)

    def record(self, call: _Running, kind: OpType, value: Value) -> None:
        index = len(self.ops)
        self.ops.append(Op(index, call.process, kind, call.f, call.key, value, time_ns=index * 1_000_000))

    def take_effect(self, call: _Running) -> None:
        state = self.states.get(call.key, _INITIAL[self.model])
        call.output, self.states[call.key] = _ANSWERS[self.model](self.rng, state, call.f, call.value)
        call.done = True

    def invoke(self, slot: int) -> None:
        rng, plan = self.rng, self.plan
        key = f"k{rng.randrange(plan.keys)}" if plan.keys else None
        repeats = plan.values and self.model not in _UNIQUE
        value = rng.randrange(plan.values) if repeats else self.invoked
        state = self.states.get(key, _INITIAL[self.model])
        f, argument = _DRAWS[self.model](rng, state, value)
        call = self.running[slot] = _Running(self.processes[slot], f, key, argument)
        self.invoked += 1
        self.record(call, OpType.INVOKE, argument)

    def finish(self, slot: int) -> None:
        call = self.running.pop(slot)
        refused = call.output is False and self.rng.random() < 0.5
        kind = OpType.FAIL if refused and self.model in _REFUSALS else OpType.OK
        self.record(call, kind, call.value if kind is OpType.FAIL else call.output)

    def lose(self, slot: int) -> None:
        """The client gives up; a new process takes its place."""
        call = self.running.pop(slot)
        self.record(call, OpType.INFO, None)
        self.processes[slot] += self.plan.clients
        if not call.done and self.rng.random() >= self.plan.lost_share:
            self.ghosts.append(call)

    def turn(self) -> None:
        """One client, or one call whose client has given up, does the next thing."""
        rng = self.rng
        if self.ghosts and rng.random() < 0.1:
            self.take_effect(self.ghosts.pop(rng.randrange(len(self.ghosts))))
        slot = rng.randrange(self.plan.clients)
        call = self.running.get(slot)
        if call is None:
            if self.invoked < self.plan.calls:
                self.invoke(slot)
        elif rng.random() < self.plan.eagerness:
            if rng.random() < self.plan.unknown_share / 2:
                self.lose(slot)
            elif call.done:
                self.finish(slot)
            else:
                self.take_effect(call)


def model_of(name: str) -> Model:
    """Return the model by which a generated history is judged: the bank knows its first balances."""
    return Bank(dict.fromkeys(range(ACCOUNTS), BALANCE)) if name == "bank" else MODELS[name]()


def correct(model: str, plan: Plan, rng: Random) -> History:
    """Return a linearizable history for the model of this name."""
    world = _World(rng, plan, model, processes=list(range(plan.clients)))
    while world.running or world.invoked < plan.calls:
        world.turn()
    return History(world.ops)


def with_wrong_output(history: History, rng: Random) -> History | None:
    """Return the history with the output of one call replaced by another call's; None if no call has another one.

    It may still be linearizable: that is for a checker to say.
    """
    places = [call for call in history.calls if call.ok and (call.f in _ASKS or call.output is not None)]
    if not places:
        return None
    victim = rng.choice(places)
    others = sorted({repr(c.output): c.output for c in places if c.f == victim.f}.items())
    outputs = [output for _, output in others if output != victim.output]
    return _with_output(history, victim, rng.choice(outputs)) if outputs else None


def with_impossible_output(history: History, model: str, rng: Random) -> History | None:
    """Return the history with one answer that no order can explain; None if nothing in it answers.

    Wrong by construction: the answer names a value that nobody ever wrote.
    """
    places = [call for call in history.calls if call.ok and call.f in _ASKS]
    if not places:
        return None
    victim = rng.choice(places)
    return _with_output(history, victim, _IMPOSSIBLE[model](victim))


def _with_output(history: History, victim: Call, output: Value) -> History:
    ops = list(history.ops)
    ops[victim.end] = replace(ops[victim.end], value=output)
    return History(ops)


_ASKS = frozenset({"read", "get", "dequeue", "add_get"})
_UNIQUE = frozenset({"queue"})
"""Models whose workloads never write a value twice; with equal elements nobody could tell what became of which."""
_REFUSALS = frozenset({"register", "versioned", "revisions"})
NEVER = -77
"""A value that no generated call writes."""

_IMPOSSIBLE: Mapping[str, Callable[[Call], Value]] = {
    "register": lambda _: NEVER,
    "versioned": lambda _: (NEVER, 1),
    "revisions": lambda _: (NEVER, 1),
    "kv": lambda call: f"{call.output}never",
    "set": lambda call: (*_sequence(call.output), NEVER),
    "counter": lambda _: 10**9,
    "queue": lambda _: NEVER,
    "bank": lambda call: (*_sequence(call.output), ("thief", 1)),
}


def _sequence(value: Value) -> tuple[Value, ...]:
    assert isinstance(value, tuple), "collections are recorded as tuples"
    return value


def _number(value: Value) -> int:
    assert isinstance(value, int), "made here"
    return value


# ------------------------------------------------------------------ what clients of each model ask


def _draw_register(rng: Random, state: State, value: Value) -> tuple[str, Value]:
    f = rng.choice(["read", "read", "write", "cas"])
    if f == "cas":
        return f, (state if rng.random() < 0.5 else rng.randrange(4), value)
    return f, value if f == "write" else None


def _draw_versioned(rng: Random, state: State, value: Value) -> tuple[str, Value]:
    f, _ = _draw_register(rng, None, value)
    version = _number(_sequence(state)[1])
    expected = version if rng.random() < 0.6 else rng.randrange(version + 2)
    return f, {"read": None, "write": value, "cas": (expected, value)}[f]


def _draw_kv(rng: Random, state: State, value: Value) -> tuple[str, Value]:
    del state
    f = rng.choice(["get", "get", "append", "append", "append", "put"])
    return f, None if f == "get" else f"<{value}>"


def _draw_set(rng: Random, state: State, value: Value) -> tuple[str, Value]:
    del state
    f = rng.choice(["add", "add", "read", "read", "remove"])
    return f, None if f == "read" else value


def _draw_counter(rng: Random, state: State, value: Value) -> tuple[str, Value]:
    del state, value
    f = rng.choice(["add", "add", "read", "add_get"])
    return f, None if f == "read" else rng.choice([-1, 1, 2, 5])


def _draw_queue(rng: Random, state: State, value: Value) -> tuple[str, Value]:
    del state
    return ("dequeue", None) if rng.random() < 0.5 else ("enqueue", value)


def _draw_bank(rng: Random, state: State, value: Value) -> tuple[str, Value]:
    del state, value
    if rng.random() < 0.4:
        return "read", None
    source, target = rng.sample(range(ACCOUNTS), 2)
    return "transfer", (source, target, rng.randint(1, 8))


def _draw_mutex(rng: Random, state: State, value: Value) -> tuple[str, Value]:
    holder = rng.randrange(3)
    if isinstance(state, tuple) and rng.random() < 0.7:
        return "release", state[1]
    del value
    return rng.choice(["acquire", "acquire", "release"]), holder


# ------------------------------------------------------------------ what each object answers


def _answer_by_model(model: str) -> Answer:
    """Return an answer that tries the possible outputs on the model until one fits."""
    step = MODELS[model]().step

    def answer(rng: Random, state: State, f: str, value: Value) -> tuple[Value, State]:
        del rng
        for output in _outputs(model, state, f, value):
            possible, after = step(state, f, value, output)
            if possible:
                return output, after
        raise AssertionError(f"{model} has no answer to {f} {value!r} in {state!r}")

    return answer


def _answer_revisions(rng: Random, state: State, f: str, value: Value) -> tuple[Value, State]:
    """The true state is (value, revision, True, nothing excluded); now and then a write does not tell its revision."""
    held, revision = _sequence(state)[:2]
    if f == "read":
        return (held, revision), state
    if f == "cas" and _sequence(value)[0] != revision:
        return False, state
    new = value if f == "write" else _sequence(value)[1]
    number = _number(revision) + rng.randint(1, 3)
    return number if rng.random() < 0.7 else None, (new, number, True, frozenset())


def _outputs(model: str, state: State, f: str, value: Value) -> list[Value]:
    """What a call may return, the likelier first."""
    if f in {"read", "get"}:
        return [_shown(state)]
    match model:
        case "register":
            return [True, False] if f == "cas" else [value]
        case "versioned":
            return [_number(_sequence(state)[1]) + 1, False]
        case "counter":
            return [_number(state) + _number(value)]
        case "bank" | "mutex":
            return [True, False]
        case _:
            return [*_sequence(state)[:1], None] if f == "dequeue" else [value]


def _shown(state: State) -> Value:
    """Return a state as a read returns it."""
    if isinstance(state, frozenset):
        return tuple(sorted(state))
    return _all_accounts(state) if isinstance(state, tuple) and isinstance(state[1], FrozenMap) else state


def _all_accounts(state: State) -> Value:
    balances = _sequence(state)[1]
    assert isinstance(balances, FrozenMap), "made by Bank"
    return tuple((account, balances.get(account, 0)) for account in range(ACCOUNTS))


_DRAWS: Mapping[str, Draw] = {
    "register": _draw_register,
    "versioned": _draw_versioned,
    "revisions": _draw_versioned,
    "kv": _draw_kv,
    "set": _draw_set,
    "counter": _draw_counter,
    "queue": _draw_queue,
    "bank": _draw_bank,
    "mutex": _draw_mutex,
}
_ANSWERS: Mapping[str, Answer] = {
    **{name: _answer_by_model(name) for name in MODELS if name != "revisions"},
    "revisions": _answer_revisions,
}
_INITIAL: Mapping[str, State] = {name: model_of(name).init() for name in MODELS}
