"""The file of a run: what is written is what is read, and what is no run is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.record import (
    FORMAT,
    Missing,
    Run,
    Sample,
    command_line,
    facts_line,
    missing_line,
    read_run,
    sample_line,
)

TEXT = st.text(max_size=20)
SAMPLES = st.builds(
    Sample,
    row=st.integers(0, 13),
    system=TEXT,
    work=TEXT,
    round=st.integers(0, 9),
    metrics=st.dictionaries(TEXT, st.integers(0, 10**9).map(float), max_size=3),
    series=st.lists(st.integers(0, 10**6).map(float), max_size=3).map(tuple),
    note=TEXT,
)
MISSING = st.builds(Missing, row=st.integers(0, 13), system=TEXT, round=st.integers(0, 9), why=TEXT)


@given(
    st.dictionaries(TEXT, TEXT, max_size=3),
    st.lists(TEXT, max_size=3, unique=True),
    st.lists(SAMPLES, max_size=5),
    st.lists(MISSING, max_size=3),
)
def test_a_run_is_read_as_it_was_written(
    facts: dict[str, str], commands: list[str], samples: list[Sample], missing: list[Missing]
) -> None:
    """Every line survives the way through the file, each on one line."""
    lines = [
        facts_line(facts),
        *map(command_line, commands),
        *map(sample_line, samples),
        *map(missing_line, missing),
    ]
    assert not any("\n" in line for line in lines)
    assert read_run(lines) == Run(facts, tuple(commands), tuple(samples), tuple(missing))


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"kind":"sample"}', '{"kind":"x"}'])
def test_a_line_that_is_none_of_ours_is_named(line: str) -> None:
    """The error says which line."""
    with pytest.raises(ValueError, match="line 2 is no line of a run"):
        read_run([facts_line({}), line])


def test_a_newer_format_is_refused() -> None:
    """A file that later code wrote is not half understood."""
    with pytest.raises(ValueError, match="newer"):
        read_run([facts_line({}).replace(f'"format":{FORMAT}', f'"format":{FORMAT + 1}')])
