"""What is made of the answers of ringkv's client."""

from __future__ import annotations

import pytest

from kv.client import Evidence, PutReply
from kv.errors import DeadlineExceeded, InvalidArgument, Unavailable, UnknownOutcome
from kv_jepsen.targets import Refused, Unknown
from kv_jepsen.targets.ringkv import _effect, _outcome, _written

EVIDENCE = Evidence(partition=2, map_epoch=1, term=3, index=248, node="n1", level=None, revision=244)


def test_a_repeated_write_stands_where_it_was_applied() -> None:
    """The index of a write is its revision, also if a later entry answered for it; without an effect there is none."""
    told = _written(PutReply(244, 7, EVIDENCE), True)
    assert told.value is True
    assert dict(told.evidence) == {
        "partition": 2, "term": 3, "node": "n1", "index": 244, "revision": 244, "version": 7,
    }  # fmt: skip
    assert "index" not in _effect(EVIDENCE, None)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unavailable("x"), Refused),
        (DeadlineExceeded("x", definite=True), Refused),
        (DeadlineExceeded("x", definite=False), Unknown),
        (UnknownOutcome("x"), Unknown),
        (InvalidArgument("x"), InvalidArgument),
    ],
)
def test_outcomes(error: Exception, outcome: type[Exception]) -> None:
    """Only a definite error is a refusal; a bad argument is a mistake of the harness and stays itself."""
    assert type(_outcome(error)) is outcome  # type: ignore[arg-type]
