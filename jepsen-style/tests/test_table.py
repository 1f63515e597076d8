"""The tables of campaigns and of hunts for mutants."""

from __future__ import annotations

from collections import Counter

from kv_jepsen.mutants import HUNTS, hunt_of
from kv_jepsen.table import Caught, Done, campaign_table, mutant_table, read_caught, write_caught
from kv_jepsen.tour import Leg


def test_a_campaign_adds_up() -> None:
    """Calls, faults and verdicts of all runs are added, and each run has its row."""
    leg = Leg("register", "proxy", ("kill", "disk"), ("*",), ("reads=own",), 7)
    done = [
        Done("one", leg, 10, 9, Counter(crash=2), True),
        Done("two", leg, 5, 5, Counter(crash=1, fill=1), False),
        Done("three", leg, 1, 0, Counter(), "unknown"),
    ]
    page = campaign_table(done, 42)
    assert page.startswith("# A campaign of 3 runs (seed 42)\n")
    assert "16 calls, 14 ok. Runs: 1 INVALID, 1 unknown, 1 valid." in page
    assert "Faults: 3 crash, 1 fill." in page
    assert "| two | register | proxy | kill, disk | * | reads=own | 5 | 5 | INVALID |" in page


def test_a_mutant_has_one_row_for_its_hunts() -> None:
    """Each row says how often the mutant was caught, by whom, and how long each hunt took; who escapes is seen."""
    one, other = hunt_of("ack-before-sync"), HUNTS[0]
    hunts = [
        Caught(one, ("linearizability",), 1, 41.4),
        Caught(other, (), 1, 1.0),
        Caught(one, ("staleness",), 2, 80.6),
        Caught(other, (), 9, 300.0),
        Caught(other, ("x",), 1, 20.0),
    ]
    page = mutant_table(hunts, 2)
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == 2
    assert rows[0].endswith("| x | 1 of 2 | 300, 20 |")
    assert "slow_sync, power cut" in rows[1]
    assert rows[1].endswith("| linearizability, staleness | 2 of 2 | 41, 81 |")
    assert read_caught("".join(map(write_caught, hunts))) == hunts
    assert read_caught('{"mutant": "gone", "by": [], "attempts": 1, "seconds": 1}') == []
