"""The read lab's table."""

from __future__ import annotations

from kv_jepsen.history import History, Op, OpType
from kv_jepsen.lab import HEAD, lab_page, lab_rows, lab_text
from kv_jepsen.report import Run

MS = 1_000_000


def _run() -> Run:
    """Two writes; then a read at each level, of which the stale one is 40 ms old and the third is refused."""
    rows: list[tuple[int, str, object, object, int, dict[str, object], str]] = [
        (0, "write", 1, 1, 0, {"revision": 1}, "ok"),
        (0, "write", 2, 2, 10, {"revision": 2}, "ok"),
        (1, "read", None, 1, 60, {"level": "stale", "revision": 1}, "ok"),
        (1, "read", None, 2, 70, {"level": "lease", "revision": 2}, "ok"),
        (1, "read", None, None, 80, {"level": "lease"}, "fail"),
    ]
    ops: list[Op] = []
    for process, f, value, output, at, extra, end in rows:
        started = {k: v for k, v in extra.items() if k == "level"}
        ops.append(Op(0, process, OpType.INVOKE, f, "k", value, at * MS, None, started))  # type: ignore[arg-type]
        ops.append(Op(0, process, OpType(end), f, "k", output, (at + 5) * MS, None, extra))  # type: ignore[arg-type]
    return Run("lab", "", History(ops), {"target": "none", "levels": "linearizable, stale, lease"})


def test_each_level_has_its_own_row() -> None:
    """A level is judged by its own reads: the stale one is violated and old, the other only less available."""
    stale, lease = lab_rows(_run(), now=float)
    assert (stale.level, stale.reads, stale.judgement, stale.violated_keys) == (
        "stale",
        1,
        "not linearizable",
        1,
    )
    assert (stale.stale, stale.stale_max_ms) == (1, 45.0)
    assert (lease.level, lease.reads, lease.judgement, lease.stale) == ("lease", 2, "linearizable", 0)
    assert lease.available == 0.5
    assert lease.median_ms == 5.0


def test_table_and_page_have_every_row() -> None:
    """The text has a line for each level under its head; the page has the same figures."""
    run = _run()
    rows = lab_rows(run, now=float)
    lines = lab_text(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(line.count("|") == len(HEAD) + 1 for line in lines)
    page = lab_page(run, rows)
    assert all(cell in page for row in rows for cell in row.cells())
