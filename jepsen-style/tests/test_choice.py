"""What was asked for in a run, and the same as a file."""

from __future__ import annotations

import json

import pytest

from kv_jepsen.choice import Choice, UnreadablePlan, chosen

CHOICE = Choice(
    "a run", "ringkv", "register", "partition,kill", 30.0, "proxy", 3, 6, 60.5, 7,
    ("partitions=4",), ("linearizable", "stale"), ("stale",), 5000.0,
)  # fmt: skip


def test_a_choice_survives_its_file() -> None:
    """What was written is what is read back, also where a later version has added something."""
    assert chosen(json.loads(json.dumps(CHOICE.document()))) == CHOICE
    assert chosen({**json.loads(json.dumps(CHOICE.document())), "new": 1}) == CHOICE
    older = {name: value for name, value in CHOICE.document().items() if name != "recovery_ms_max"}
    assert chosen(json.loads(json.dumps(older))).recovery_ms_max is None


@pytest.mark.parametrize(
    "broken",
    [
        [],
        {},
        {**CHOICE.document(), "version": 2},
        {**CHOICE.document(), "nodes": "many"},
        {**CHOICE.document(), "levels": "stale"},
        {name: value for name, value in CHOICE.document().items() if name != "seed"},
    ],
)
def test_what_is_no_plan_is_told(broken: object) -> None:
    """Another version, a missing member, a member of another type."""
    with pytest.raises(UnreadablePlan):
        chosen(broken)


def test_facts_and_levels() -> None:
    """The report shows what there is; the levels held are those that promise it, and those declared."""
    assert "held linearizable" in CHOICE.facts()
    assert "options" not in Choice("", "", "", "", 1, "", 1, 1, 1, 1).facts()
    assert CHOICE.held() == {"linearizable", "lease", "stale"}
