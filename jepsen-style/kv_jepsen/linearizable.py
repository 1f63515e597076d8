"""Is a history linearizable? Key by key: the evidence first, then searches, within limits.

The searches are `search` and `wing_gong`, the claimed order is `witness`, the picture `windows`. Here is which of them is asked,
how long, and what the answer means. Time is a parameter: `now` gives seconds, from any zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kv_jepsen.history import Call, History, Value
from kv_jepsen.models import Model, model_for
from kv_jepsen.search import Search, SearchExpired
from kv_jepsen.trails import placed
from kv_jepsen.verdict import Failure, Judgement, KeyVerdict, Verdict
from kv_jepsen.windows import failure_of
from kv_jepsen.wing_gong import DepthFirst
from kv_jepsen.witness import verified, witnessed


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give up with the judgement `UNKNOWN`.

    Attributes:
        seconds: for the whole history.
        memory_mib: that one search may hold, by its own estimate.
    """

    seconds: float = 60.0
    memory_mib: int = 1500


@dataclass(frozen=True, slots=True)
class _Stage:
    """One of the searches that are tried in turn.

    Attributes:
        width: None for a complete search, a number for a narrow one, `DEPTH_FIRST` for that.
        looked_max: configurations it may look at; None for no limit.
        share: of the time that is left, what it may take.
    """

    width: int | None
    looked_max: int | None = None
    share: float = 1.0


DEPTH_FIRST = 0
STAGES = (
    _Stage(None, 3_000),
    _Stage(DEPTH_FIRST, 50_000, 0.3),
    _Stage(16, None, 0.1),
    _Stage(None, 100_000, 0.3),
    _Stage(64, None, 0.2),
    _Stage(DEPTH_FIRST, None, 0.3),
    _Stage(None),
)
"""The first one answers nearly always. Where too many calls are open at a time for it, the depth-first and the narrow searches
may still find a linearization; that there is none, only a search that has tried everything can say, or answers that contradict
each other outright: those are looked for after the first search, whose picture is better."""


PICTURE_MAX = 20
"""A failing part of more calls is hard to look at; answers that contradict each other outright are shown instead, if there are."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a search found: an order (of the calls it was given), or none and a picture of why."""

    order: Sequence[Call] | None
    failure: Failure | None = None


def check(
    history: History,
    model: Model | None = None,
    limits: Limits | None = None,
    now: Callable[[], float] = float,
    with_order: bool = False,
    use_evidence: bool = True,
) -> Verdict:
    """Judge a history.

    Args:
        history: of one object or of many keys.
        model: of each object; found by the functions in the history if None.
        limits: of time and memory.
        now: seconds from any zero; without a clock no time passes and only memory is limited.
        with_order: also return a linearization of each key that has one.
        use_evidence: verify the order that replies claim before searching.

    Raises:
        UnsuitableHistory: the model does not know a call, or no single model suits.
    """
    model = model or model_for(history.calls)
    limits = limits or Limits()
    judge = _Judge(model, now, now() + limits.seconds, limits.memory_mib << 20, with_order, use_evidence)
    parts = [(key, model.taking_part(calls), calls) for key, calls in history.by_key().items()]
    return Verdict(model.name, tuple(judge.key(*part) for part in parts))


@dataclass(frozen=True, slots=True)
class _Judge:
    """What all keys of a check have in common."""

    model: Model
    now: Callable[[], float]
    deadline: float
    memory_bytes: int
    with_order: bool
    use_evidence: bool

    def key(self, key: Value, calls: Sequence[Call], recorded: Sequence[Call]) -> KeyVerdict:
        """Judge the calls of one key: `calls` take part, `recorded` are all as they were recorded."""
        problem = ""
        if self.use_evidence:
            witness = witnessed(self.model, calls)
            if witness.order is not None:
                order = self._shown(witness.order, recorded)
                return KeyVerdict(
                    key, Judgement.LINEARIZABLE, len(calls), method="witness", linearization=order
                )
            problem = witness.problem and f"the order claimed by the replies does not hold: {witness.problem}"
        return self._searched(key, calls, recorded, problem)

    def _searched(
        self, key: Value, calls: Sequence[Call], recorded: Sequence[Call], problem: str
    ) -> KeyVerdict:
        fitted, simple = self.model.fitted(calls)
        looked_at = 0
        over = "time"
        for number, stage in enumerate(STAGES):
            meter = _Meter(self, stage)
            try:
                answer = _asked(fitted, simple, stage.width, meter, recorded)
            except SearchExpired:
                answer, over = None, meter.over
            if number == 0 and not _clear(answer):
                answer = _contradicted(fitted, simple, recorded) or answer or _proposed(self.model, calls)
            looked_at += meter.looked_at
            if answer is not None:
                fine = answer.order is not None
                return KeyVerdict(
                    key,
                    Judgement.LINEARIZABLE if fine else Judgement.NOT_LINEARIZABLE,
                    len(calls),
                    looked_at,
                    reason=problem,
                    failure=answer.failure,
                    linearization=self._shown(answer.order, recorded),
                )
        reason = f"the {over} limit was reached after {looked_at:,} configurations; raise --{over}-limit"
        return KeyVerdict(key, Judgement.UNKNOWN, len(calls), looked_at, reason=reason)

    def _shown(self, order: Sequence[Call] | None, recorded: Sequence[Call]) -> tuple[Call, ...] | None:
        """Return the recorded calls in this order, if orders are asked for."""
        if order is None or not self.with_order:
            return None
        by_id = {call.id: call for call in recorded}
        return tuple(by_id[call.id] for call in order)


class _Meter:
    """Tells one search when to give up, and remembers why."""

    def __init__(self, judge: _Judge, stage: _Stage) -> None:
        began = judge.now()
        self._judge = judge
        self._looked_max = stage.looked_max
        self._end = began + stage.share * max(0.0, judge.deadline - began)
        self.search: Search | DepthFirst | None = None
        self.over = "time"

    @property
    def looked_at(self) -> int:
        """Configurations that the search has looked at."""
        return 0 if self.search is None else self.search.looked_at

    def expired(self, held_bytes: int) -> bool:
        """Whether the search has had enough of something."""
        if held_bytes > self._judge.memory_bytes:
            self.over = "memory"
            return True
        over_work = self._looked_max is not None and self.looked_at > self._looked_max
        return over_work or self._judge.now() >= self._end


def _asked(
    model: Model, calls: Sequence[Call], width: int | None, meter: _Meter, recorded: Sequence[Call]
) -> _Answer | None:
    """Return the answer of one search; None if a narrow one found nothing.

    Raises:
        SearchExpired: the meter said so.
    """
    if width == DEPTH_FIRST:
        depth_first = meter.search = DepthFirst(model, calls, meter.expired)
        return _Answer(depth_first.run())
    search = meter.search = Search(model, calls, expired=meter.expired, width=width)
    blocked = search.run()
    if blocked is None:
        return _Answer(_order(search))
    return None if search.narrowed else _Answer(None, failure_of(search, blocked, recorded))


def _clear(answer: _Answer | None) -> bool:
    """Whether there is an answer, with a picture small enough to look at if it is no."""
    if answer is None:
        return False
    failure = answer.failure
    return failure is None or (failure.complete and len(failure.window) <= PICTURE_MAX)


def _contradicted(model: Model, calls: Sequence[Call], recorded: Sequence[Call]) -> _Answer | None:
    """Return the answer that some calls contradict each other outright, if any are seen to."""
    horizon = model.horizon(calls, [model.init()])
    if horizon is None or not horizon.contradiction:
        return None
    by_id = {call.id: call for call in recorded}
    window = sorted(
        {call.id: by_id[call.id] for call in horizon.contradiction}.values(), key=lambda c: c.start
    )
    return _Answer(None, Failure(tuple(window), blocked=window[-1], entry_states=(), partials=()))


def _proposed(model: Model, calls: Sequence[Call]) -> _Answer | None:
    """Return the order that the model proposes without a search, if it proposes one and it holds."""
    order = model.proposed(calls)
    return _Answer(order) if order is not None and verified(model, order, calls) else None


def _order(search: Search) -> list[Call]:
    _, _, trail = next(iter(search.frontier.values()))[0]
    return [search.calls[step.call] for step in placed(search, trail, len(search.events))]
