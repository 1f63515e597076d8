"""What is wrong with a judged run, in a form that can be found again in a smaller one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kv_jepsen.report.run import Run


@dataclass(frozen=True, slots=True)
class Complaint:
    """One kind of violation.

    Attributes:
        checker: that found it: `linearizable`, `elle`, or the name of a single checker.
        kind: of its findings, or of its anomalies.
    """

    checker: str
    kind: str

    def __str__(self) -> str:
        return self.kind if self.checker == "linearizable" else f"{self.checker}: {self.kind}"


NOT_LINEARIZABLE = Complaint("linearizable", "not linearizable")

ABOUT_NO_CALL = frozenset({"logs", "cluster", "replicas", "recovery"})
"""Checkers whose findings are about nodes and faults: no smaller history shows them."""


def complaints(run: Run) -> tuple[Complaint, ...]:
    """Every kind of violation of a judged run, the gravest checker first."""
    found: dict[Complaint, None] = {}
    if run.linearizable is not None and run.linearizable.failures:
        found[NOT_LINEARIZABLE] = None
    if run.elle is not None and run.elle.valid is False:
        found |= dict.fromkeys(Complaint("elle", anomaly.name) for anomaly in run.elle.anomalies)
    for check in run.checks:
        found |= dict.fromkeys(Complaint(check.checker, finding.kind) for finding in check.findings)
    return tuple(found)
