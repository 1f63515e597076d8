"""`results.json`: the verdicts of a run as data, for other programs.

Pure: a `Run` in, values of JSON out, and the summary back from them. The document has a version, and only grows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from kv_jepsen.checkers import CheckResult, Finding, Valid
from kv_jepsen.elle import Anomaly, ElleResult
from kv_jepsen.report.plots import end_s
from kv_jepsen.report.run import JUDGED, Run, Summary
from kv_jepsen.report.timeline import describe
from kv_jepsen.verdict import KeyVerdict, Verdict

VERSION: Final = 1

FINDINGS_MAX: Final = 1_000
"""Findings of one checker, and anomalies, that are written; their numbers tell of all."""


class UnreadableResults(ValueError):
    """A `results.json` that is not one; the message says what is missing or wrong."""


def document(run: Run) -> dict[str, Any]:
    """The whole document."""
    return {
        "version": VERSION,
        "name": run.name,
        "started": run.started,
        "valid": run.valid,
        "calls": len(run.history.calls),
        "duration_s": round(end_s(run.history.calls, run.faults), 3),
        "facts": dict(run.facts),
        "linearizable": None if run.linearizable is None else _linearizable(run.linearizable),
        "elle": None if run.elle is None else _elle(run.elle),
        "checks": [_check(check) for check in run.checks],
        "staleness": {level: list(counts) for level, counts in run.staleness.items()},
        "faults": [
            {"kind": p.kind, "target": p.target, "start_ns": p.start_ns, "end_ns": p.end_ns}
            for p in run.faults
        ],
    }


def _linearizable(verdict: Verdict) -> dict[str, Any]:
    keys = [_key(key) for key in verdict.keys]
    return {"model": verdict.model, "valid": JUDGED[verdict.judgement], "keys": keys}


def _key(key: KeyVerdict) -> dict[str, Any]:
    return {
        "key": str(key.key),
        "valid": JUDGED[key.judgement],
        "calls": key.calls,
        "configurations": key.configurations,
        "method": key.method,
        "reason": key.reason,
        "blocked": None if key.failure is None else describe(key.failure.blocked),
        "window": [] if key.failure is None else [call.id for call in key.failure.window],
    }


def _elle(result: ElleResult) -> dict[str, Any]:
    return {
        "model": result.model,
        "valid": result.valid,
        "transactions": result.txns,
        "counts": result.counts(),
        "ruled_out": list(result.ruled_out),
        "anomalies": [_anomaly(anomaly) for anomaly in result.anomalies[:FINDINGS_MAX]],
    }


def _anomaly(anomaly: Anomaly) -> dict[str, Any]:
    steps = [
        {"from": s.source, "to": s.target, "kind": s.kind.value, "because": s.because} for s in anomaly.steps
    ]
    return {"name": anomaly.name, "sentence": anomaly.sentence, "txns": list(anomaly.txns), "steps": steps}


def _check(check: CheckResult) -> dict[str, Any]:
    findings = [
        {"kind": finding.kind, "sentence": finding.sentence, "ops": list(finding.ops)}
        for finding in check.findings[:FINDINGS_MAX]
    ]
    return {
        "checker": check.checker,
        "valid": check.valid,
        "reason": check.reason,
        "counts": dict(check.counts),
        "findings_total": len(check.findings),
        "findings": findings,
    }


def summary(folder: str, loaded: Any) -> Summary:  # noqa: ANN401 - what JSON gives has no narrower type
    """The summary of a document that was read back.

    Raises:
        UnreadableResults: it is no document of this version.
    """
    if not isinstance(loaded, Mapping) or loaded.get("version") != VERSION:
        raise UnreadableResults(f"{folder}: results.json is no object of version {VERSION}")
    try:
        valid: Valid = loaded["valid"] if loaded["valid"] in {True, False} else "unknown"
        facts = {str(name): str(value) for name, value in loaded["facts"].items()}
        return Summary(
            folder,
            str(loaded["name"]),
            str(loaded["started"]),
            valid,
            int(loaded["calls"]),
            float(loaded["duration_s"]),
            facts,
        )
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UnreadableResults(f"{folder}: results.json: {type(error).__name__}: {error}") from error


def checks_of(folder: str, loaded: Any, names: Collection[str]) -> tuple[CheckResult, ...]:  # noqa: ANN401 - as above
    """The results of the checkers with these names, out of a document that was read back.

    Raises:
        UnreadableResults: it is no document of this version.
    """
    try:
        return tuple(_check_of(one) for one in loaded["checks"] if one["checker"] in names)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UnreadableResults(f"{folder}: results.json: {type(error).__name__}: {error}") from error


def _check_of(one: Mapping[str, Any]) -> CheckResult:
    findings = tuple(
        Finding(str(found["kind"]), str(found["sentence"]), tuple(map(int, found["ops"])))
        for found in one["findings"]
    )
    valid: Valid = one["valid"] if one["valid"] in {True, False} else "unknown"
    return CheckResult(str(one["checker"]), valid, findings, dict(one["counts"]), str(one["reason"]))
