"""What a report is made from: one run with everything that was recorded and judged.

Values only, and the summary that stands in `results.json` and on the index page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kv_jepsen.checkers import CheckResult, Valid
from kv_jepsen.checkers.staleness import Histogram
from kv_jepsen.elle import ElleResult, Txn
from kv_jepsen.history import History
from kv_jepsen.periods import Period
from kv_jepsen.verdict import Judgement, Verdict

JUDGED: Mapping[Judgement, Valid] = {
    Judgement.LINEARIZABLE: True,
    Judgement.NOT_LINEARIZABLE: False,
    Judgement.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        name: what was run, such as `register-partitions`.
        started: when, as text (ISO 8601); the harness's wall clock.
        history: what the clients saw.
        facts: what else describes the run (target, nodes, seed, workload), shown in this order.
        faults: when there were faults; see `periods.periods`.
        checks: results of the single checkers.
        linearizable: the judgement on linearizability, if it was asked for.
        elle: the judgement on cycles, if it was asked for, with the transactions it is about.
        txns: the transactions of `elle`.
        staleness: histograms by read level.
        schedule: the schedule file's text.
        logs: node to the path of its log, relative to the report.
        above: the page that the report leads back to, and what it is called; relative to the report.
    """

    name: str
    started: str
    history: History
    facts: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[Period, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    linearizable: Verdict | None = None
    elle: ElleResult | None = None
    txns: tuple[Txn, ...] = ()
    staleness: Mapping[str, Histogram] = field(default_factory=dict)
    schedule: str = ""
    logs: Mapping[str, str] = field(default_factory=dict)
    above: tuple[str, str] = ("../index.html", "all runs")

    @property
    def valid(self) -> Valid:
        """The verdict on the run: one violation decides, then one unknown; without a check it is unknown."""
        found: list[Valid] = [check.valid for check in self.checks]
        if self.linearizable is not None:
            found.append(JUDGED[self.linearizable.judgement])
        if self.elle is not None:
            found.append(self.elle.valid)
        if any(valid is False for valid in found):
            return False
        return True if found and all(valid is True for valid in found) else "unknown"

    def suspects(self) -> frozenset[int]:
        """The calls that a violation is about, by `Call.id`."""
        found = {op for check in self.checks for finding in check.findings for op in finding.ops}
        if self.linearizable is not None:
            found |= {key.failure.blocked.id for key in self.linearizable.failures if key.failure is not None}
        if self.elle is not None:
            starts = {self.txns[i].start for anomaly in self.elle.anomalies for i in anomaly.txns}
            found |= starts  # a call's id is the place of its invocation
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the index page."""

    folder: str
    """Name of the run's folder, which is also the link to it."""
    name: str
    started: str
    valid: Valid
    calls: int
    duration_s: float
    facts: Mapping[str, str] = field(default_factory=dict)
