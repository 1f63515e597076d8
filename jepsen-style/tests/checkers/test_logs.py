"""Logs: lines of a defect are found with their place, what is allowed is not."""

from __future__ import annotations

import pytest

from kv_jepsen.checkers import log_patterns
from kv_jepsen.checkers.logs import EXCERPT_CHARS_MAX, PER_NODE_MAX


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "AssertionError: order",
        "panic: runtime error",
        "node: core dumped",
        "Task exception was never retrieved",
        "Fatal Python error: Aborted",
    ],
)
def test_a_line_of_a_defect_is_found_with_node_and_line(line: str) -> None:
    """Each pattern is found anywhere in a line; the finding names node and line."""
    result = log_patterns({"n1": ["started", f"12:00 {line}"], "n2": ["started"]})
    assert [finding.sentence for finding in result.findings] == [f"n1, line 2: 12:00 {line}"]
    assert result.counts == {"nodes": 2, "lines": 3, "matched": 1}


def test_allowed_lines_are_no_findings() -> None:
    """A line that is as it should be is named by a pattern of its own."""
    logs = {"n1": ["AssertionError: expected here"]}
    assert log_patterns(logs, allowed=["expected here"]).valid is True
    assert log_patterns({"n1": ["all is well, no panicking"]}).valid is True


def test_a_flood_is_cut_and_counted() -> None:
    """Of one node at most so many lines are reported, of a line so many characters; the count tells of all."""
    result = log_patterns({"n1": ["panic " + "x" * 500] * (PER_NODE_MAX + 1)})
    assert len(result.findings) == PER_NODE_MAX
    assert result.counts["matched"] == PER_NODE_MAX + 1
    assert len(result.findings[0].sentence) == len("n1, line 1: ") + EXCERPT_CHARS_MAX


def test_no_log_is_no_pass() -> None:
    """Without a line to look at the verdict is unknown."""
    assert log_patterns({}).valid == "unknown"


def test_a_traceback_in_json_is_one() -> None:
    """A log of JSON lines tells of an exception without the word traceback, and it is found all the same."""
    line = '{"event": "reply_failed", "exception": [{"exc_type": "AttributeError", "exc_value": "no such"}]}'
    assert log_patterns({"n1": [line]}).valid is False
    assert log_patterns({"n1": ['{"event": "serves", "exception": null}']}).valid is True
