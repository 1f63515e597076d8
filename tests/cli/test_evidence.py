"""How evidence is shown."""

from __future__ import annotations

from kv.cli.evidence import LONG_HEADERS, SHORT_HEADERS, answers, cells, fields, headers
from kv.client.types import Evidence, ReadLevel

WRITE = Evidence(3, 1, 2, 7, "n1", None, 7)
STALE = Evidence(3, 1, 2, 7, "n2", ReadLevel.STALE, 5, 12)


def test_cells_fit_their_headers() -> None:
    """Short and full forms have a cell for each header, also where there is no evidence."""
    for evidence in (WRITE, STALE, None):
        assert len(cells(evidence, full=False)) == len(headers(full=False)) == len(SHORT_HEADERS)
        assert len(cells(evidence, full=True)) == len(headers(full=True)) == len(LONG_HEADERS)
    assert cells(STALE, full=True) == ("3", "n2", "2", "7", "1", "stale", "5", "12 ms")
    assert cells(WRITE, full=True)[5:] == ("-", "7", "-")


def test_fields_say_only_what_is_known() -> None:
    """A write has no level, and an age stands only where one is known; an age of 0 is one."""
    assert fields(None) is None
    assert {"level", "age_ms"}.isdisjoint(fields(WRITE) or {})
    found = fields(STALE)
    assert found is not None
    assert (found["level"], found["age_ms"], found["revision"]) == ("stale", 12, 5)
    fresh = fields(Evidence(3, 1, 2, 7, "n2", ReadLevel.STALE, 5, 0))
    assert fresh is not None
    assert fresh["age_ms"] == 0
    assert answers(()) == {}
    assert answers((STALE,)) == {"answers": [found]}
