"""Judgements of keys taken together, and the exit status that tells them."""

from __future__ import annotations

import pytest

from kv_jepsen.verdict import EXIT_BAD_INPUT, EXIT_STATUS, Judgement, KeyVerdict, Verdict, worst

GOOD, BAD, OPEN = Judgement.LINEARIZABLE, Judgement.NOT_LINEARIZABLE, Judgement.UNKNOWN


@pytest.mark.parametrize(
    ("parts", "whole", "status"),
    [
        ([], GOOD, 0),
        ([GOOD, GOOD], GOOD, 0),
        ([GOOD, OPEN], OPEN, 3),
        ([OPEN, BAD, GOOD], BAD, 1),
    ],
)
def test_one_bad_key_decides_and_unknown_is_no_pass(
    parts: list[Judgement], whole: Judgement, status: int
) -> None:
    """Not linearizable is stronger than unknown, and unknown than linearizable."""
    verdict = Verdict("register", tuple(KeyVerdict(number, part, 1) for number, part in enumerate(parts)))
    assert (verdict.judgement, verdict.exit_status) == (whole, status)
    assert worst(parts) is whole
    assert [key.judgement for key in verdict.failures] == [BAD] * parts.count(BAD)


def test_every_end_has_its_own_status() -> None:
    """Scripts can tell all ends apart, bad input too."""
    assert len({*EXIT_STATUS.values(), EXIT_BAD_INPUT}) == len(Judgement) + 1
