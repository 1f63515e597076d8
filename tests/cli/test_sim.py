"""`kv sim`: what it prints, what it refuses, and that one seed is one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kv.cli.app import app
from kv.errors import InvalidArgument

SHORT = ("--nodes", "3", "--minutes-each", "0.2")


def invoke(*words: str) -> tuple[str, str]:
    """Run `kv sim` and return what it printed to both streams; errors are raised."""
    result = CliRunner().invoke(app, ["sim", *words])
    if result.exception is not None:
        raise result.exception
    return result.stdout, result.stderr


def test_the_summary_is_for_people_or_for_programs() -> None:
    """The same seed gives the same numbers in both forms."""
    text, _ = invoke("--seed", "5", *SHORT)
    fields = json.loads(invoke("--seed", "5", *SHORT, "--json")[0])
    assert fields["seeds"] == 1
    assert f"{fields['events']} events" in text
    assert f"{fields['writes']} writes acknowledged" in text


def test_seeds_may_be_shared_by_processes() -> None:
    """Two processes cover the same as one."""
    one = json.loads(invoke("--seeds", "1:4", *SHORT, "--jobs", "1", "--json")[0])
    two = json.loads(invoke("--seeds", "1:4", *SHORT, "--jobs", "2", "--json")[0])
    assert two.pop("simulated_s") == pytest.approx(one.pop("simulated_s"))  # added up in another order
    del one["wall_s"], two["wall_s"]
    assert one == two


def test_a_schedule_is_read_from_a_file(tmp_path: Path) -> None:
    """The faults of the file happen, and no others."""
    file = tmp_path / "faults"
    file.write_text("5 crash leader:1 power=yes\n6 start *\n8 calm *\n")
    fields = json.loads(invoke("--seed", "5", "--nodes", "3", "--schedule", str(file), "--json")[0])
    assert fields["faults"] == {"calm": 1, "crash": 1, "death": 1, "start": 1}


@pytest.mark.parametrize(
    "words",
    [
        ("--seed", "1", "--seeds", "1:2"),
        ("--seed", "1", "--seconds", "3"),
        ("--seeds", "2:1"),
        ("--faults", "storms"),
        ("--schedule", "no such file"),
    ],
)
def test_what_cannot_be_run_is_refused(words: tuple[str, ...]) -> None:
    """Contradictions and unknown names are definite errors."""
    with pytest.raises(InvalidArgument):
        invoke(*words)
