"""The lab of one partition: who reads where, and the timeline of what each saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from kv_jepsen import cli_lab
from kv_jepsen.cli import app
from kv_jepsen.cuts import sockets
from kv_jepsen.history import History, Op, OpType, Value
from kv_jepsen.judge import judge
from kv_jepsen.lab_partitions import Lane, isolated, lanes, timeline_page, timeline_text
from kv_jepsen.report import Run
from kv_jepsen.targets.api import Answer, Refused
from kv_jepsen.targets.memory import MemoryClient
from kv_jepsen.watchers import GREETINGS_MAX, KEY, Watchers, processes_for

MS = 1_000_000
Row = tuple[int, int, int, str, Value, str, Mapping[str, Value]]
"""Process, from ms, to ms, function, value, end, evidence."""


def _run(*rows: Row) -> Run:
    """Two nodes of which n1 is cut off from 500 ms to 1,500 ms."""
    lines: list[tuple[int, Op]] = [
        (500, Op(0, "nemesis", OpType.INFO, "partition", None, "n1/*", 500 * MS)),
        (1500, Op(0, "nemesis", OpType.INFO, "heal", None, "*", 1500 * MS)),
    ]
    for process, begin, end, f, value, kind, extra in rows:
        asked = {"level": extra["level"]} if "level" in extra else {}
        given = value if f == "write" else None
        lines.append((begin, Op(0, process, OpType.INVOKE, f, KEY, given, begin * MS, None, asked)))
        lines.append((end, Op(0, process, OpType(kind), f, KEY, value, end * MS, None, extra)))
    ops = [op for _, op in sorted(lines, key=lambda line: line[0])]
    run = Run("lab", "", History(ops), {"levels": "linearizable, stale"})
    return judge(run, "register")


STRONG, STALE = {"level": "linearizable"}, {"level": "stale"}
RUN = _run(
    (5, 0, 100, "write", 1, "ok", {"revision": 1}),
    (0, 200, 300, "read", 1, "ok", STRONG | {"revision": 1}),
    (0, 600, 1700, "read", None, "fail", STRONG),
    (1, 600, 700, "read", 1, "ok", STRONG | {"revision": 1}),
    (5, 700, 800, "write", 2, "ok", {"revision": 2}),
    (2, 1100, 1200, "read", 1, "ok", STALE | {"revision": 1}),
    (2, 1300, 1350, "read", 2, "ok", STALE | {"revision": 2}),
    (3, 1900, 2100, "read", 2, "ok", STALE | {"revision": 2}),
)


def test_each_side_has_a_lane() -> None:
    """Cells of half a second: fresh, stale, refused, waiting; the worst of a cell is shown, in the order of the levels."""
    assert lanes(RUN, ["n1", "n2"]) == [
        Lane("writes at the others", "==   "),
        Lane("linearizable at n1, cut off", "=..x "),
        Lane("linearizable at the others", " =   "),
        Lane("stale at n1, cut off", "  s  ", 300 * MS),
        Lane("stale at the others", "   .="),
    ]
    assert isolated(RUN) == "n1"


def test_text_and_page_have_every_lane() -> None:
    """Each lane under the cut, aligned; how stale it was at its end; the page has the same."""
    found = lanes(RUN, ["n1", "n2"])
    text = timeline_text(RUN, found)
    lines = text.splitlines()
    assert lines[1].split() == ["cut", "###"]
    assert lines[5].endswith("  s    up to 300 ms stale")
    wide = max(len(lane.name) for lane in found)
    for line, lane in zip(lines[2:], found, strict=False):
        assert line.startswith(f"{lane.name:<{wide}}  {lane.cells}".rstrip())
    assert "waiting" in text
    assert all(lane.name in timeline_page(RUN, text) for lane in found)


def test_every_level_is_read_at_every_node() -> None:
    """Of two levels at three nodes, each pair has a process; the last three write, each value once."""
    watchers = Watchers(processes_for(2, 3), ("stale", "bounded:500ms"), nodes=3)
    steps = [watchers.next(process, Random(1)) for process in range(9)]
    assert [step.extra.get("level") for step in steps] == ["stale"] * 3 + ["bounded"] * 3 + [None] * 3
    assert steps[3].extra["bound_ms"] == 500
    assert [step.value for step in steps[6:]] == [1, 2, 3]
    with pytest.raises(ValueError, match="9 processes"):
        Watchers(8, ("stale", "bounded:500ms"), nodes=3)


async def test_a_greeting_is_tried_and_given_up() -> None:
    """The first read of a client is repeated while it is refused, so often and no more; it is no part of the history."""

    class Shy(MemoryClient):
        asked = 0

        async def read(self, key: str, level: str) -> Answer:
            self.asked += 1
            raise Refused("not yet")

    shy = Shy({})
    await Watchers(processes_for(1, 1), ("stale",), nodes=1).greet(shy)
    assert shy.asked == GREETINGS_MAX


def test_another_experiment_is_told() -> None:
    """What there is not is exit status 2."""
    done = CliRunner().invoke(app, ["lab", "alchemy"])
    assert done.exit_code == 2
    assert "reads and partitions" in done.output


@pytest.mark.skipif(not sockets.offered(), reason="proxy cuts need Linux")
@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real processes: the timeline is printed, and is in the folder beside the report."""
    for name, seconds in [("CUT_S", 0.3), ("HEAL_S", 0.8), ("END_S", 1.2)]:
        monkeypatch.setattr(cli_lab, name, seconds)
    arguments = [
        "--target",
        "kv_jepsen.targets.example:Forgetful",
        "--nodes",
        "2",
        "--results",
        str(tmp_path),
    ]
    done = CliRunner().invoke(
        app, ["lab", "partitions", *arguments], env={"KV_JEPSEN_STATE": str(tmp_path / "state")}
    )
    assert done.exit_code == 0, done.output
    assert "linearizable at n1, cut off" in done.output
    folder = tmp_path / "latest"
    assert "linearizable at the others" in (folder / "lab.md").read_text()
    assert 'href="report.html"' in (folder / "lab.html").read_text()
