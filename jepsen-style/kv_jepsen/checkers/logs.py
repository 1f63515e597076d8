"""Logs of the nodes: lines that no healthy node writes.

Pure: it is given the lines. What matches a pattern and none of the allowed ones is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kv_jepsen.checkers.finding import CheckResult, Finding, judged

PATTERNS: Final = (
    r"Traceback \(most recent call last\)",
    r'"exc_type": "',  # a traceback in a log of JSON lines
    r"\bpanic\b",
    r"\bAssertionError\b",
    r"\b(SIGSEGV|SIGABRT|SIGBUS)\b|[Ss]egmentation fault|core dumped",
    r"Fatal Python error",
    r"exception was never retrieved",
    r"data race",
)
"""Regular expressions of lines that tell of a defect."""

EXCERPT_CHARS_MAX: Final = 160
"""How much of a line a finding quotes."""

PER_NODE_MAX: Final = 100
"""Findings reported for each node; the counts tell of all."""


def log_patterns(
    logs: Mapping[str, Iterable[str]], patterns: Sequence[str] = PATTERNS, allowed: Sequence[str] = ()
) -> CheckResult:
    """No line of any node's log matches a pattern, unless it also matches an allowed one.

    Args:
        logs: node to the lines of its log.
        patterns: regular expressions to look for anywhere in a line.
        allowed: regular expressions of lines that are as they should be.
    """
    wanted = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    pardoned = re.compile("|".join(f"(?:{pattern})" for pattern in allowed)) if allowed else None
    findings: list[Finding] = []
    lines = matched = 0
    for node, text in logs.items():
        reported = 0
        for place, line in enumerate(text, start=1):
            lines += 1
            if wanted.search(line) and not (pardoned and pardoned.search(line)):
                matched += 1
                reported += 1
                if reported <= PER_NODE_MAX:
                    findings.append(Finding("pattern", f"{node}, line {place}: {_excerpt(line)}"))
    counts = {"nodes": len(logs), "lines": lines, "matched": matched}
    return judged("logs", findings, counts, "" if lines else "there is no log")


def _excerpt(line: str) -> str:
    text = line.strip()
    return text if len(text) <= EXCERPT_CHARS_MAX else text[: EXCERPT_CHARS_MAX - 1] + "…"
