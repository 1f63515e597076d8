"""A verdict in words for a terminal, and as plain data for `--json`. No printing, no judging."""

from __future__ import annotations

from collections.abc import Iterator

from kv_jepsen.history import OPEN, Call, Value
from kv_jepsen.verdict import Failure, KeyVerdict, Verdict

KEYS_SHOWN_MAX = 5
"""So many failing keys are described; all are counted."""


def lines(verdict: Verdict, seconds: float) -> Iterator[str]:
    """Yield the verdict of one history, the summary first."""
    calls = sum(key.calls for key in verdict.keys)
    looked = sum(key.configurations for key in verdict.keys)
    yield (
        f"{verdict.judgement.value} (model {verdict.model}, {_counted(len(verdict.keys), 'key')}, "
        f"{_counted(calls, 'call')}, {_counted(looked, 'configuration')}, {seconds:.2f} s)"
    )
    failures = verdict.failures
    for key in failures[:KEYS_SHOWN_MAX]:
        yield from _failure_lines(key)
    if len(failures) > KEYS_SHOWN_MAX:
        yield f"  and {_counted(len(failures) - KEYS_SHOWN_MAX, 'more key')}"
    for key in verdict.keys:
        if key.reason:
            yield f"  {_key_name(key.key)}: {key.reason}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _key_name(key: Value) -> str:
    return "the object" if key is None else f"key {key!r}"


def _failure_lines(key: KeyVerdict) -> Iterator[str]:
    failure = key.failure
    if failure is None:
        return
    if failure.complete:
        yield f"  {_key_name(key.key)}: no order explains {_call(failure.blocked)}"
    else:
        yield f"  {_key_name(key.key)}: there is no order; the search ended near {_call(failure.blocked)}"
    if failure.entry_states:
        yield f"    before this part it was {' or '.join(failure.entry_states)}"
    else:
        yield "    these calls contradict each other, whatever came before"
    for call in failure.window:
        yield f"    {_span(call):>17}  {_call(call)}"
    for partial in failure.partials:
        steps = ", ".join(f"{step.call.f} of {step.call.id} -> {step.state}" for step in partial)
        yield f"    as far as it goes: {steps or 'nothing fits'}"


def _span(call: Call) -> str:
    return f"[{call.start}, {'...' if call.end == OPEN else call.end}]"


def _call(call: Call) -> str:
    asked = "" if call.input is None else f" {call.input!r}"
    if call.ok:
        answered = f" returned {call.output!r}" if call.output != call.input else " ok"
    else:
        answered = f" {call.outcome.value}"
    return f"process {call.process} {call.f}{asked}{answered} (operation {call.id})"


def data(verdict: Verdict, seconds: float) -> dict[str, object]:
    """Return the verdict as values that JSON knows."""
    return {
        "judgement": verdict.judgement.value,
        "linearizable": {0: True, 1: False}.get(verdict.exit_status, "unknown"),
        "model": verdict.model,
        "seconds": round(seconds, 3),
        "keys": [_key_data(key) for key in verdict.keys],
    }


def _key_data(key: KeyVerdict) -> dict[str, object]:
    shown: dict[str, object] = {
        "key": key.key if key.key is None or isinstance(key.key, str | int) else repr(key.key),
        "judgement": key.judgement.value,
        "calls": key.calls,
        "configurations": key.configurations,
        "method": key.method,
    }
    if key.reason:
        shown["reason"] = key.reason
    if key.failure is not None:
        shown["failure"] = _failure_data(key.failure)
    return shown


def _failure_data(failure: Failure) -> dict[str, object]:
    return {
        "complete": failure.complete,
        "blocked": failure.blocked.id,
        "entry_states": list(failure.entry_states),
        "window": [call.id for call in failure.window],
        "partials": [
            [{"operation": step.call.id, "state": step.state} for step in partial]
            for partial in failure.partials
        ],
    }
