"""Unique ids: different ones pass, a repeated one is found with all calls that got it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen.checkers import unique_ids
from kv_jepsen.rehearsal import Row, calls_of


@given(st.lists(st.integers(0, 20), max_size=20))
def test_valid_exactly_if_no_id_is_repeated(ids: list[int]) -> None:
    """The verdict is that of the set of answers; failed and unknown calls say nothing."""
    rows: list[Row] = []
    for output in ids:
        rows += [(0, "invoke", "generate", None, None), (0, "ok", "generate", None, output)]
    rows += [(1, "invoke", "generate", None, None), (1, "fail", "generate", None, 5)]
    result = unique_ids(calls_of(*rows))
    repeated = {i for i in ids if ids.count(i) > 1}
    assert result.valid == ("unknown" if not ids else not repeated)
    assert {len(finding.ops) for finding in result.findings} == {ids.count(i) for i in repeated}
