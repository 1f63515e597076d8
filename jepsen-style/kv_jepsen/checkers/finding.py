"""What every checker of this folder returns: findings, counts, and a verdict with three ends.

Values only. A checker judges one property; `unknown` is no pass: it says that the history does not show enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Valid: TypeAlias = bool | Literal["unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation.

    Attributes:
        kind: its name within the checker, such as `lost`.
        sentence: what happened, in one sentence.
        ops: the calls concerned, by `Call.id`; empty if it is about something that is no call.
    """

    kind: str
    sentence: str
    ops: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The judgement of one checker.

    Attributes:
        checker: its name.
        valid: whether the property holds; `unknown` if the history does not show enough to say.
        findings: the violations; not empty exactly if `valid` is False.
        counts: what was counted and measured; names end in the unit where there is one.
        reason: why `valid` is unknown; empty otherwise.
    """

    checker: str
    valid: Valid
    findings: tuple[Finding, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def judged(
    checker: str, findings: Iterable[Finding], counts: Mapping[str, float], unknown_because: str = ""
) -> CheckResult:
    """The result: invalid with any finding, otherwise unknown with a reason, otherwise valid."""
    found = tuple(findings)
    if found:
        return CheckResult(checker, False, found, counts)
    if unknown_because:
        return CheckResult(checker, "unknown", (), counts, unknown_because)
    return CheckResult(checker, True, (), counts)


def worst(results: Iterable[CheckResult]) -> Valid:
    """The verdict on all results together: one violation decides, then one unknown."""
    found = {result.valid for result in results}
    if False in found:
        return False
    return "unknown" if "unknown" in found else True


def quantiles_ms(values_ns: Iterable[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum in milliseconds, by the nearest rank; empty for no values."""
    ordered = sorted(values_ns)
    if not ordered:
        return {}
    last = len(ordered) - 1
    picks = {"p50_ms": last // 2, "p99_ms": last * 99 // 100, "max_ms": last}
    return {name: round(ordered[place] / 1e6, 3) for name, place in picks.items()}
